"""The shapes on the wire: what a body must be, and what the answers are declared to be.

Answers come from our own database and are written as they are, so the answers' classes check nothing at run time: they
are the OpenAPI document's, and a test holds real answers against them.
"""

from typing import Annotated, Literal, Self
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator
from pydantic_core import PydanticCustomError

from loyalty.coupon import FIRST_VERSION, Coupon
from loyalty.event import MAX_COUPON_VERSION, UUID_PATTERN
from loyalty.identifier import CouponCode, MemberId, RewardId
from loyalty.money import Cents, Currency, Money
from runtime.json_body import Body, Timestamp

RedemptionId = Annotated[str, StringConstraints(strict=True, pattern=UUID_PATTERN)]
Version = Annotated[int, Field(strict=True, ge=FIRST_VERSION, le=MAX_COUPON_VERSION)]


class IssueBody(Body):
    """The coupon that an operator wants to exist."""

    member_id: MemberId
    reward_id: RewardId
    value_cents: Cents
    currency: Currency
    expires_at: Timestamp


class CancelBody(Body):
    """The coupon as its issuer knows it, at the version of the cancellation."""

    code: CouponCode
    member_id: MemberId
    reward_id: RewardId
    redemption_id: RedemptionId | None
    value_cents: Cents
    currency: Currency
    issued_at: Timestamp
    expires_at: Timestamp
    version: Version

    @model_validator(mode="after")
    def _ends_after_it_begins(self) -> Self:
        if self.expires_at <= self.issued_at:
            raise PydanticCustomError("expires_before_issued", "expires_at must be after issued_at")
        return self

    def coupon(self) -> Coupon:
        """Return the order as a coupon."""
        return Coupon(
            code=self.code,
            member_id=self.member_id,
            reward_id=self.reward_id,
            redemption_id=None if self.redemption_id is None else UUID(self.redemption_id),
            value=Money(self.value_cents, self.currency),
            issued_at=self.issued_at,
            expires_at=self.expires_at,
            version=self.version,
        )


class CouponAnswer(BaseModel):
    """A coupon as it stands: `expired` from `expires_at` on, `redeemed_at` null until it is spent."""

    model_config = ConfigDict(extra="forbid", title="Coupon")

    code: CouponCode
    member_id: MemberId
    reward_id: RewardId
    redemption_id: RedemptionId | None
    value_cents: Cents
    currency: Currency
    issued_at: Timestamp
    expires_at: Timestamp
    status: Literal["issued", "redeemed", "cancelled", "expired"]
    redeemed_at: Timestamp | None
    version: Version


class CouponPageAnswer(BaseModel):
    """Some of a member's coupons, newest first; `next_cursor` leads to the rest and is null when there is none."""

    model_config = ConfigDict(extra="forbid", title="CouponPage")

    items: list[CouponAnswer]
    next_cursor: str | None
