"""The coupons database for the tests of coupon_consumer, emptied before each test, and worlds around it."""

from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest

from runtime.postgres import PostgresPool, open_pool
from sandbox.servers import KafkaServer, PostgresServer
from tests.support.coupon_consumer_world import World
from tests.support.databases import open_emptied, role_settings

TABLES = ("coupons", "consumer_offsets", "dead_letters")


@pytest.fixture
async def administrator(postgres: PostgresServer, coupons_database: str) -> AsyncIterator[asyncpg.Connection]:
    """A superuser's connection to the database, whose tables are empty."""
    async with open_emptied(postgres, coupons_database, *TABLES) as connection:
        yield connection


@pytest.fixture
async def pool(postgres: PostgresServer, coupons_database: str) -> AsyncIterator[PostgresPool]:
    """The service's own pool, under its own role."""
    async with open_pool(role_settings(postgres, coupons_database, "coupon_consumer")) as opened:
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
