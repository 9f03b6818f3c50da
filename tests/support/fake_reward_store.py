"""The reward store without a database: the pure rules of `loyalty.reward` on dictionaries, and an outbox beside it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

from loyalty.errors import CouponUsedError, MemberNotFoundError, RedemptionNotFoundError, RewardNotFoundError
from loyalty.identifier import new_coupon_code, new_id
from loyalty.reward import (
    Member,
    Redemption,
    RedemptionStatus,
    Reward,
    begin_cancel,
    finish_cancel,
    redeem,
    refuse_cancel,
)
from runtime.errors import IdempotencyKeyReusedError
from runtime.stored_answer import StoredAnswer
from services.reward_store.outbox import Backlog, Claim, Headers, OutboxRow
from services.reward_store.representation import event_payload, redemption_body
from services.reward_store.store import Order

TOPIC = "coupon-events"


@dataclass(slots=True)
class _Waiting:
    row: OutboxRow
    version: int
    created_at: datetime
    claimed_until: datetime | None = None
    published_at: datetime | None = None


class FakeOutbox:
    """An `Outbox` of one loop: every call is done before it would wait, so calls never overlap."""

    def __init__(self, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self.clock = clock
        self.waiting: list[_Waiting] = []
        self.released: list[UUID] = []

    def put(self, row: OutboxRow, version: int = 1) -> None:
        """Let an event wait, after all that wait already."""
        self.waiting.append(_Waiting(row, version, self.clock()))

    async def claim(self, limit: int, lease: timedelta) -> Claim:
        """See `Outbox`."""
        now = self.clock()
        free = [w for w in self.waiting if w.published_at is None and not (w.claimed_until and w.claimed_until >= now)]
        due = [w for w in free if not self._has_earlier(w)][:limit]
        for waiting in due:
            waiting.claimed_until = now + lease
        return Claim(tuple(w.row for w in due), now + lease if due else None)

    def _has_earlier(self, waiting: _Waiting) -> bool:
        key, version = waiting.row.key, waiting.version
        return any(w.row.key == key and w.version < version and w.published_at is None for w in self.waiting)

    async def settle(self, ids: Sequence[UUID]) -> None:
        """See `Outbox`."""
        for waiting in self.waiting:
            if waiting.row.id in ids and waiting.published_at is None:
                waiting.published_at, waiting.claimed_until = self.clock(), None

    async def release(self, claim: Claim, ids: Sequence[UUID]) -> None:
        """See `Outbox`."""
        for waiting in self.waiting:
            if waiting.row.id in ids and waiting.claimed_until == claim.until:
                waiting.claimed_until = None
                self.released.append(waiting.row.id)

    async def put_off(self, claim: Claim, ids: Sequence[UUID], least: timedelta, most: timedelta) -> None:
        """See `Outbox`."""
        now = self.clock()
        for waiting in self.waiting:
            if waiting.row.id in ids and waiting.claimed_until == claim.until:
                waiting.claimed_until = now + min(max(now - waiting.created_at, least), most)

    async def backlog(self) -> Backlog:
        """See `Outbox`."""
        return Backlog(sum(w.published_at is None for w in self.waiting), 0.0)

    async def delete_published(self, older_than: timedelta, limit: int) -> int:
        """Remove rows as the real one does."""
        old = [w for w in self.waiting if w.published_at and w.published_at < self.clock() - older_than][:limit]
        self.waiting = [w for w in self.waiting if w not in old]
        return len(old)


class FakeRewardStore:
    """A reward store of one loop: every call is done before it would wait, so calls never overlap."""

    def __init__(self, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self.clock = clock
        self.outbox = FakeOutbox(clock)
        self.by_reward: dict[str, Reward] = {}
        self.by_member: dict[str, Member] = {}
        self.redemptions: dict[UUID, Redemption] = {}
        self.cancelling_since: dict[UUID, datetime] = {}
        self.claimed_until: dict[UUID, datetime] = {}
        self.answers: dict[tuple[str, str, str], tuple[bytes, StoredAnswer, datetime]] = {}

    async def rewards(self, limit: int, after: str | None) -> list[Reward]:
        """See `PostgresRewardStore`."""
        return [self.by_reward[name] for name in sorted(self.by_reward) if name > (after or "")][:limit]

    async def reward(self, reward_id: str) -> Reward:
        """See `PostgresRewardStore`."""
        if reward_id not in self.by_reward:
            raise RewardNotFoundError
        return self.by_reward[reward_id]

    async def member(self, member_id: str) -> Member:
        """See `PostgresRewardStore`."""
        if member_id not in self.by_member:
            raise MemberNotFoundError
        return self.by_member[member_id]

    async def redeem(self, order: Order) -> StoredAnswer:
        """See `PostgresRewardStore`."""
        place = (order.key.subject, order.key.route, order.key.key)
        if place in self.answers:
            body_hash, answer, _ = self.answers[place]
            if body_hash != order.key.body_hash:
                raise IdempotencyKeyReusedError
            return answer
        reward, member = await self.reward(order.reward_id), await self.member(order.member_id)
        member, reward, redemption = redeem(
            member, reward, self.clock(), redemption_id=new_id(), coupon_code=new_coupon_code()
        )
        self._keep(member, reward, redemption, order.headers)
        answer = StoredAnswer(201, redemption_body(redemption))
        self.answers[place] = (order.key.body_hash, answer, self.clock())
        return answer

    async def begin_cancel(self, redemption_id: UUID, member_id: str, lease: timedelta) -> Redemption:
        """See `PostgresRewardStore`."""
        redemption = self.redemptions.get(redemption_id)
        if redemption is None or redemption.member_id != member_id:
            raise RedemptionNotFoundError
        begun = begin_cancel(redemption)
        if begun is not redemption:
            self.redemptions[redemption_id] = begun
            self.cancelling_since[redemption_id] = self.clock()
            self.claimed_until[redemption_id] = self.clock() + lease
        return begun

    async def finish_cancel(self, redemption_id: UUID, headers: Headers) -> Redemption:
        """See `PostgresRewardStore`."""
        redemption = self.redemptions.get(redemption_id)
        if redemption is None:
            raise RedemptionNotFoundError
        if redemption.status is RedemptionStatus.ISSUED:
            raise CouponUsedError
        if redemption.status is RedemptionStatus.CANCELLED:
            return redemption
        redemption, member, reward = finish_cancel(
            redemption, self.by_member[redemption.member_id], self.by_reward[redemption.reward_id], self.clock()
        )
        self._keep(member, reward, redemption, headers)
        return redemption

    async def refuse_cancel(self, redemption_id: UUID) -> None:
        """See `PostgresRewardStore`."""
        self.redemptions[redemption_id] = refuse_cancel(self.redemptions[redemption_id])

    async def put_off_cancel(self, redemption_id: UUID, least: timedelta, most: timedelta) -> None:
        """See `PostgresRewardStore`."""
        now = self.clock()
        self.claimed_until[redemption_id] = now + min(max(now - self.cancelling_since[redemption_id], least), most)

    async def cancelling(self) -> Backlog:
        """See `PostgresRewardStore`."""
        now = self.clock()
        ages = [
            (now - self.cancelling_since[key]).total_seconds()
            for key, redemption in self.redemptions.items()
            if redemption.status is RedemptionStatus.CANCELLING
        ]
        return Backlog(len(ages), max(ages, default=0.0))

    async def claim_cancellations(self, limit: int, lease: timedelta) -> list[Redemption]:
        """See `PostgresRewardStore`."""
        now = self.clock()
        due = [
            redemption
            for redemption in self.redemptions.values()
            if redemption.status is RedemptionStatus.CANCELLING and self.claimed_until[redemption.redemption_id] < now
        ][:limit]
        self.claimed_until.update({redemption.redemption_id: now + lease for redemption in due})
        return due

    async def delete_old_keys(self, older_than: timedelta, limit: int) -> int:
        """See `PostgresRewardStore`."""
        old = [place for place, (_, _, at) in self.answers.items() if at < self.clock() - older_than][:limit]
        for place in old:
            del self.answers[place]
        return len(old)

    def _keep(self, member: Member, reward: Reward, redemption: Redemption, headers: Headers) -> None:
        self.by_member[member.member_id] = member
        self.by_reward[reward.reward_id] = reward
        self.redemptions[redemption.redemption_id] = redemption
        event_id = new_id()
        payload = event_payload(redemption, event_id)
        row = OutboxRow(event_id, TOPIC, redemption.coupon_code, payload, headers)
        self.outbox.put(row, redemption.coupon().version)
