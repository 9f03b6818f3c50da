"""The coupons database for the tests of coupon_consumer: migrated once a module, emptied before each test."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from pydantic import SecretStr

from deploy.migrate import migrate
from runtime.postgres import PostgresPool, open_pool
from runtime.settings import PostgresSettings
from sandbox.servers import KafkaServer, PostgresServer
from tests.integration.services.coupon_consumer.world import World
from tests.support.databases import PASSWORDS, migrate_settings


def _run_apart(work: Coroutine[Any, Any, object]) -> None:  # Any: nothing is sent to or thrown into it
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
async def administrator(postgres: PostgresServer, coupons_database: str) -> AsyncIterator[asyncpg.Connection]:
    """A superuser's connection to the database, whose tables are empty."""
    connection = await asyncpg.connect(postgres.url(coupons_database), timeout=10)
    try:
        await connection.execute("truncate coupons, consumer_offsets, dead_letters")
        yield connection
    finally:
        await connection.close()


@pytest.fixture
async def pool(postgres: PostgresServer, coupons_database: str) -> AsyncIterator[PostgresPool]:
    """The service's own pool, under its own role."""
    settings = PostgresSettings(
        host=postgres.host,
        port=postgres.port,
        database=coupons_database,
        user="coupon_consumer",
        password=SecretStr(PASSWORDS["coupon_consumer"]),
    )
    async with open_pool(settings) as opened:
        yield opened


@pytest.fixture
async def world(
    postgres: PostgresServer,
    coupons_database: str,
    administrator: asyncpg.Connection,
    kafka: KafkaServer,
    topic: str,
    tmp_path: Path,
) -> World:
    """A world on the session's servers, which are not to be hurt."""
    assert not administrator.is_closed()  # it emptied the tables
    return World(postgres, coupons_database, kafka, topic, tmp_path)


@pytest.fixture
async def fragile_postgres(
    own_postgres: PostgresServer, migrated: str, kafka: KafkaServer, topic: str, tmp_path: Path
) -> World:
    """A world whose Postgres may be hurt."""
    return World(own_postgres, migrated, kafka, topic, tmp_path)


@pytest.fixture
async def fragile_kafka(
    postgres: PostgresServer,
    coupons_database: str,
    administrator: asyncpg.Connection,
    own_kafka: KafkaServer,
    tmp_path: Path,
) -> World:
    """A world whose broker may be hurt."""
    assert not administrator.is_closed()  # it emptied the tables
    await own_kafka.create_topic("events")
    return World(postgres, coupons_database, own_kafka, "events", tmp_path)
