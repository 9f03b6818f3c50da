"""The real store on a database of each test's own, by each driver in turn; or a whole server of its own."""

from collections.abc import AsyncIterator

import pytest

from runtime.mongo_settings import MongoSettings
from sandbox.servers import MongoServer
from tests.support.campaign_world import MongoWorld, open_mongo_world
from tests.support.mongo_settings import open_mongo_database


@pytest.fixture
async def world(any_driver: MongoSettings) -> AsyncIterator[MongoWorld]:
    """The store on an empty database."""
    async with open_mongo_world(any_driver) as opened:
        yield opened


@pytest.fixture
async def own_settings(own_mongo: MongoServer) -> AsyncIterator[MongoSettings]:
    """Settings that lead to a database on a server of the test's own; it is running again when the test ends."""
    async with open_mongo_database(own_mongo) as settings:
        yield settings
