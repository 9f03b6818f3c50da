"""A world of consents for a test of faults: a database that may be hurt, a Salesforce, and members who write."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from patterns import background
from runtime.mongo import open_mongo
from runtime.mongo_settings import MongoSettings
from sandbox.servers import MongoServer
from tests.support.consent_consumer_process import ConsentWorld, open_consent_world
from tests.support.consent_members import ConsentMembers
from tests.support.mongo_settings import open_mongo_database
from tests.support.salesforce import open_sandbox
from tests.support.seeds import seeded

PATIENT: Final = {"RETRY__LATER_TRIES": "1000"}
"""A detail may wait for its master as long as the master's stream is held up."""

SHORT_LEASE: Final = {
    "LEASE__SECONDS": "5",
    "LEASE__RENEW_SECONDS": "0.5",
    "LEASE__POLL_SECONDS": "0.1",
    "MONGO__OPERATION_TIMEOUT_SECONDS": "2",
}
"""The next one after a death waits for no longer than this."""


@asynccontextmanager
async def open_consents(
    nodes: Sequence[MongoServer], directory: Path
) -> AsyncIterator[tuple[ConsentWorld, ConsentMembers]]:
    """Open an empty database on the nodes of one replica set, the first its primary, and a Salesforce beside it."""
    async with open_mongo_database(nodes[0]) as given:
        hosts = {"hosts": tuple(node.address for node in nodes)}
        settings = MongoSettings.model_validate(given.model_dump() | hosts)
        async with (
            open_mongo(background(), settings) as database,
            open_sandbox(directory) as (salesforce, _),
            open_consent_world(database, settings, salesforce, directory) as world,
        ):
            yield world, ConsentMembers(database, seeded("members"))
            await nodes[0].wait_for_primary()


async def begin(world: ConsentWorld) -> None:
    """Let a consumer run until both streams have a place to go on from, whatever is written from now on."""
    async with world.consumer() as consumer:
        await consumer.wait_event("Change stream started", count=2)
        assert await consumer.process.stop(grace_seconds=40) == 0
