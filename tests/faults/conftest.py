"""The coupons database and worlds for the faults of the consumer alone; whole platforms are opened by `open_flow`."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from deploy.migrate import migrate
from sandbox.servers import KafkaServer, PostgresServer
from tests.support.coupon_consumer_world import World
from tests.support.databases import migrate_settings, open_databases, open_emptied
from tests.support.etl_process import EtlCommand
from tests.support.etl_scene import TABLES as ETL_TABLES

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


def etl_command(postgres: PostgresServer, database: str, directory: Path) -> EtlCommand:
    """Return the ETL's command line, with a spool of its own to be looked into."""
    spool = directory / "spool"
    spool.mkdir()
    return EtlCommand(postgres, database, directory, {"SPOOL_DIRECTORY": str(spool)})


@pytest.fixture
async def etl(postgres: PostgresServer, coupons_database: str, tmp_path: Path) -> AsyncIterator[EtlCommand]:
    """The ETL's command line on empty tables of the session's server, which is not to be hurt."""
    async with open_emptied(postgres, coupons_database, *ETL_TABLES):
        yield etl_command(postgres, coupons_database, tmp_path)


@pytest.fixture
async def fragile_etl(own_postgres: PostgresServer, tmp_path: Path) -> EtlCommand:
    """The ETL's command line on a server that may be hurt."""
    settings = migrate_settings(own_postgres)
    await migrate(settings)
    return etl_command(own_postgres, settings.coupons_database, tmp_path)
