"""More of the platform's databases, for the tests of the services."""

import pytest

from deploy.migrate import migrate
from deploy.settings import MigrateSettings
from sandbox.servers import PostgresServer
from tests.support.databases import migrate_settings


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
