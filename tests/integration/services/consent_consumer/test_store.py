"""What of the consent store the fake cannot show: indexes, races, rights, answers that are lost."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any
from unittest import mock

import pytest
from bson import Timestamp
from pymongo import IndexModel

from patterns import background
from runtime.errors import DependencyUnavailable, IndexConflictError, TransactionContended
from runtime.mongo import MongoDatabase, open_mongo
from runtime.mongo_settings import MongoSettings
from sandbox.servers import MongoServer
from services.consent_consumer import store as store_module
from services.consent_consumer.dead_letters import MongoDeadLetters
from services.consent_consumer.errors import LeaseHeldError, LeaseLostError
from services.consent_consumer.store import DEAD_LETTERS, POSITIONS, MongoConsentStore, Position
from tests.integration.services.consent_consumer.conftest import MongoWorld
from tests.support.consent_letter_contract import some_letter
from tests.support.consent_store_contract import LONG, MASTER, position
from tests.support.fault_proxy import open_fault_proxy

Call = Callable[[], Awaitable[object]]


def without_fence(stream: str, _fence: int) -> dict[str, Any]:
    """Return the position, whoever has it."""
    return {"_id": stream}


async def test_the_oplog_spans_from_its_first_entry_to_its_last(world: MongoWorld) -> None:
    """A write moves its end, what comes later is behind that, and its beginning is before both."""
    before = await world.store.oplog_span()
    await world.put(MASTER, {"_id": 1})
    after = await world.store.oplog_span()

    assert before.first <= after.first < before.last < after.last < await world.store.cluster_time()


async def test_indexes_are_created_by_many_at_once_and_again(any_driver: MongoSettings) -> None:
    """Five processes that start together on a new database all come through, and once more."""
    async with open_mongo(background(), any_driver) as database:
        for _ in range(2):
            await asyncio.gather(*(MongoConsentStore(database).create_indexes() for _ in range(5)))
        there = await database.collection(DEAD_LETTERS).index_information()

    assert set(there) == {"_id_", "by_failure", "by_document"}


async def test_index_that_is_there_in_another_form_is_named(any_driver: MongoSettings) -> None:
    """An operator learns which collection and which index it is."""
    async with open_mongo(background(), any_driver) as database:
        await database.collection(DEAD_LETTERS).create_indexes([IndexModel([("stream", 1)], name="by_failure")])
        with pytest.raises(IndexConflictError, match=f"{DEAD_LETTERS}.*by_failure"):
            await MongoConsentStore(database).create_indexes()


@pytest.mark.parametrize("is_guarded", [True, False], ids=["fenced", "unfenced"])
async def test_sleeper_that_races_its_follower_moves_nothing_unless_the_fence_is_gone(
    world: MongoWorld, is_guarded: bool
) -> None:
    """The old holder saves on and on while the new one takes over: what it finds then stays, with the fence alone."""
    store = world.store
    await store.take_position(MASTER, 1)
    await store.save_position(MASTER, position(1), 1)

    async def save_on() -> int:
        for seconds in range(2, 1_000):
            try:
                await store.save_position(MASTER, position(seconds), 1)
            except LeaseLostError:
                return seconds
            if taken.is_set() and seconds > 500:
                break
        return 0

    taken = asyncio.Event()
    held = store_module._held if is_guarded else without_fence
    with mock.patch.object(store_module, "_held", held):
        sleeper = asyncio.create_task(save_on())
        await asyncio.sleep(0.05)
        found = await store.take_position(MASTER, 2)
        taken.set()
        was_refused = bool(await sleeper)
    left = await store.take_position(MASTER, 2)

    assert was_refused == is_guarded
    assert (left == found) == is_guarded


async def test_position_without_its_time_in_the_filter_moves_back(world: MongoWorld) -> None:
    """The guard is needed: what is left when it is gone is whatever was written last."""
    await world.store.take_position(MASTER, 1)
    await world.store.save_position(MASTER, position(9), 1)
    late = position(7)
    await world.store.save_position(MASTER, late, 1)
    update = {"$set": store_module._content(late)}
    await world.database.collection(POSITIONS).update_one(store_module._held(MASTER, 1), update)

    assert await world.store.take_position(MASTER, 1) == late


async def test_skip_and_start_at_once_leave_one_who_decides(world: MongoWorld) -> None:
    """Ten times an operator skips while an instance starts: it comes to nothing, or the instance begins there."""
    store = world.store
    for round_number in range(10):
        wanted = position(100 + round_number)
        claim_id = f"claim {round_number}"
        skipped, fence = await asyncio.gather(
            store.skip(MASTER, wanted, by="ops-1", reason="drill"),
            store.take_lease(claim_id, "one", LONG),
            return_exceptions=True,
        )
        while fence is None:  # its time is that of its request: the skip may have come in between
            fence = await store.take_lease(claim_id, "one", LONG)
        assert isinstance(fence, int)
        begun = await store.take_position(MASTER, fence)
        if skipped is None:
            assert begun == wanted
        else:
            assert isinstance(skipped, LeaseHeldError | TransactionContended)  # Motor does not run a lost commit again
            assert begun != wanted
        await store.give_back_lease(claim_id)


async def test_skip_without_its_audit_line_does_not_happen(world: MongoWorld) -> None:
    """Both or neither: when the line cannot be written the stream stays, and so does the lease's fence."""
    store = world.store
    fence = await store.take_lease("a", "one", LONG)
    assert fence is not None
    await store.take_position(MASTER, fence)
    await store.save_position(MASTER, position(9), fence)
    await store.give_back_lease("a")
    with mock.patch.object(store_module, "AUDIT", "system.no"), pytest.raises(DependencyUnavailable):
        await store.skip(MASTER, position(5), by="ops-1", reason="drill")
    lease = await store.find_lease()

    assert await store.list_audit(10) == []
    assert await store.take_position(MASTER, fence) == position(9)
    assert lease is not None
    assert lease.fence == fence


