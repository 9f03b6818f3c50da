"""The coupons database and worlds for the faults of the consumer alone; whole platforms are opened by `open_flow`."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from deploy.migrate import migrate
from sandbox.servers import KafkaServer, PostgresServer
from tests.support.coupon_consumer_world import World
from tests.support.databases import migrate_settings, open_databases, open_emptied

TABLES = ("coupons", "consumer_offsets", "dead_letters")


@pytest.fixture(scope="module")
def coupons_database(postgres: PostgresServer) -> Iterator[str]:
    """The name of the migrated coupons database, for one module."""
    with open_databases(postgres) as settings:
        yield settings.coupons_database


@pytest.fixture
async def world(
    postgres: PostgresServer, coupons_database: str, kafka: KafkaServer, topic: str, tmp_path: Path
) -> AsyncIterator[World]:
    """An empty world on the session's servers, which are not to be hurt."""
    async with open_emptied(postgres, coupons_database, *TABLES):
        yield World(postgres, coupons_database, kafka, topic, tmp_path)


@pytest.fixture
async def fragile_postgres(own_postgres: PostgresServer, kafka: KafkaServer, topic: str, tmp_path: Path) -> World:
    """A world whose Postgres may be hurt."""
    settings = migrate_settings(own_postgres)
    await migrate(settings)
    return World(own_postgres, settings.coupons_database, kafka, topic, tmp_path)
