"""The rewards database for the tests of reward_store: migrated once a module, emptied before each test."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import asyncpg
import pytest
from pydantic import SecretStr

from deploy.migrate import migrate
from deploy.settings import MigrateSettings
from runtime.postgres import PostgresPool, open_pool
from runtime.settings import PostgresSettings
from sandbox.servers import PostgresServer
from tests.support.databases import PASSWORDS, migrate_settings


def _run_apart(work: Coroutine[Any, Any, object]) -> None:  # Any: nothing is sent to or thrown into it
    """Run a coroutine to its end in a thread of its own, so that no loop of a test is touched."""
    with ThreadPoolExecutor(1) as threads:
        threads.submit(asyncio.run, work).result()


@pytest.fixture(scope="module")
def migrated(postgres: PostgresServer) -> Iterator[MigrateSettings]:
    """Both databases under names of their own, for one module."""
    settings = migrate_settings(
        postgres, rewards=f"rewards_{uuid.uuid4().hex[:12]}", coupons=f"coupons_{uuid.uuid4().hex[:12]}"
    )
    _run_apart(migrate(settings))
    yield settings
    _run_apart(postgres.drop_database(settings.rewards_database))
    _run_apart(postgres.drop_database(settings.coupons_database))


@pytest.fixture(scope="module")
def rewards_database(migrated: MigrateSettings) -> str:
    """The name of the rewards database."""
    return migrated.rewards_database


@pytest.fixture
async def administrator(postgres: PostgresServer, rewards_database: str) -> AsyncIterator[asyncpg.Connection]:
    """A superuser's connection to the database, whose tables are empty."""
    connection = await asyncpg.connect(postgres.url(rewards_database), timeout=10)
    try:
        await connection.execute("truncate members, rewards, redemptions, idempotency_keys, outbox")
        yield connection
    finally:
        await connection.close()


@pytest.fixture
def postgres_settings(postgres: PostgresServer, rewards_database: str) -> PostgresSettings:
    """How the service reaches the database: by its own role."""
    return PostgresSettings(
        host=postgres.host,
        port=postgres.port,
        database=rewards_database,
        user="reward_store",
        password=SecretStr(PASSWORDS["reward_store"]),
        acquire_timeout_seconds=20,
    )


@pytest.fixture
async def pool(postgres_settings: PostgresSettings) -> AsyncIterator[PostgresPool]:
    """The service's pool."""
    async with open_pool(postgres_settings) as pool:
        yield pool
