"""Keep rewards, members, redemptions and the outbox in Postgres: the only file of this service with SQL.

Time is the database's everywhere: `now()` of the transaction.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final
from uuid import UUID

import orjson

from loyalty.coupon import FIRST_VERSION
from loyalty.errors import (
    CouponUsedError,
    MemberNotFoundError,
    RedemptionNotFoundError,
    RewardNotFoundError,
)
from loyalty.identifier import new_coupon_code, new_id
from loyalty.reward import CANCELLED_VERSION, Member, Redemption, RedemptionStatus, Reward, begin_cancel, new_redemption
from runtime.postgres import Connection, PostgresPool
from runtime.stored_answer import IdempotencyKey, StoredAnswer, claim_key, delete_old_keys, store_answer
from services.reward_store.outbox import Backlog, Claim, Headers, OutboxRow
from services.reward_store.representation import event_payload, redemption_body
from services.reward_store.row import redemption_of, reward_of, taken_of

_REWARD_COLUMNS: Final = "reward_id, title, points_cost, stock, value_cents, currency, coupon_days"
_REDEMPTION_COLUMNS: Final = (
    "redemption_id, member_id, reward_id, coupon_code, points_spent, status, value_cents, currency, created_at, "
    "expires_at, cancelled_at"
)

_REWARDS: Final = f"select {_REWARD_COLUMNS} from rewards where reward_id > $1 order by reward_id limit $2"  # noqa: S608 - constants
_REWARD: Final = f"select {_REWARD_COLUMNS} from rewards where reward_id = $1"  # noqa: S608 - constants
_MEMBER: Final = "select member_id, points from members where member_id = $1"

# Everyone takes the reward's row before the member's (a cancellation too), so no two wait for each other in a circle.
_TAKE: Final = f"""
with reward as (
    update rewards set stock = stock - 1 where reward_id = $1 and stock > 0 returning {_REWARD_COLUMNS}
), member as (
    update members set points = points - reward.points_cost from reward
    where members.member_id = $2 and members.points >= reward.points_cost
    returning members.points
)
select now() as taken_at, reward.*, member.points,
    exists (select from rewards where reward_id = $1) as is_reward,
    exists (select from members where member_id = $2) as is_member
from (values (1)) as once left join reward on true left join member on true
"""  # noqa: S608 - constants

_RECORD: Final = """
with redemption as (
    insert into redemptions (redemption_id, member_id, reward_id, coupon_code, points_spent, value_cents, currency,
        created_at, expires_at)
    values ($1, $2, $3, $4, $5, $6, $7, $8, $9)
)
insert into outbox (id, topic, key, version, payload, headers, created_at) values ($10, $11, $4, $12, $13, $14, $8)
"""

_LOCK_REDEMPTION: Final = f"""
select {_REDEMPTION_COLUMNS} from redemptions where redemption_id = $1 and member_id = $2 for update
"""  # noqa: S608 - constants
_BEGIN_CANCEL: Final = """
update redemptions set status = 'cancelling', cancelling_since = now(), cancel_claimed_until = now() + $2::interval
where redemption_id = $1
"""
_REFUSE_CANCEL: Final = """
update redemptions set status = 'issued', cancelling_since = null, cancel_claimed_until = null
where redemption_id = $1 and status = 'cancelling'
"""
# To wait as long as one has waited already is to wait twice as long each time.
_PUT_OFF_CANCEL: Final = """
update redemptions
set cancel_claimed_until = now() + least(greatest(now() - cancelling_since, $2::interval), $3::interval)
where redemption_id = $1 and status = 'cancelling'
"""
_CANCELLING: Final = """
select count(*) as rows, coalesce(extract(epoch from now() - min(cancelling_since)), 0)::float8 as oldest_seconds
from redemptions where status = 'cancelling'
"""
# The sums are given back only by the statement that takes the row out of 'cancelling', so only once.
_FINISH_CANCEL: Final = """
with cancelled as (
    update redemptions
    set status = 'cancelled', cancelled_at = now(), cancelling_since = null, cancel_claimed_until = null
    where redemption_id = $1 and status = 'cancelling'
    returning *
), stocked as (
    update rewards set stock = stock + 1 from cancelled where rewards.reward_id = cancelled.reward_id
    returning cancelled.member_id, cancelled.points_spent
), credited as (
    update members set points = points + stocked.points_spent from stocked where members.member_id = stocked.member_id
)
select * from cancelled
"""
_REDEMPTION: Final = f"select {_REDEMPTION_COLUMNS} from redemptions where redemption_id = $1"  # noqa: S608 - constants
_PUT: Final = """
insert into outbox (id, topic, key, version, payload, headers, created_at) values ($1, $2, $3, $4, $5, $6, $7)
"""
_CLAIM_CANCELLATIONS: Final = f"""
with due as (
    select redemption_id from redemptions
    where status = 'cancelling' and cancel_claimed_until < now()
    order by cancel_claimed_until limit $1 for update skip locked
)
update redemptions set cancel_claimed_until = now() + $2::interval from due
where redemptions.redemption_id = due.redemption_id
returning {_REDEMPTION_COLUMNS.replace("redemption_id", "redemptions.redemption_id", 1)}
"""  # noqa: S608 - constants


@dataclass(frozen=True, slots=True)
class Order:
    """What a member wants, under which idempotency key, and what is to travel with the event (`traceparent`)."""

    member_id: str
    reward_id: str
    key: IdempotencyKey
    headers: Headers


def _nowhere(_point: str) -> None:
    """Stand where a test's crash point would be."""


