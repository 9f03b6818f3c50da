"""What the databases hold, read for the audit with statements of its own: it shares none with the services."""

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path

import asyncpg

from sandbox.coupon_file import CouponFile
from sandbox.document_holdings import DocumentHoldings, read_documents
from sandbox.links import GUEST
from sandbox.load_holdings import LoadHoldings, read_loads
from sandbox.world import Platform

_TIMEOUT_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class RedemptionRow:
    """A row of `redemptions`; ids as text."""

    redemption_id: str
    member_id: str
    reward_id: str
    coupon_code: str
    points_spent: int
    status: str
    value_cents: int
    currency: str
    created_at: datetime
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class KeyRow:
    """An idempotency key under which a redemption was answered."""

    member_id: str
    key: str
    redemption_id: str


@dataclass(frozen=True, slots=True)
class CouponRow:
    """A row of `coupons`; ids as text."""

    code: str
    member_id: str
    reward_id: str
    redemption_id: str | None
    value_cents: int
    currency: str
    issued_at: datetime
    expires_at: datetime
    status: str


@dataclass(frozen=True, slots=True)
class Holdings:
    """Everything the audit looks at, of both databases: as if the guest had never been there.

    Attributes:
        coupons: those that no file brought.
        loads: what files brought.
        documents: what MongoDB and Salesforce hold; None where the platform has neither.
    """

    points: dict[str, int]
    stock: dict[str, int]
    redemptions: list[RedemptionRow]
    keys: list[KeyRow]
    unpublished: int
    coupons: list[CouponRow]
    dead_letters: int
    loads: LoadHoldings = field(default_factory=LoadHoldings)
    documents: DocumentHoldings | None = None


_REDEMPTIONS = """
select redemption_id::text, member_id, reward_id, coupon_code, points_spent, status, value_cents, currency,
       created_at, expires_at
from redemptions where member_id <> $1 order by created_at, redemption_id
"""
_POINTS = "select member_id, points from members where member_id <> $1"
_STOCK = """
select reward_id, stock + (
    select count(*) from redemptions
    where member_id = $1 and redemptions.reward_id = rewards.reward_id and status <> 'cancelled'
) as stock
from rewards
"""
_KEYS = "select subject, key, response from idempotency_keys where status = 201 and subject <> $1"
_COUPONS = """
select code, member_id, reward_id, redemption_id::text, value_cents, currency, issued_at, expires_at, status
from coupons where member_id <> $1 and not starts_with(source, 'etl:') order by issued_at, code
"""


async def read_holdings(
    rewards_url: str, coupons_url: str, files: Sequence[CouponFile] = (), rejects: Path | None = None
) -> Holdings:
    """Read both databases of PostgreSQL, each in one snapshot, and reject files.

    Args:
        rewards_url: the database `rewards`.
        coupons_url: the database `coupons`.
        files: as `read_loads` takes them.
        rejects: likewise.

    Raises:
        OSError, asyncpg.PostgresError: a database or a reject file cannot be read.
        ValueError: a reject file is damaged.
    """
    async with _snapshot(rewards_url) as rewards:
        points = {row["member_id"]: row["points"] for row in await rewards.fetch(_POINTS, GUEST)}
        stock = {row["reward_id"]: row["stock"] for row in await rewards.fetch(_STOCK, GUEST)}
        redemptions = [RedemptionRow(**row) for row in await rewards.fetch(_REDEMPTIONS, GUEST)]
        keys = [
            KeyRow(row["subject"], row["key"], json.loads(row["response"])["redemption_id"])
            for row in await rewards.fetch(_KEYS, GUEST)
        ]
        unpublished = await rewards.fetchval("select count(*) from outbox where published_at is null")
    async with _snapshot(coupons_url) as coupons:
        coupon_rows = [CouponRow(**row) for row in await coupons.fetch(_COUPONS, GUEST)]
        dead_letters = await coupons.fetchval("select count(*) from dead_letters where replayed_at is null")
        loads = await read_loads(coupons, files, rejects)
    return Holdings(
        points=points,
        stock=stock,
        redemptions=redemptions,
        keys=keys,
        unpublished=unpublished,
        coupons=coupon_rows,
        dead_letters=dead_letters,
        loads=loads,
    )


async def read_platform(platform: Platform, files: Sequence[CouponFile] = (), rejects: Path | None = None) -> Holdings:
    """Read everything that a platform holds, of files as `read_loads` does.

    Raises:
        OSError, asyncpg.PostgresError: a database of PostgreSQL, or a reject file, cannot be read.
        ValueError, pymongo.errors.PyMongoError, httpx.HTTPError, TimeoutError, ControlError: as `read_documents`.
    """
    holdings = await read_holdings(platform.rewards_url, platform.coupons_url, files, rejects)
    if (side := platform.mongo_side) is None:
        return holdings
    documents = await read_documents(side.reader_url, side.salesforce, campaigns=side.campaigns, consents=side.consents)
    return replace(holdings, documents=documents)


@asynccontextmanager
async def _snapshot(url: str) -> "AsyncIterator[asyncpg.Connection[asyncpg.Record]]":
    connection = await asyncpg.connect(url, timeout=_TIMEOUT_SECONDS, command_timeout=_TIMEOUT_SECONDS)
    try:
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            yield connection
    finally:
        await connection.close()
