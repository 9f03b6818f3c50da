"""All APIs as real processes for all rows of a module, on databases of their own."""

from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio

from deploy.settings import MigrateSettings
from sandbox.servers import KafkaServer, MongoServer, PostgresServer
from tests.bad_input.http_database import Servers
from tests.bad_input.http_world import Apis, open_apis
from tests.support.databases import open_databases


@pytest.fixture(scope="module")
def databases(postgres: PostgresServer) -> Iterator[MigrateSettings]:
    """Both databases under names of their own."""
    with open_databases(postgres) as settings:
        yield settings


@pytest.fixture(scope="session")
def servers(postgres: PostgresServer, kafka: KafkaServer, mongo: MongoServer) -> Servers:
    """All servers that the APIs need."""
    return Servers(postgres, kafka, mongo)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def apis(
    servers: Servers, databases: MigrateSettings, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Apis]:
    """All APIs, ready, with what the rows are about in their databases."""
    async with open_apis(servers, databases, tmp_path_factory.mktemp("apis")) as apis:
        yield apis
