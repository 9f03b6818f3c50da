"""The coupons database for the tests of coupon_api: migrated once a module, emptied before each test."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import asyncpg
import pytest
from pydantic import SecretStr

from deploy.migrate import migrate
from runtime.settings import PostgresSettings
from sandbox.servers import PostgresServer
from tests.support.databases import PASSWORDS, migrate_settings


def _run_apart(work: Coroutine[Any, Any, object]) -> None:
    """Run a coroutine to its end in a thread of its own, so that no loop of a test is touched."""
    with ThreadPoolExecutor(1) as threads:
        threads.submit(asyncio.run, work).result()


@pytest.fixture(scope="module")
def coupons_database(postgres: PostgresServer) -> Iterator[str]:
    """The name of a migrated coupons database, for one module."""
    settings = migrate_settings(
        postgres, rewards=f"rewards_{uuid.uuid4().hex[:12]}", coupons=f"coupons_{uuid.uuid4().hex[:12]}"
    )
    _run_apart(migrate(settings))
    yield settings.coupons_database
    _run_apart(postgres.drop_database(settings.coupons_database))
    _run_apart(postgres.drop_database(settings.rewards_database))


@pytest.fixture
async def migrated(own_postgres: PostgresServer) -> str:
    """The name of the migrated coupons database on the server that is the test's own."""
    settings = migrate_settings(own_postgres)
    await migrate(settings)
    return settings.coupons_database


@pytest.fixture
async def administrator(postgres: PostgresServer, coupons_database: str) -> AsyncIterator["asyncpg.Connection"]:
    """A superuser's connection to the database, whose tables are empty."""
    connection = await asyncpg.connect(postgres.url(coupons_database))
    try:
        await connection.execute("truncate coupons, idempotency_keys, consumer_offsets, dead_letters")
        yield connection
    finally:
        await connection.close()


@pytest.fixture
def postgres_settings(postgres: PostgresServer, coupons_database: str) -> PostgresSettings:
    """How the service reaches the database: by its own role."""
    return PostgresSettings(
        host=postgres.host,
        port=postgres.port,
        database=coupons_database,
        user="coupon_api",
        password=SecretStr(PASSWORDS["coupon_api"]),
    )