class PostgresRewardStore:
    """Rewards, members and redemptions in Postgres.

    Every change is one transaction that is there whole or not at all; a cancelled call rolls back what it had begun,
    unless its commit was on the way already (then the idempotency key gives the answer to whoever asks again).

    Args:
        pool: connections to the `rewards` database.
        topic: where the events of redemptions go.
        reach: called with the name of each crash point that is passed.
    """

    def __init__(self, pool: PostgresPool, topic: str, reach: Callable[[str], None] = _nowhere) -> None:
        self._pool = pool
        self._topic = topic
        self._reach = reach

    async def rewards(self, limit: int, after: str | None) -> list[Reward]:
        """Return at most `limit` rewards in the order of their ids, from behind `after` on."""
        return [reward_of(row) for row in await self._pool.fetch(_REWARDS, after or "", limit)]

    async def reward(self, reward_id: str) -> Reward:
        """Return one reward.

        Raises:
            RewardNotFoundError: There is none of this id.
        """
        row = await self._pool.fetch_row(_REWARD, reward_id)
        if row is None:
            raise RewardNotFoundError
        return reward_of(row)

    async def member(self, member_id: str) -> Member:
        """Return a member and their points.

        Raises:
            MemberNotFoundError: There is none of this id.
        """
        row = await self._pool.fetch_row(_MEMBER, member_id)
        if row is None:
            raise MemberNotFoundError
        return Member(row["member_id"], row["points"])

    async def redeem(self, order: Order) -> StoredAnswer:
        """Take the points and one of the stock, record the redemption, its event and its answer, in one transaction.

        A key whose work is done already gives the stored answer and changes nothing.

        Raises:
            RequestInProgressError, IdempotencyKeyReusedError: As `claim_key` says.
            RewardNotFoundError, MemberNotFoundError, SoldOutError, InsufficientPointsError: Refused. Nothing is changed
                and nothing remembered: the same key may succeed later.
        """
        answer = await self._pool.transaction(self._redeem, order)
        self._reach("after-commit")
        return answer

    async def _redeem(self, connection: Connection, order: Order) -> StoredAnswer:
        self._reach("after-begin")
        stored = await claim_key(connection, order.key)
        if stored is not None:
            return stored
        self._reach("after-key")
        row = await connection.fetchrow(_TAKE, order.reward_id, order.member_id)
        reward, taken_at = taken_of(row)
        redemption = new_redemption(
            order.member_id, reward, taken_at, redemption_id=new_id(), coupon_code=new_coupon_code()
        )
        await self._record(connection, redemption, order.headers)
        answer = StoredAnswer(201, redemption_body(redemption))
        await store_answer(connection, order.key, answer)
        self._reach("after-insert")
        return answer

    async def _record(self, connection: Connection, redemption: Redemption, headers: Headers) -> None:
        event_id = new_id()
        await connection.execute(
            _RECORD,
            redemption.redemption_id,
            redemption.member_id,
            redemption.reward_id,
            redemption.coupon_code,
            redemption.points_spent,
            redemption.value.cents,
            redemption.value.currency,
            redemption.created_at,
            redemption.expires_at,
            event_id,
            self._topic,
            FIRST_VERSION,
            event_payload(redemption, event_id),
            _json(headers),
        )

    async def begin_cancel(self, redemption_id: UUID, member_id: str, lease: timedelta) -> Redemption:
        """Commit that the redemption is being cancelled, and keep the finisher away from it for the time of the lease.

        Raises:
            RedemptionNotFoundError: The member has no such redemption.
        """
        return await self._pool.transaction(self._begin_cancel, redemption_id, member_id, lease)

    @staticmethod
    async def _begin_cancel(
        connection: Connection, redemption_id: UUID, member_id: str, lease: timedelta
    ) -> Redemption:
        row = await connection.fetchrow(_LOCK_REDEMPTION, redemption_id, member_id)
        if row is None:
            raise RedemptionNotFoundError
        redemption = redemption_of(row)
        begun = begin_cancel(redemption)
        if begun is not redemption:
            await connection.execute(_BEGIN_CANCEL, redemption_id, lease)
        return begun

    async def finish_cancel(self, redemption_id: UUID, headers: Headers) -> Redemption:
        """Give points and stock back and record the event, once, however many try.

        Raises:
            CouponUsedError: Somebody else found meanwhile that the coupon is used.
            RedemptionNotFoundError: There is no such redemption.
        """
        return await self._pool.transaction(self._finish_cancel, redemption_id, headers)

    async def _finish_cancel(self, connection: Connection, redemption_id: UUID, headers: Headers) -> Redemption:
        row = await connection.fetchrow(_FINISH_CANCEL, redemption_id)
        if row is None:
            return await _finished_by_another(connection, redemption_id)
        redemption = redemption_of(row)
        event_id = new_id()
        await connection.execute(
            _PUT,
            event_id,
            self._topic,
            redemption.coupon_code,
            CANCELLED_VERSION,
            event_payload(redemption, event_id),
            _json(headers),
            redemption.cancelled_at,
        )
        self._reach("after-give-back")
        return redemption

    async def refuse_cancel(self, redemption_id: UUID) -> None:
        """Take a cancellation back because the coupon is used; one that is finished stays finished."""
        await self._pool.execute(_REFUSE_CANCEL, redemption_id)

    async def claim_cancellations(self, limit: int, lease: timedelta) -> list[Redemption]:
        """Take over at most `limit` cancellations that nobody works on any more, for the time of the lease."""
        return [redemption_of(row) for row in await self._pool.fetch(_CLAIM_CANCELLATIONS, limit, lease)]

    async def put_off_cancel(self, redemption_id: UUID, least: timedelta, most: timedelta) -> None:
        """Keep finishers away for as long as the cancellation has lasted, within these bounds."""
        await self._pool.execute(_PUT_OFF_CANCEL, redemption_id, least, most)

    async def cancelling(self) -> Backlog:
        """Count the cancellations that are not finished."""
        return await _backlog(self._pool, _CANCELLING)

    async def delete_old_keys(self, older_than: timedelta, limit: int) -> int:
        """Remove at most `limit` idempotency keys above an age and return how many went."""
        return await self._pool.transaction(delete_old_keys, older_than, limit)


