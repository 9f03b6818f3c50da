"""What members do, how often, and which answers are in order."""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Final

import orjson

from sandbox.campaign_mix import CampaignMix, bad_campaign_requests
from sandbox.instance import Service
from sandbox.journal import Operation, Seed
from sandbox.request import Held, Request

MIX: Final[dict[Operation, float]] = {
    Operation.BROWSE_REWARDS: 0.16,
    Operation.SEE_REWARD: 0.08,
    Operation.SEE_POINTS: 0.07,
    Operation.REDEEM_REWARD: 0.23,
    Operation.SEE_COUPON: 0.15,
    Operation.LIST_COUPONS: 0.05,
    Operation.REDEEM_COUPON: 0.07,
    Operation.CANCEL_REDEMPTION: 0.04,
    Operation.BROWSE_CAMPAIGNS: 0.04,
    Operation.SEE_CAMPAIGN: 0.03,
    Operation.CREATE_CAMPAIGN: 0.015,
    Operation.CHANGE_CAMPAIGN: 0.025,
    Operation.DELETE_CAMPAIGN: 0.01,
    Operation.BAD_REQUEST: 0.03,
}
"""The share of each operation among the requests; together 1. Without campaign_api the others share what is its own."""

CAMPAIGN_OPERATIONS: Final = frozenset(
    {
        Operation.BROWSE_CAMPAIGNS,
        Operation.SEE_CAMPAIGN,
        Operation.CREATE_CAMPAIGN,
        Operation.CHANGE_CAMPAIGN,
        Operation.DELETE_CAMPAIGN,
    }
)
"""What campaign_api is asked for."""

# A coupon leaves the choice after this many newer ones, so that the memory of a long run stays bounded.
_HELD_MAX = 20_000
_STORE, _COUPONS = Service.REWARD_STORE, Service.COUPON_API


