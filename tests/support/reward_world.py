"""The real reward store with an administrator's connection beside it."""

import asyncio
import time
from collections.abc import Sequence
from datetime import timedelta
from uuid import UUID

import asyncpg
import orjson

from loyalty.money import Money
from loyalty.reward import Member, Redemption, RedemptionStatus, Reward
from runtime.postgres import PostgresPool
from services.reward_store.outbox import OutboxRow
from services.reward_store.store import PostgresOutbox, PostgresRewardStore

TOPIC = "coupon-events"


class PostgresWorld:
    """A store on a pool, and what an administrator can do around it."""

    def __init__(self, pool: PostgresPool, administrator: asyncpg.Connection, topic: str = TOPIC) -> None:
        self.pool = pool
        self.administrator = administrator
        self.topic = topic
        self.store = PostgresRewardStore(pool, topic)
        self.outbox = PostgresOutbox(pool)

    async def put_reward(self, reward: Reward) -> None:
        """Let a reward be there."""
        await self.administrator.execute(
            "insert into rewards values ($1, $2, $3, $4, $5, $6, $7)",
            reward.reward_id,
            reward.title,
            reward.points_cost,
            reward.stock,
            reward.value.cents,
            reward.value.currency,
            reward.coupon_days,
        )

    async def put_member(self, member: Member) -> None:
        """Let a member be there, with these points."""
        await self.administrator.execute(
            "insert into members values ($1, $2) on conflict (member_id) do update set points = excluded.points",
            member.member_id,
            member.points,
        )

    async def redemptions(self) -> list[Redemption]:
        """Return all redemptions, oldest first."""
        rows = await self.administrator.fetch("select * from redemptions order by created_at, redemption_id")
        return [_redemption(row) for row in rows]

    async def events(self) -> Sequence[OutboxRow]:
        """Return all rows of the outbox, published ones too, oldest first."""
        rows = await self.administrator.fetch("select * from outbox order by created_at, id")
        return [
            OutboxRow(row["id"], row["topic"], row["key"], row["payload"], orjson.loads(row["headers"])) for row in rows
        ]

    async def wait_published(self, timeout_seconds: float = 20) -> None:
        """Wait until every event is marked as published."""
        give_up_at = time.monotonic() + timeout_seconds
        while (backlog := await self.outbox.backlog()).rows:
            assert time.monotonic() < give_up_at, f"{backlog.rows} events are not published"
            await asyncio.sleep(0.02)

    async def age_keys(self, by: timedelta) -> None:
        """Make every idempotency key older."""
        await self.administrator.execute("update idempotency_keys set created_at = created_at - $1::interval", by)

    async def age_leases(self, by: timedelta) -> None:
        """Let the leases of all cancellations and outbox rows end earlier."""
        await self.administrator.execute(
            "update redemptions set cancelling_since = cancelling_since - $1::interval, "
            "cancel_claimed_until = cancel_claimed_until - $1::interval",
            by,
        )
        await self.administrator.execute("update outbox set claimed_until = claimed_until - $1::interval", by)


def _redemption(row: asyncpg.Record) -> Redemption:
    return Redemption(
        UUID(int=row["redemption_id"].int),
        row["member_id"],
        row["reward_id"],
        row["coupon_code"],
        row["points_spent"],
        Money(row["value_cents"], row["currency"]),
        row["created_at"],
        row["expires_at"],
        RedemptionStatus(row["status"]),
        row["cancelled_at"],
    )
