"""The platform's databases for the tests on real servers: migrated once a module; each package empties its tables."""

from collections.abc import Iterator

import pytest

from deploy.settings import MigrateSettings
from sandbox.servers import PostgresServer
from tests.support.databases import open_databases


@pytest.fixture(scope="module")
def databases(postgres: PostgresServer) -> Iterator[MigrateSettings]:
    """Both databases under names of their own, for one module."""
    with open_databases(postgres) as settings:
        yield settings


@pytest.fixture(scope="module")
def coupons_database(databases: MigrateSettings) -> str:
    """The name of the coupons database."""
    return databases.coupons_database
