"""A shop for tests of faults: reward_store's database with members and rewards, and what must hold of it in the end."""

import asyncio
import contextlib
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import asyncpg

from deploy.migrate import migrate
from sandbox.servers import KafkaServer, PostgresServer
from tests.support.databases import migrate_settings
from tests.support.eventually import eventually
from tests.support.judgement import Judgement, Rule, judge, judge_progress
from tests.support.ledger import Ledger
from tests.support.reward_store_process import Place
from tests.support.servers import create_topic

MEMBERS: Final = tuple(f"m-{number}" for number in range(1, 21))
REWARDS: Final = ("rw-coffee", "rw-tea", "rw-cake", "rw-juice")
_POINTS: Final = 1_000_000
_STOCK: Final = 1_000_000
_COST: Final = 10
_SETTLE_SECONDS: Final = 60.0

_REDEMPTIONS: Final = """
select redemptions.redemption_id::text, member_id, reward_id, subject || '/' || key as unit
from redemptions left join idempotency_keys
    on convert_from(response, 'UTF8')::json ->> 'redemption_id' = redemptions.redemption_id::text
"""
_BACKENDS: Final = """
select pid, state, backend_start,
    exists (select from pg_locks where pg_locks.pid = activity.pid and locktype = 'advisory') as has_key
from pg_stat_activity as activity where datname = $1 and usename = 'reward_store'
"""


@dataclass(frozen=True, slots=True)
class Shop:
    """One database of reward_store: `place` is where its service runs."""

    place: Place

    @property
    def url(self) -> str:
        """The database, for the superuser; not through any proxy."""
        return self.place.postgres.url(self.place.database)

    async def fetch(self, sql: str, *arguments: object) -> Sequence[asyncpg.Record]:
        """Ask the database one thing, over a connection of its own, since servers come and go."""
        connection = await asyncpg.connect(self.url, timeout=10, command_timeout=30)
        try:
            rows: Sequence[asyncpg.Record] = await connection.fetch(sql, *arguments)
            return rows
        finally:
            await connection.close(timeout=10)

    async def unpublished(self) -> int:
        """Return how many events wait for the relay."""
        [row] = await self.fetch("select count(*) as rows from outbox where published_at is null")
        return int(row["rows"])

    async def judge(self, ledger: Ledger, told: Mapping[str, str]) -> Judgement:
        """Wait, bounded, until everything is published, and hold what is stored against the ledger (L1 to L5).

        Args:
            ledger: what was attempted and acknowledged, by member and key.
            told: the redemption that each acknowledged order was answered with.
        """
        with contextlib.suppress(TimeoutError):
            await eventually(self._is_published, seconds=_SETTLE_SECONDS, pause_seconds=0.1)
        rows = await self.fetch(_REDEMPTIONS)
        units = [(row["unit"] or f"redemption {row['redemption_id']}", row) for row in rows]
        stored = [(unit, [row["member_id"], row["reward_id"]]) for unit, row in units]
        promised = {unit: row["redemption_id"] for unit, row in units}
        other = [f"{unit} is not what its member was told" for unit, one in told.items() if promised.get(unit) != one]
        progress = judge_progress({"events to publish": 0}, {"events to publish": await self.unpublished()})
        books = judge(Rule.RIGHT_CONTENT, [*other, *await self._wrong_sums(rows)])
        return ledger.judge(stored) | books | progress

    async def judge_backends(self, *, at_most: int) -> Judgement:
        """Wait, bounded, until the service holds no more connections than its pool may, none at work (L6)."""
        with contextlib.suppress(TimeoutError):
            await eventually(lambda: self._is_quiet(at_most), seconds=20, pause_seconds=0.1)
        return judge(Rule.NO_LEAK, await self._busy_backends(at_most))

    async def _is_published(self) -> bool:
        return await self.unpublished() == 0

    async def _is_quiet(self, at_most: int) -> bool:
        return not await self._busy_backends(at_most)

    async def _busy_backends(self, at_most: int) -> list[str]:
        rows = await self.fetch(_BACKENDS, self.place.database)
        busy = [f"backend {row['pid']} is {row['state']}" for row in rows if row["state"] != "idle"]
        holders = [f"backend {row['pid']} holds an order's key" for row in rows if row["has_key"]]
        return [*busy, *holders, *([f"{len(rows)} backends instead of {at_most}"] if len(rows) > at_most else [])]

    async def _wrong_sums(self, rows: Sequence[asyncpg.Record]) -> list[str]:
        """Name each member and reward whose points or stock are not what is left after the redemptions."""
        points = {row["member_id"]: row["points"] for row in await self.fetch("select * from members")}
        stock = {row["reward_id"]: row["stock"] for row in await self.fetch("select * from rewards")}
        bought, sold = Counter(row["member_id"] for row in rows), Counter(row["reward_id"] for row in rows)
        return [
            *(f"{one} has {points[one]} points" for one in MEMBERS if points[one] != _POINTS - _COST * bought[one]),
            *(f"there are {stock[one]} of {one}" for one in REWARDS if stock[one] != _STOCK - sold[one]),
        ]


@contextlib.asynccontextmanager
async def open_shop(postgres: PostgresServer, kafka: KafkaServer, directory: Path) -> AsyncIterator[Shop]:
    """Make a database and a topic under fresh names, with members and rewards; drop the database on leaving."""
    own = uuid.uuid4().hex[:12]
    settings = migrate_settings(postgres, rewards=f"rewards_{own}", coupons=f"coupons_{own}")
    await migrate(settings)
    shop = Shop(Place(postgres, kafka, settings.rewards_database, await create_topic(kafka), directory))
    await shop.fetch("insert into members select unnest($1::text[]), $2", MEMBERS, _POINTS)
    await shop.fetch(
        "insert into rewards select unnest($1::text[]), 'A treat', $2, $3, 300, 'EUR', 30", REWARDS, _COST, _STOCK
    )
    try:
        yield shop
    finally:
        await asyncio.shield(postgres.drop_database(settings.rewards_database))
        await asyncio.shield(postgres.drop_database(settings.coupons_database))