@dataclass(slots=True)
class Members:
    """Decide what the members do next.

    Args:
        seed: who they are and what there is to redeem.
        random: decides; the same state gives the same sequence of decisions.
        has_campaigns: whether there is a campaign_api to ask.
    """

    seed: Seed
    random: Random
    has_campaigns: bool = False
    campaigns: CampaignMix = field(init=False)
    _shares: dict[Operation, float] = field(init=False)
    _held: list[Held] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.campaigns = CampaignMix(self.random)
        self._shares = {
            operation: share
            for operation, share in MIX.items()
            if self.has_campaigns or operation not in CAMPAIGN_OPERATIONS
        }

    def next_request(self) -> Request:
        """Return the next request by the published mix.

        Where there is no coupon to look at, change or cancel yet, a reward is redeemed instead, and where there is no
        such campaign one is created. What a request is about is busy from here on, until its sender says otherwise.
        """
        (operation,) = self.random.choices(list(self._shares), weights=list(self._shares.values()))
        if operation in CAMPAIGN_OPERATIONS:
            return self._about_campaigns(operation)
        match operation:
            case Operation.BROWSE_REWARDS:
                return self._read(operation, _STORE, "/v1/rewards?limit=20")
            case Operation.SEE_REWARD:
                reward_id = self._reward()
                return self._read(operation, _STORE, f"/v1/rewards/{reward_id}", reward_id)
            case Operation.SEE_POINTS:
                member_id = self._member()
                return self._read(operation, _STORE, f"/v1/members/{member_id}", member_id=member_id)
            case Operation.LIST_COUPONS:
                member_id = self._member()
                return self._read(operation, _COUPONS, f"/v1/members/{member_id}/coupons", member_id=member_id)
            case Operation.SEE_COUPON | Operation.REDEEM_COUPON | Operation.CANCEL_REDEMPTION:
                held = self._any_held()
                return self.redeem_reward() if held is None else self._about(operation, held)
            case Operation.BAD_REQUEST:
                return self._bad_request()
        return self.redeem_reward()

    def _about_campaigns(self, operation: Operation) -> Request:
        campaigns = self.campaigns
        found = None
        match operation:
            case Operation.BROWSE_CAMPAIGNS:
                found = campaigns.browse(self._member())
            case Operation.SEE_CAMPAIGN:
                found = campaigns.see(self._member())
            case Operation.CHANGE_CAMPAIGN:
                found = campaigns.change()
            case Operation.DELETE_CAMPAIGN:
                found = campaigns.delete()
        return found or campaigns.create()

    def redeem_reward(self) -> Request:
        """Return a request for a random reward by a random member, under a key of its own."""
        reward_id = self._reward()
        return Request(
            operation=Operation.REDEEM_REWARD,
            service=_STORE,
            method="POST",
            path="/v1/redemptions",
            member_id=self._member(),
            expected=("201", "409 insufficient-points", "409 sold-out"),
            target=reward_id,
            key=uuid.UUID(int=self.random.getrandbits(128), version=4).hex,
            body=orjson.dumps({"reward_id": reward_id}),
            is_repeatable=True,
        )

    def hold(self, held: Held) -> None:
        """Remember a coupon that a member was just told of."""
        if len(self._held) >= _HELD_MAX:
            self._held[self.random.randrange(_HELD_MAX)] = held
        else:
            self._held.append(held)

    @property
    def held(self) -> Sequence[Held]:
        """The coupons that members know of."""
        return self._held

    def _about(self, operation: Operation, held: Held) -> Request:
        on_the_way = () if held.was_seen else ("404 coupon-not-found",)
        if operation is Operation.SEE_COUPON:
            path = f"/v1/coupons/{held.code}"
            return self._read(operation, _COUPONS, path, held.code, held.member_id, on_the_way, held)
        held.is_busy = True
        if operation is Operation.REDEEM_COUPON:
            service, path, target = _COUPONS, f"/v1/coupons/{held.code}/redeem", held.code
            refusals = (*on_the_way, *(("409 coupon-cancelled",) if held.cancel_asked else ()))
            held.redeem_asked = True
        else:
            service, path, target = _STORE, f"/v1/redemptions/{held.redemption_id}/cancel", held.redemption_id
            refusals = ("409 coupon-used",) if held.redeem_asked else ()
            held.cancel_asked = True
        return Request(
            operation=operation,
            service=service,
            method="POST",
            path=path,
            member_id=held.member_id,
            expected=("200", *refusals),
            target=target,
            held=held,
            is_repeatable=True,
        )

    def _read(
        self,
        operation: Operation,
        service: Service,
        path: str,
        target: str = "",
        member_id: str | None = None,
        refusals: tuple[str, ...] = (),
        held: Held | None = None,
    ) -> Request:
        return Request(
            operation=operation,
            service=service,
            method="GET",
            path=path,
            member_id=member_id or self._member(),
            expected=("200", *refusals),
            target=target,
            held=held,
        )

    def _bad_request(self) -> Request:
        member_id, other = self.random.sample(list(self.seed.points), 2)
        requests = bad_requests(member_id, other)
        return self.random.choice(requests + bad_campaign_requests(member_id) if self.has_campaigns else requests)

    def _member(self) -> str:
        return self.random.choice(list(self.seed.points))

    def _reward(self) -> str:
        return self.random.choice(list(self.seed.rewards))

    def _any_held(self) -> Held | None:
        """Return a coupon that no change is under way for, if one is found in a few draws; newer ones more often."""
        for _ in range(5):
            if not self._held:
                return None
            held = self._held[int(len(self._held) * self.random.random() ** 0.5)]
            if not held.is_busy:
                return held
        return None


def bad_requests(member_id: str, other: str) -> list[Request]:
    """Return one request for each mistake that clients make, with the answer it must get; the members differ."""

    def bad(
        service: Service, method: str, path: str, expected: str, body: bytes | None = None, *, key: str | None = None
    ) -> Request:
        return Request(
            Operation.BAD_REQUEST, service, method, path, member_id, (expected,), target=path, key=key, body=body
        )

    key = uuid.uuid4().hex
    return [
        bad(_STORE, "POST", "/v1/redemptions", "422 invalid-request", b'{"reward_id":"rw-coffee"}'),
        bad(_STORE, "POST", "/v1/redemptions", "422 invalid-request", b'{"reward":"rw-coffee"}', key=key),
        bad(_STORE, "POST", "/v1/redemptions", "400 malformed-json", b'{"reward_id":', key=key),
        bad(_STORE, "POST", "/v1/redemptions", "404 reward-not-found", b'{"reward_id":"rw-nothing"}', key=key),
        bad(_STORE, "GET", "/v1/rewards?colour=red", "422 invalid-request"),
        bad(_STORE, "GET", "/v1/rewards/rw-nothing", "404 reward-not-found"),
        bad(_STORE, "GET", f"/v1/members/{other}", "404 member-not-found"),
        bad(_STORE, "DELETE", "/v1/rewards", "405 method-not-allowed"),
        bad(_COUPONS, "GET", "/v1/coupons/0000000000000000", "404 coupon-not-found"),
        bad(_COUPONS, "POST", "/v1/coupons/NOT-A-CODE/redeem", "404 coupon-not-found"),
        bad(_COUPONS, "POST", "/v1/coupons", "403 wrong-scope", b"{}", key=key),
        bad(_COUPONS, "GET", "/v1/nothing", "404 not-found"),
    ]
