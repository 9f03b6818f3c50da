"""A small world that is in order: a journal and the holdings that belong to it, for the audit's tests to disturb."""

import uuid
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from sandbox.holdings import CouponRow, Holdings, KeyRow, RedemptionRow
from sandbox.journal import Acknowledgement, Attempt, Operation, Record, Seed, SeededReward

MEMBERS = ("m-1", "m-2", "m-3")
REWARD = "rw-coffee"
OFFER = SeededReward(points_cost=50, stock=10, value_cents=300, currency="EUR", coupon_days=30)
POINTS = 1_000
EXPECTED = {
    Operation.REDEEM_REWARD: ("201", "409 sold-out"),
    Operation.REDEEM_COUPON: ("200", "404 coupon-not-found"),
    Operation.CANCEL_REDEMPTION: ("200", "409 coupon-used"),
    Operation.SEE_POINTS: ("200",),
}


class World:
    """Requests with their answers, applied to databases as the services would."""

    def __init__(self) -> None:
        self.attempts: dict[int, Attempt] = {}
        self.acknowledgements: dict[int, Acknowledgement] = {}
        self.failures: dict[int, str] = {}
        self.points = dict.fromkeys(MEMBERS, POINTS)
        self.stock = {REWARD: OFFER.stock}
        self.redemptions: dict[str, RedemptionRow] = {}
        self.coupons: dict[str, CouponRow] = {}
        self.keys: list[KeyRow] = []
        self.unpublished = 0
        self.dead_letters = 0

    def record(self) -> Record:
        """Return what the clients wrote down."""
        seed = Seed(points=dict.fromkeys(MEMBERS, POINTS), rewards={REWARD: OFFER})
        return Record(seed, self.attempts, self.acknowledgements, self.failures)

    def holdings(self) -> Holdings:
        """Return what the databases hold."""
        return Holdings(
            points=self.points,
            stock=self.stock,
            redemptions=list(self.redemptions.values()),
            keys=self.keys,
            unpublished=self.unpublished,
            coupons=list(self.coupons.values()),
            dead_letters=self.dead_letters,
        )

    def ask(self, operation: Operation, member_id: str, target: str = "", key: str | None = None) -> Attempt:
        """Write down a request."""
        number = len(self.attempts) + 1
        attempt = Attempt(number, operation, member_id, target, key, EXPECTED[operation], None, 1_000.0 + number)
        self.attempts[number] = attempt
        return attempt

    def answer(
        self, attempt: Attempt, status: int, body: dict[str, Any] | None = None, code: str | None = None
    ) -> None:  # Any: JSON
        """Write down an answer."""
        self.acknowledgements[attempt.number] = Acknowledgement(attempt.number, status, code, body or {}, 0.01)

    def redeem_reward(self, member_id: str, *, is_answered: bool = True) -> str:
        """Redeem the reward, as the services do; return the redemption's id."""
        attempt = self.ask(Operation.REDEEM_REWARD, member_id, REWARD, key=uuid.uuid4().hex)
        redemption_id = str(uuid.uuid4())
        code = f"{len(self.redemptions):016d}"
        created_at = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=len(self.redemptions))
        row = RedemptionRow(
            redemption_id=redemption_id,
            member_id=member_id,
            reward_id=REWARD,
            coupon_code=code,
            points_spent=OFFER.points_cost,
            status="issued",
            value_cents=OFFER.value_cents,
            currency=OFFER.currency,
            created_at=created_at,
            expires_at=created_at + timedelta(days=OFFER.coupon_days),
        )
        self.redemptions[redemption_id] = row
        assert attempt.key is not None
        self.keys.append(KeyRow(member_id, attempt.key, redemption_id))
        self.coupons[redemption_id] = CouponRow(
            code=code,
            member_id=member_id,
            reward_id=REWARD,
            redemption_id=redemption_id,
            value_cents=OFFER.value_cents,
            currency=OFFER.currency,
            issued_at=row.created_at,
            expires_at=row.expires_at,
            status="issued",
        )
        self.points[member_id] -= OFFER.points_cost
        self.stock[REWARD] -= 1
        if is_answered:
            self.answer(attempt, 201, _told(row))
        return redemption_id

    def redeem_coupon(self, redemption_id: str, *, is_answered: bool = True) -> None:
        """Spend the coupon of a redemption."""
        coupon = self.coupons[redemption_id]
        attempt = self.ask(Operation.REDEEM_COUPON, coupon.member_id, coupon.code)
        self.coupons[redemption_id] = replace(coupon, status="redeemed")
        if is_answered:
            self.answer(attempt, 200)

    def cancel(self, redemption_id: str, *, is_answered: bool = True) -> None:
        """Cancel a redemption: points and stock go back."""
        row = self.redemptions[redemption_id]
        attempt = self.ask(Operation.CANCEL_REDEMPTION, row.member_id, redemption_id)
        self.redemptions[redemption_id] = replace(row, status="cancelled")
        self.coupons[redemption_id] = replace(self.coupons[redemption_id], status="cancelled")
        self.points[row.member_id] += row.points_spent
        self.stock[row.reward_id] += 1
        if is_answered:
            self.answer(attempt, 200)


def _told(row: RedemptionRow) -> dict[str, Any]:  # Any: JSON
    return {
        "redemption_id": row.redemption_id,
        "member_id": row.member_id,
        "reward_id": row.reward_id,
        "coupon_code": row.coupon_code,
        "points_spent": row.points_spent,
        "status": row.status,
        "created_at": row.created_at.isoformat(),
        "expires_at": row.expires_at.isoformat(),
    }
