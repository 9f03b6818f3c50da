"""The real store on a database of each test's own, by each driver in turn."""

from collections.abc import AsyncIterator

import pytest

from runtime.mongo_settings import MongoSettings
from tests.support.campaign_world import MongoWorld, open_mongo_world


@pytest.fixture
async def world(any_driver: MongoSettings) -> AsyncIterator[MongoWorld]:
    """The store on an empty database."""
    async with open_mongo_world(any_driver) as opened:
        yield opened
