"""What members do, how often, and which answers are in order."""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Final

import orjson

from sandbox.instance import Service
from sandbox.journal import Operation, Seed

MIX: Final[dict[Operation, float]] = {
    Operation.BROWSE_REWARDS: 0.20,
    Operation.SEE_REWARD: 0.10,
    Operation.SEE_POINTS: 0.08,
    Operation.REDEEM_REWARD: 0.26,
    Operation.SEE_COUPON: 0.16,
    Operation.LIST_COUPONS: 0.05,
    Operation.REDEEM_COUPON: 0.08,
    Operation.CANCEL_REDEMPTION: 0.04,
    Operation.BAD_REQUEST: 0.03,
}
"""The share of each operation among the requests; together 1."""

# A coupon leaves the choice after this many newer ones, so that the memory of a long run stays bounded.
_HELD_MAX = 20_000
_STORE, _COUPONS = Service.REWARD_STORE, Service.COUPON_API


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


@dataclass(frozen=True, slots=True)
class Request:
    """One request, ready to be written down and sent.

    Attributes:
        operation: what it is for.
        service: who is asked.
        member_id: who asks; their token goes with it unless `is_anonymous`.
        expected: the outcomes that are no failure.
        target: the reward, coupon code or redemption that it is about.
        key: its idempotency key.
        body: what is sent as JSON, unless it is bytes already.
        held: the coupon that it is about.
        is_repeatable: whether the sender repeats it when its outcome is unknown.
        is_anonymous: whether it goes without a token.
    """

    operation: Operation
    service: Service
    method: str
    path: str
    member_id: str
    expected: tuple[str, ...]
    target: str = ""
    key: str | None = None
    body: bytes | None = None
    content_type: str = "application/json"
    held: Held | None = None
    is_repeatable: bool = False
    is_anonymous: bool = False


@dataclass(slots=True)
class Members:
    """Decide what the members do next.

    Args:
        seed: who they are and what there is to redeem.
        random: decides; the same state gives the same sequence of decisions.
    """

    seed: Seed
    random: Random
    _held: list[Held] = field(default_factory=list)

    def next_request(self) -> Request:
        """Return the next request by the published mix.

        Where there is no coupon to look at, change or cancel yet, a reward is redeemed instead. The coupon of a request
        that changes it is busy from here on, until its sender says otherwise.
        """
        (operation,) = self.random.choices(list(MIX), weights=list(MIX.values()))
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
        return self.random.choice(bad_requests(member_id, other))

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
        return Request(Operation.BAD_REQUEST, service, method, path, member_id, (expected,), path, key=key, body=body)

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
