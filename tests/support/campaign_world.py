"""The real campaign store on a database of a test's own."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from loyalty.campaign import Campaign
from patterns import background
from runtime.mongo import MongoDatabase, open_mongo
from runtime.mongo_settings import MongoSettings
from services.campaign_api.store import CAMPAIGNS, KEYS, MongoCampaignStore, _document_of

KEEP_KEYS_SECONDS = 7 * 86_400.0


class MongoWorld:
    """The real store, its database beside it, and the settings that lead there."""

    def __init__(self, database: MongoDatabase, settings: MongoSettings) -> None:
        self.settings = settings
        self.database = database
        self.store = MongoCampaignStore(database, KEEP_KEYS_SECONDS)

    async def put(self, campaign: Campaign) -> None:
        """Let a campaign be there, as if it had come from elsewhere."""
        await self.database.collection(CAMPAIGNS).insert_one(_document_of(campaign))

    async def count(self, collection: str = CAMPAIGNS) -> int:
        """Return how many documents a collection has."""
        return await self.database.collection(collection).count_documents({})

    async def count_keys(self) -> int:
        """Return how many idempotency keys there are."""
        return await self.count(KEYS)


@asynccontextmanager
async def open_mongo_world(settings: MongoSettings) -> AsyncIterator[MongoWorld]:
    """Open the store with its indexes on an empty database."""
    async with open_mongo(background(), settings, application_name="test") as database:
        world = MongoWorld(database, settings)
        await world.store.create_indexes()
        yield world
