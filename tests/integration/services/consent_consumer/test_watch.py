"""The consumer's watch on a real server: the ages and the window that a process shows at its admin port."""

import asyncio
import math
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from bson import Timestamp

from patterns import background
from runtime.mongo import open_mongo
from runtime.mongo_settings import MongoSettings
from sandbox.salesforce import Fault, FaultKind
from sandbox.servers import MongoServer
from services.consent_consumer.change_stream import CONSENT_DETAIL, CONSENT_MASTER
from services.consent_consumer.store import MongoConsentStore
from tests.support.consent_consumer_process import ConsentWorld, master, open_consent_world
from tests.support.salesforce import open_sandbox
from tests.support.service_process import ServiceProcess

_AGES = tuple(f'lp_consent_position_age_seconds{{stream="{name}"}}' for name in (CONSENT_MASTER, CONSENT_DETAIL))
_WINDOW = "lp_consent_oplog_window_seconds"
_OLD_SECONDS = 5


@pytest.fixture
async def world(mongo_settings: MongoSettings, tmp_path: Path) -> AsyncIterator[ConsentWorld]:
    """A database, a Salesforce, and no consumer yet."""
    async with (
        open_mongo(background(), mongo_settings) as database,
        open_sandbox(tmp_path) as (salesforce, _),
        open_consent_world(database, mongo_settings, salesforce, tmp_path) as world,
    ):
        yield world


async def wait_until_old(world: ConsentWorld) -> int:
    """Let the oplog go on until the last change of either stream is old, and return how many seconds that is."""
    store = MongoConsentStore(world.database)
    begin: Timestamp = await store.cluster_time()
    async with asyncio.timeout(60):
        while (age := (await store.oplog_span()).last.time - begin.time) < _OLD_SECONDS:
            await world.database.collection("other").insert_one({})
            await asyncio.sleep(0.05)
    return age


async def ages(consumer: ServiceProcess) -> list[float]:
    """Return the ages that a consumer shows now; none before its first look."""
    metrics = await consumer.metrics()
    return [metrics[name] for name in _AGES if name in metrics]


async def test_a_quiet_stream_stays_young_and_a_stuck_one_grows_old(world: ConsentWorld) -> None:
    """Only what waits for Salesforce lags behind the oplog, also as a second instance sees it that does no work."""
    async with AsyncExitStack() as stack:
        consumer = await stack.enter_async_context(world.consumer(CHECK_SECONDS="0.1"))
        await consumer.wait_event("Change stream started", count=2)
        second = await stack.enter_async_context(world.consumer(CHECK_SECONDS="0.1"))
        await second.wait_event("Another instance holds the lease: waiting")
        await world.masters.insert_one(master("settled"))
        await world.wait_agreed()
        old = await wait_until_old(world)

        async def are_young() -> bool:
            return len(found := await ages(consumer)) == 2 and max(found) < old - 2

        await consumer.wait(are_young)
        assert (await consumer.metrics())[_WINDOW] >= old

        world.salesforce.faults.switch_on(Fault(kind=FaultKind.UNAVAILABLE))
        await world.masters.insert_one(master("stuck"))
        old = await wait_until_old(world)

        async def is_one_old() -> bool:
            master_age, detail_age = await ages(second)
            return master_age >= old - 2 > detail_age

        await second.wait(is_one_old)
        world.salesforce.faults.clear()
        await consumer.wait(are_young)


async def test_a_consumer_that_may_not_see_the_oplog_works_and_shows_no_number(
    world: ConsentWorld, mongo: MongoServer, mongo_settings: MongoSettings
) -> None:
    """A missing right blinds the watch, which says so, and holds up no consent."""
    name, password = mongo_settings.user, mongo_settings.password
    assert name is not None
    assert password is not None
    await mongo.create_user(name, password.get_secret_value(), [{"role": "readWrite", "db": mongo_settings.database}])
    async with world.consumer(CHECK_SECONDS="0.1") as consumer:
        await consumer.wait_event("The oplog and the dead letters are not seen")
        await consumer.wait_event("Change stream started", count=2)
        await world.masters.insert_one(master("carried"))
        await world.wait_agreed()
        metrics = await consumer.metrics()
        assert math.isnan(metrics[_WINDOW])
        assert not await ages(consumer)
        assert await consumer.readiness() == 200