async def test_right_that_is_missing_is_waited_out(world: MongoWorld) -> None:
    """No event is to blame for it: an operator gives the right, and the work goes on."""
    settings = MongoSettings.model_validate(world.settings.model_dump() | {"database": "elsewhere"})
    async with open_mongo(background(), settings) as database:
        store = MongoConsentStore(database)
        with pytest.raises(DependencyUnavailable, match="OperationFailure"):
            await store.take_lease("a", "one", LONG)
        with pytest.raises(DependencyUnavailable, match="OperationFailure"):
            await store.save_position(MASTER, position(7), 1)
        with pytest.raises(DependencyUnavailable, match=r"BulkWriteError|OperationFailure"):
            await MongoDeadLetters(database).bury([some_letter()])


def through(settings: MongoSettings, port: int) -> MongoSettings:
    """Return settings that lead to the same database through a proxy."""
    way: dict[str, Any] = {
        "hosts": (f"127.0.0.1:{port}",),
        "replica_set": None,
        "operation_timeout_seconds": 1.0,
    }
    return MongoSettings.model_validate(settings.model_dump() | way)


async def test_calls_whose_answers_are_lost_may_be_made_again(world: MongoWorld, mongo: MongoServer) -> None:
    """A lease, a save and a burial were done though nobody heard so: asked again they are the same once more."""
    async with open_fault_proxy(mongo.port) as proxy:
        settings = through(world.settings, proxy.port)
        async with open_mongo(background(), settings) as database:
            store, letters = MongoConsentStore(database), MongoDeadLetters(database)
            await store.take_position(MASTER, 1)
            calls: list[Call] = [
                lambda: store.take_lease("a", "one", LONG),
                lambda: store.save_position(MASTER, position(7), 1),
                lambda: letters.bury([some_letter()]),
            ]
            effects: list[Call] = [world.store.find_lease, lambda: position_of(world), world.letters.count]
            for call, effect in zip(calls, effects, strict=True):
                while not await effect():  # a connection that is new may be too late to carry the request itself
                    proxy.down.swallow()
                    with pytest.raises(DependencyUnavailable):
                        await call()
                    proxy.reset()
                    proxy.down.restore()
                    await database.wait_for_connection(background(), 20)

            assert [await call() for call in calls] == [1, None, 0]
            assert await position_of(world) == position(7)


async def position_of(world: MongoWorld) -> Position | None:
    """Return where the stream stands."""
    found = await world.store.find_position(MASTER)
    return None if found is None else found.position


async def test_crash_points_are_reached_on_the_way(world: MongoWorld) -> None:
    """Each name is one that the service may arm, and each is passed in the order of the work."""
    reached: list[str] = []
    store = MongoConsentStore(world.database, reached.append)
    letters = MongoDeadLetters(world.database, reached.append)
    await store.take_lease("a", "one", LONG)
    await store.take_lease("b", "two", LONG)  # who does not get it does not pass the point
    await store.take_position(MASTER, 1)
    await letters.bury([some_letter()])
    await store.save_position(MASTER, position(7), 1)

    assert reached == ["after-lease", "after-bury", "before-save", "after-save"]
    assert set(reached) == set(store_module.CRASH_POINTS)


async def test_position_of_a_later_release_keeps_what_this_one_does_not_know(world: MongoWorld) -> None:
    """This release runs on the documents of the next, as long as that one only adds to them."""
    await world.store.take_position(MASTER, 1)
    await world.store.save_position(MASTER, position(7), 1)
    await world.database.collection(POSITIONS).update_one({"_id": MASTER}, {"$set": {"shard": 3}})
    newer = Position(Timestamp(8, 1), {"_data": "82", "_typeBits": b"\x01"})
    await world.store.save_position(MASTER, newer, 1)
    document = await world.database.collection(POSITIONS).find_one({"_id": MASTER})

    assert document is not None
    assert document["shard"] == 3
    assert await world.store.take_position(MASTER, 1) == newer


async def test_letters_are_listed_along_their_index(world: MongoWorld) -> None:
    """A page reads as many letters as it gives, however many there are."""
    await world.letters.bury([some_letter(number) for number in range(100)])
    find = {"find": DEAD_LETTERS, "sort": {"failed_at": 1, "_id": 1}, "limit": 10}
    plan = await _explain(world.database, find)

    assert plan["executionStats"]["totalDocsExamined"] == plan["executionStats"]["nReturned"] == 10


async def _explain(database: MongoDatabase, find: Mapping[str, object]) -> Mapping[str, Any]:
    with database.call():
        plan: Mapping[str, Any] = await database.client[database.name].command(
            "explain", find, verbosity="executionStats"
        )
    return plan