async def _finished_by_another(connection: Connection, redemption_id: UUID) -> Redemption:
    row = await connection.fetchrow(_REDEMPTION, redemption_id)
    if row is None:
        raise RedemptionNotFoundError
    redemption = redemption_of(row)
    if redemption.status is not RedemptionStatus.CANCELLED:
        raise CouponUsedError
    return redemption


async def _backlog(pool: PostgresPool, statement: str) -> Backlog:
    row = await pool.fetch_row(statement)
    return Backlog(row["rows"], row["oldest_seconds"]) if row is not None else Backlog(0, 0.0)


def _json(headers: Headers) -> str:
    return orjson.dumps(dict(headers)).decode()


_CLAIM: Final = """
with due as (
    select id from outbox
    where published_at is null
        and (claimed_until is null or claimed_until < now())
        and not exists (
            select from outbox as earlier
            where earlier.key = outbox.key and earlier.version < outbox.version and earlier.published_at is null
        )
    order by created_at, id limit $1 for update skip locked
)
update outbox set claimed_until = now() + $2::interval from due where outbox.id = due.id
returning outbox.id, topic, key, payload, headers, claimed_until
"""
_SETTLE: Final = """
update outbox set published_at = now(), claimed_until = null where id = any($1::uuid[]) and published_at is null
"""
_RELEASE: Final = "update outbox set claimed_until = null where id = any($1::uuid[]) and claimed_until = $2"
_PUT_OFF: Final = """
update outbox set claimed_until = now() + least(greatest(now() - created_at, $3::interval), $4::interval)
where id = any($1::uuid[]) and claimed_until = $2
"""
_BACKLOG: Final = """
select count(*) as rows, coalesce(extract(epoch from now() - min(created_at)), 0)::float8 as oldest_seconds
from outbox where published_at is null
"""
_DELETE_PUBLISHED: Final = """
delete from outbox where id in (
    select id from outbox where published_at < now() - $1::interval order by published_at limit $2
    for update skip locked
)
"""


class PostgresOutbox:
    """The outbox in Postgres; see `Outbox`."""

    def __init__(self, pool: PostgresPool) -> None:
        self._pool = pool

    async def claim(self, limit: int, lease: timedelta) -> Claim:
        """See `Outbox`."""
        rows = await self._pool.fetch(_CLAIM, limit, lease)
        taken = (OutboxRow(r["id"], r["topic"], r["key"], r["payload"], orjson.loads(r["headers"])) for r in rows)
        return Claim(tuple(taken), rows[0]["claimed_until"] if rows else None)

    async def settle(self, ids: Sequence[UUID]) -> None:
        """See `Outbox`."""
        await self._pool.execute(_SETTLE, ids)

    async def release(self, claim: Claim, ids: Sequence[UUID]) -> None:
        """See `Outbox`."""
        await self._pool.execute(_RELEASE, ids, claim.until)

    async def put_off(self, claim: Claim, ids: Sequence[UUID], least: timedelta, most: timedelta) -> None:
        """See `Outbox`."""
        await self._pool.execute(_PUT_OFF, ids, claim.until, least, most)

    async def backlog(self) -> Backlog:
        """See `Outbox`."""
        return await _backlog(self._pool, _BACKLOG)

    async def delete_published(self, older_than: timedelta, limit: int) -> int:
        """Remove at most `limit` rows that were published longer ago than that, and return how many went."""
        tag = await self._pool.execute(_DELETE_PUBLISHED, older_than, limit)
        return int(tag.removeprefix("DELETE "))
