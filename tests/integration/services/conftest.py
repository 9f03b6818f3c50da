"""The platform's databases for the tests of the services: migrated once a module; each package empties its tables."""

from collections.abc import Iterator

import pytest

from deploy.migrate import migrate
from deploy.settings import MigrateSettings
from sandbox.servers import PostgresServer
from tests.support.databases import migrate_settings, open_databases


@pytest.fixture(scope="module")
def databases(postgres: PostgresServer) -> Iterator[MigrateSettings]:
    """Both databases under names of their own, for one module."""
    with open_databases(postgres) as settings:
        yield settings


@pytest.fixture(scope="module")
def coupons_database(databases: MigrateSettings) -> str:
    """The name of the coupons database."""
    return databases.coupons_database


@pytest.fixture(scope="module")
def rewards_database(databases: MigrateSettings) -> str:
    """The name of the rewards database."""
    return databases.rewards_database


@pytest.fixture
async def migrated(own_postgres: PostgresServer) -> str:
    """The name of the migrated coupons database on the server that is the test's own."""
    settings = migrate_settings(own_postgres)
    await migrate(settings)
    return settings.coupons_database
