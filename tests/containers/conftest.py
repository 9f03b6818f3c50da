"""Tests that need containers: without `TEST_SERVERS=containers`, and where no engine answers, they say so."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from sandbox.servers import KafkaServer, PostgresServer
from tests.support.coupon_consumer_world import World
from tests.support.databases import open_databases, open_emptied
from tests.support.servers import IN_CONTAINERS, VARIABLE, need_engine


@pytest.fixture(scope="session", autouse=True)
def containers() -> None:
    """Skip the test, or fail it in a pipeline, where there are no containers."""
    if not IN_CONTAINERS:
        pytest.skip(f"needs containers: make test-containers, or {VARIABLE}=containers")
    need_engine()


@pytest.fixture(scope="session")
def coupons_database(postgres: PostgresServer) -> Iterator[str]:
    """The name of the migrated coupons database."""
    with open_databases(postgres) as settings:
        yield settings.coupons_database


@pytest.fixture
async def empty_database(postgres: PostgresServer, coupons_database: str) -> AsyncIterator[str]:
    """The coupons database with nothing in it."""
    async with open_emptied(postgres, coupons_database, "coupons", "consumer_offsets", "dead_letters"):
        yield coupons_database


@pytest.fixture
async def world(postgres: PostgresServer, empty_database: str, kafka: KafkaServer, topic: str, tmp_path: Path) -> World:
    """A world on the session's servers, which are not to be hurt."""
    return World(postgres, empty_database, kafka, topic, tmp_path)


@pytest.fixture
async def fragile_kafka(postgres: PostgresServer, empty_database: str, own_kafka: KafkaServer, tmp_path: Path) -> World:
    """A world whose broker may be hurt."""
    await own_kafka.create_topic("events")
    return World(postgres, empty_database, own_kafka, "events", tmp_path)
