"""One request of a member or of the operator, and what it is about."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sandbox.instance import Service
from sandbox.journal import Operation


@dataclass(slots=True)
class Held:
    """A coupon that a member was told of, and what was asked about it so far.

    Attributes:
        redemption_id: the redemption it comes from.
        code: its code.
        member_id: whose it is.
        is_busy: a request that changes it is under way; another one now would race with it.
        was_seen: coupon_api has shown it, so that it must never be unknown there again.
        redeem_asked: somebody tried to redeem it.
        cancel_asked: somebody tried to cancel it.
    """

    redemption_id: str
    code: str
    member_id: str
    is_busy: bool = False
    was_seen: bool = False
    redeem_asked: bool = False
    cancel_asked: bool = False


@dataclass(slots=True)
class HeldCampaign:
    """A campaign as the operator was last told that it is.

    Attributes:
        campaign_id: its id.
        version: what a change of it has to name.
        status: where it is in its life.
        is_busy: a request that changes it is under way; another one now would race with it.
        readers: how many requests that read it are under way.
    """

    campaign_id: str
    version: int
    status: str
    is_busy: bool = False
    readers: int = 0


@dataclass(frozen=True, slots=True)
class Request:
    """One request, ready to be written down and sent.

    Attributes:
        operation: what it is for.
        service: who is asked.
        member_id: who asks; their token goes with it unless `is_anonymous`.
        expected: the outcomes that are no failure.
        expected_again: the outcomes that are none besides, where it repeats a request whose outcome is unknown.
        target: the reward, coupon code, redemption or campaign that it is about.
        key: its idempotency key.
        if_match: the version of a campaign that it is to change.
        body: what is sent as JSON, unless it is bytes already.
        wanted: of a request that creates or changes a campaign, what its body says.
        held: the coupon that it is about.
        campaign: the campaign that it is about.
        is_repeatable: whether the sender repeats it when its outcome is unknown.
        is_anonymous: whether it goes without a token.
    """

    operation: Operation
    service: Service
    method: str
    path: str
    member_id: str
    expected: tuple[str, ...]
    expected_again: tuple[str, ...] = ()
    target: str = ""
    key: str | None = None
    if_match: int | None = None
    body: bytes | None = None
    content_type: str = "application/json"
    wanted: Mapping[str, Any] = field(default_factory=dict)  # Any: JSON
    held: Held | None = None
    campaign: HeldCampaign | None = None
    is_repeatable: bool = False
    is_anonymous: bool = False
