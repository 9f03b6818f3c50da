"""The platform's databases for what is forbidden in them."""

from collections.abc import Iterator

import pytest

from deploy.settings import MigrateSettings
from sandbox.servers import PostgresServer
from tests.support.databases import open_databases


@pytest.fixture(scope="module")
def databases(postgres: PostgresServer) -> Iterator[MigrateSettings]:
    """Both databases under names of their own."""
    with open_databases(postgres) as settings:
        yield settings
