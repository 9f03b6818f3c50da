"""Two instances and one lease on a real database, with a network between them that can fail."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import pytest

from patterns import background
from runtime.mongo import MongoDatabase, open_mongo
from runtime.mongo_settings import MongoSettings
from sandbox.servers import MongoServer
from services.consent_consumer.errors import LeaseLostError
from services.consent_consumer.lease import LeaseKeeper
from services.consent_consumer.settings import LeaseSettings
from services.consent_consumer.store import MongoConsentStore
from tests.integration.services.consent_consumer.conftest import MongoWorld
from tests.support.consent_store_contract import MASTER, position
from tests.support.eventually import eventually
from tests.support.fault_proxy import FaultProxy, open_fault_proxy
from tests.support.mongo_settings import open_mongo_database

SHORT = LeaseSettings(seconds=2.0, renew_seconds=0.5, poll_seconds=0.1)


@asynccontextmanager
async def open_behind_proxy(
    settings: MongoSettings, server: MongoServer
) -> AsyncIterator[tuple[MongoConsentStore, FaultProxy, MongoDatabase]]:
    """Open the same database through a proxy, with operations that end soon."""
    way = {"replica_set": None, "operation_timeout_seconds": 0.5, "connect_timeout_seconds": 0.5}
    async with open_fault_proxy(server.port) as proxy:
        given = settings.model_dump() | way | {"hosts": (f"127.0.0.1:{proxy.port}",)}
        async with open_mongo(background(), MongoSettings.model_validate(given)) as database:
            yield MongoConsentStore(database), proxy, database


async def test_lease_is_held_over_many_renewals_and_handed_over_at_once(world: MongoWorld) -> None:
    """One instance holds it for several times its length; the other waits, and has it as soon as it is given back."""
    order: list[str] = []

    async def instance(name: str, *, holds_seconds: float) -> int:
        async with LeaseKeeper(world.store, SHORT, name).hold(background()) as lease:
            order.append(f"{name} begins")
            await asyncio.sleep(holds_seconds)
            lease.check()
            order.append(f"{name} ends")
            return lease.fence

    first = asyncio.create_task(instance("one", holds_seconds=5))
    await eventually(lambda: order, seconds=30)
    fences = await asyncio.gather(first, instance("two", holds_seconds=0))

    assert order == ["one begins", "one ends", "two begins", "two ends"]
    assert fences[1] > fences[0]


async def test_holder_that_is_cut_off_gives_up_before_the_next_one_begins(
    world: MongoWorld, mongo: MongoServer
) -> None:
    """`lost` ends before the lease does where the database keeps it; when it is back, what it would save is refused."""
    async with open_behind_proxy(world.settings, mongo) as (store, proxy, database):
        async with LeaseKeeper(store, SHORT, "one").hold(background()) as lease:
            await store.take_position(MASTER, lease.fence)
            await store.save_position(MASTER, position(7), lease.fence)
            await eventually(lambda: lease.statistics().renewed >= 1, seconds=30)
            proxy.up.swallow()
            ended_at: list[datetime] = []
            lease.lost.after_func(lambda: ended_at.append(datetime.now(UTC)))
            async with asyncio.timeout(30):
                await lease.lost.wait()
            await eventually(lambda: ended_at)
            state = await world.store.find_lease()
            assert state is not None
            assert ended_at[0] < state.expires_at
            assert isinstance(lease.lost.cause, LeaseLostError)

        async with LeaseKeeper(world.store, SHORT, "two").hold(background()) as following:
            assert following.fence > lease.fence
            assert await world.store.take_position(MASTER, following.fence) == position(7)
            proxy.reset()
            proxy.up.restore()
            await database.wait_for_connection(background(), 20)
            with pytest.raises(LeaseLostError):
                await store.save_position(MASTER, position(9), lease.fence)
            assert await world.store.take_position(MASTER, following.fence) == position(7)
            following.check()


async def test_holder_rides_out_a_network_that_fails_for_less_than_the_lease(
    world: MongoWorld, mongo: MongoServer
) -> None:
    """Connections that are cut, and then reset, cost renewals, never the lease."""
    long = LeaseSettings(seconds=60.0, renew_seconds=0.2, poll_seconds=0.1)
    async with (
        open_behind_proxy(world.settings, mongo) as (store, proxy, _database),
        LeaseKeeper(store, long, "one").hold(background()) as lease,
    ):
        for break_off in (proxy.cut, proxy.reset):
            renewed = lease.statistics().renewed
            break_off()
            await eventually(lambda seen=renewed: lease.statistics().renewed > seen, seconds=25)  # type: ignore[misc]
        lease.check()


async def test_holder_that_dies_is_followed_after_its_lease(world: MongoWorld) -> None:
    """It gave nothing back: the next one has the lease when the database's clock says that it is over, not before."""
    await world.store.take_lease("dead", "one", 1.5)
    state = await world.store.find_lease()
    assert state is not None
    async with LeaseKeeper(world.store, SHORT, "two").hold(background()) as lease:
        following = await world.store.find_lease()
        assert following is not None
        assert (following.holder, following.fence) == ("two", lease.fence)
        assert following.expires_at.timestamp() - SHORT.seconds >= state.expires_at.timestamp()


async def test_lease_survives_a_primary_that_steps_down(own_mongo: MongoServer) -> None:
    """An election of seconds is shorter than the lease: it is renewed after it, under the same fence."""
    settings = LeaseSettings(seconds=40.0, renew_seconds=0.5, poll_seconds=0.2)
    async with open_mongo_database(own_mongo) as given, open_mongo(background(), given) as database:
        store = MongoConsentStore(database)
        async with LeaseKeeper(store, settings, "one").hold(background()) as lease:
            await own_mongo.step_down()
            renewed = lease.statistics().renewed
            await eventually(lambda: lease.statistics().renewed > renewed + 1, seconds=35)
            state = await store.find_lease()
            assert state is not None
            assert (state.fence, state.is_held) == (lease.fence, True)
