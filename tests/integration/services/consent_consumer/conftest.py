"""The real store on a database of each test's own, by each driver in turn."""

from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest

from patterns import background
from runtime.mongo import MongoDatabase, open_mongo
from runtime.mongo_settings import MongoSettings
from services.consent_consumer.collection_scan import MongoCollectionScan
from services.consent_consumer.dead_letters import MongoDeadLetters
from services.consent_consumer.store import MongoConsentStore
from tests.support.mongo_settings import patient


class MongoWorld:
    """A database, its stores, and the settings that lead there."""

    def __init__(self, database: MongoDatabase, settings: MongoSettings) -> None:
        self.settings = settings
        self.database = database
        self.store = MongoConsentStore(database)
        self.letters = MongoDeadLetters(database)
        self.collections = MongoCollectionScan(database)

    async def put(self, collection: str, document: Mapping[str, Any]) -> None:
        """Insert a document, or replace the one with its id."""
        with self.database.call():
            await self.database.collection(collection).replace_one({"_id": document["_id"]}, document, upsert=True)


@pytest.fixture
async def world(any_driver: MongoSettings) -> AsyncIterator[MongoWorld]:
    """The stores with their indexes on an empty database."""
    async with open_mongo(background(), patient(any_driver), application_name="test") as database:
        opened = MongoWorld(database, any_driver)
        await opened.store.create_indexes()
        yield opened


@pytest.fixture
def letters(world: MongoWorld) -> MongoDeadLetters:
    """The dead letters of that database."""
    return world.letters
