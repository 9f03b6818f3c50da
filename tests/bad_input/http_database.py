"""The databases behind the APIs: what is planted in them, what they hold, and whether anything was ever written."""

import hashlib
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple, Protocol

import asyncpg
import bson
from pymongo import AsyncMongoClient

from sandbox.servers import KafkaServer, MongoServer, PostgresServer
from tests.bad_input.http_routes import CAMPAIGN, COUPON, REDEMPTION, REWARD, USED_KEY
from tests.support.eventually import eventually

_KEY: Final = (
    "insert into idempotency_keys (subject, route, key, body_hash, status, response) values ($1, $2, $3, '', 201, '{}')"
)
_REDEMPTION: Final = """
insert into redemptions (
    redemption_id, member_id, reward_id, coupon_code, points_spent, value_cents, currency, created_at, expires_at
) values ($1, 'm-1', $2, $3, 100, 500, 'EUR', '2026-01-01Z', '2999-01-01Z')
"""
_COUPON: Final = """
insert into coupons (
    code, member_id, reward_id, redemption_id, value_cents, currency, issued_at, expires_at, status, version, source
) values ($1, 'm-1', $2, $3, 500, 'EUR', '2026-01-01Z', '2999-01-01Z', 'issued', 1, 'event')
"""
Statements = Sequence[tuple[str, ...]]
"""Each statement with its arguments."""
REWARD_STORE_ROWS: Final[Statements] = (
    ("insert into members values ('m-1', 1000), ('m-2', 1000)",),
    ("insert into rewards values ($1, 'a reward', 100, 10, 500, 'EUR', 30)", REWARD),
    (_REDEMPTION, REDEMPTION, REWARD, COUPON),
    (_KEY, "m-1", "POST /v1/redemptions", USED_KEY),
)
COUPON_API_ROWS: Final[Statements] = (
    (_COUPON, COUPON, REWARD, REDEMPTION),
    (_KEY, "ops-1", "POST /v1/coupons", USED_KEY),
)
_BEGAN: Final = datetime(2026, 1, 1, tzinfo=UTC)
_CAMPAIGN: Final[dict[str, Any]] = {
    "_id": CAMPAIGN,
    "name": "a campaign",
    "description": "",
    "status": "active",
    "starts_at": _BEGAN,
    "ends_at": _BEGAN.replace(year=2999),
    "created_at": _BEGAN,
    "updated_at": _BEGAN,
    "version": 7,
}
_USED: Final[dict[str, Any]] = {
    "_id": {"subject": "ops-1", "route": "POST /v1/campaigns", "key": USED_KEY},
    "body_hash": b"",
    "status": 201,
    "response": b"{}",
    "expires_at": _BEGAN.replace(year=2999),
}
_STOP_SECONDS: Final = 20.0


class Servers(NamedTuple):
    """Where all databases and the broker are."""

    postgres: PostgresServer
    kafka: KafkaServer
    mongo: MongoServer


class Database(Protocol):
    """A service's database, whatever kind it is."""

    async def contents(self) -> Mapping[str, str]:
        """Return a digest of each table or collection, by its name."""

    async def written(self) -> int:
        """Return how much was ever written, what was undone included; sessions tell what they did when they end."""

    async def wait_unused(self) -> None:
        """Wait until all sessions of services have ended."""


class Tables:
    """A database of PostgreSQL."""

    def __init__(self, connection: asyncpg.Connection) -> None:
        self._connection = connection

    async def contents(self) -> Mapping[str, str]:
        """See `Database`."""
        tables = await self._connection.fetch(
            "select tablename as name from pg_tables where schemaname = 'public' order by name"
        )
        digest = "(select md5(string_agg(t::text, e'\\n' order by t::text)) from {0} t) as {0}"
        row = await self._connection.fetchrow("select " + ", ".join(digest.format(table["name"]) for table in tables))
        assert row is not None
        return dict(row.items())

    async def written(self) -> int:
        """See `Database`: rows that were inserted, changed or removed."""
        await self._connection.execute("select pg_stat_force_next_flush()")
        sql = "select sum(n_tup_ins + n_tup_upd + n_tup_del)::bigint from pg_stat_user_tables"
        count: int = await self._connection.fetchval(sql)
        return count

    async def wait_unused(self) -> None:
        """See `Database`."""

        async def have_ended() -> bool:
            sql = "select count(*) from pg_stat_activity where datname = current_database() and usename <> current_user"
            return bool(await self._connection.fetchval(sql) == 0)

        await eventually(have_ended, seconds=_STOP_SECONDS)


class Documents:
    """A database of MongoDB."""

    def __init__(self, client: AsyncMongoClient[dict[str, Any]], name: str) -> None:
        self._client = client
        self._name = name

    async def contents(self) -> Mapping[str, str]:
        """See `Database`."""
        database = self._client[self._name]
        return {
            name: hashlib.sha256(
                b"".join([bson.encode(each) async for each in database[name].find(sort=[("_id", 1)])])
            ).hexdigest()
            for name in await database.list_collection_names()
        }

    async def written(self) -> int:
        """See `Database`: operations that inserted or changed, or tried to; the server itself removes what is old."""
        totals = (await self._client.admin.command("top"))["totals"]
        ours = [each for name, each in totals.items() if name.startswith(f"{self._name}.")]
        return sum(each[kind]["count"] for each in ours for kind in ("insert", "update"))

    async def wait_unused(self) -> None:
        """See `Database`: an operation is counted when it ends, so there is nothing to wait for."""


@asynccontextmanager
async def open_tables(url: str, rows: Statements) -> AsyncIterator[Database]:
    """Open a database of PostgreSQL and plant rows in it."""
    connection = await asyncpg.connect(url, timeout=10)
    try:
        for statement, *arguments in rows:
            await connection.execute(statement, *arguments)
        yield Tables(connection)
    finally:
        await connection.close()


@asynccontextmanager
async def open_documents(server: MongoServer, name: str) -> AsyncIterator[Database]:
    """Open a database of MongoDB and plant a campaign and a used key in it."""
    async with server.connect() as client:
        await client[name]["campaigns"].insert_one(dict(_CAMPAIGN))
        await client[name]["idempotency_keys"].insert_one(dict(_USED))
        yield Documents(client, name)
