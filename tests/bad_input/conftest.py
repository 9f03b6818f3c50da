"""Both APIs as real processes for all rows of a module, on databases of their own."""

from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio

from deploy.settings import MigrateSettings
from sandbox.servers import KafkaServer, PostgresServer
from tests.bad_input.http_world import Apis, open_apis
from tests.support.databases import open_databases


@pytest.fixture(scope="module")
def databases(postgres: PostgresServer) -> Iterator[MigrateSettings]:
    """Both databases under names of their own."""
    with open_databases(postgres) as settings:
        yield settings


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def apis(
    postgres: PostgresServer,
    kafka: KafkaServer,
    databases: MigrateSettings,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[Apis]:
    """Both APIs, ready, with what the rows are about in their databases."""
    async with open_apis(postgres, kafka, databases, tmp_path_factory.mktemp("apis")) as apis:
        yield apis
