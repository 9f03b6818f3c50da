"""The MongoDB database of a process, on a real server and with either driver."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from pymongo.errors import DuplicateKeyError, OperationFailure

from patterns import ContextCancelled, background
from runtime.errors import DependencyUnavailable, PoolExhausted, TransactionContended
from runtime.mongo import MongoDatabase, Session, open_mongo
from runtime.mongo_settings import MongoSettings
from sandbox.servers import MongoServer
from tests.support.eventually import eventually
from tests.support.mongo_settings import DRIVERS, open_mongo_database, with_driver


def changed(settings: MongoSettings, **changes: object) -> MongoSettings:
    """Return the settings with some of them changed, checked anew."""
    return MongoSettings.model_validate(settings.model_dump() | changes)


@pytest.fixture
async def database(any_driver: MongoSettings) -> AsyncIterator[MongoDatabase]:
    """An open database of the test's own, with time for a busy machine."""
    settings = changed(any_driver, operation_timeout_seconds=30)
    async with open_mongo(background(), settings, application_name="test") as opened:
        yield opened


async def test_a_call_gives_what_the_driver_gives(database: MongoDatabase) -> None:
    """Documents go in and come out, with aware times."""
    things = database.collection("things")
    with database.call():
        await things.insert_one({"_id": 1, "name": "one"})
        assert await things.find_one({"_id": 1}) == {"_id": 1, "name": "one"}
        assert [each["_id"] async for each in things.find()] == [1]


async def test_a_violated_index_is_told_as_it_is(database: MongoDatabase) -> None:
    """A mistake of the caller's is no state of the server."""
    await database.collection("things").insert_one({"_id": 1})
    with pytest.raises(DuplicateKeyError), database.call():
        await database.collection("things").insert_one({"_id": 1})


async def test_the_user_may_do_nothing_in_another_database(database: MongoDatabase) -> None:
    """What a role may not do is a mistake, not an outage."""
    with pytest.raises(OperationFailure, match="not authorized"), database.call():
        await database.client["admin"]["things"].find_one()


async def test_a_transaction_is_whole_or_not_at_all(database: MongoDatabase) -> None:
    """What raised has left nothing, what returned has left everything."""
    things = database.collection("things")

    async def write(session: Session, fails: bool) -> str:
        await things.insert_one({"_id": "a", "fails": fails}, session=session)
        await things.insert_one({"_id": "b", "fails": fails}, session=session)
        if fails:
            raise LookupError
        return "done"

    with pytest.raises(LookupError):
        await database.transaction(write, True)
    assert await things.count_documents({}) == 0
    assert await database.transaction(write, False) == "done"
    assert {each["_id"] async for each in things.find({"fails": False})} == {"a", "b"}


async def test_a_cancelled_transaction_leaves_nothing(database: MongoDatabase) -> None:
    """A cancel in the middle undoes what was written, and the document is free for the next at once."""
    things = database.collection("things")
    has_written = asyncio.Event()

    async def write(session: Session, waits: bool) -> None:
        await things.insert_one({"_id": "a"}, session=session)
        if waits:
            has_written.set()
            await asyncio.sleep(3_600)

    task = asyncio.create_task(database.transaction(write, True))
    await has_written.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await database.transaction(write, False)
    assert await things.count_documents({}) == 1


async def test_racing_transactions_all_come_through(database: MongoDatabase) -> None:
    """Transactions that lose to each other are run again: ten increments of one number make ten."""
    things = database.collection("things")
    await things.insert_one({"_id": "n", "count": 0})

    async def increment(session: Session) -> None:
        found = await things.find_one({"_id": "n"}, session=session)
        assert found is not None
        await things.update_one({"_id": "n"}, {"$set": {"count": found["count"] + 1}}, session=session)

    await asyncio.gather(*(database.transaction(increment) for _ in range(10)))
    found = await things.find_one({"_id": "n"})
    assert found is not None
    assert found["count"] == 10


async def test_a_conflict_outside_a_retry_is_contention(database: MongoDatabase) -> None:
    """A write into a document that an open transaction has changed is told as contention."""
    things = database.collection("things")
    await things.insert_one({"_id": "n", "count": 0})
    first = await _begun(database)
    second = await _begun(database)
    try:
        await things.update_one({"_id": "n"}, {"$inc": {"count": 1}}, session=first)
        with pytest.raises(TransactionContended), database.call():
            await things.update_one({"_id": "n"}, {"$inc": {"count": 1}}, session=second)
    finally:
        await first.end_session()
        await second.end_session()


async def _begun(database: MongoDatabase) -> Session:
    from runtime.mongo_client import settle

    session: Session = await settle(database.client.start_session())
    await settle(session.start_transaction())
    return session


async def test_a_turn_comes_in_the_order_of_asking(any_driver: MongoSettings) -> None:
    """Of two who share one connection each gets every second turn, however soon the other asks again."""
    database = MongoDatabase(changed(any_driver, pool_max=1, operation_timeout_seconds=30))
    turns: list[str] = []

    async def ask(name: str) -> None:
        for _ in range(20):
            async with database.call():
                await database.client.admin.command("ping")
                turns.append(name)

    try:
        await asyncio.gather(ask("one"), ask("other"))
    finally:
        await database.aclose()
    assert turns == ["one", "other"] * 20


async def test_a_turn_that_does_not_come_in_time_is_an_exhausted_pool(any_driver: MongoSettings) -> None:
    """Whoever waits as long as an operation may take is told so, and has taken nobody's turn."""
    database = MongoDatabase(changed(any_driver, pool_max=1, operation_timeout_seconds=0.2))
    try:
        async with database.call():
            with pytest.raises(PoolExhausted, match=r"no connection was free for 0\.2 s"):
                async with database.call():
                    raise AssertionError("there is one connection")
            waiting = asyncio.create_task(_enter(database))
            await asyncio.sleep(0)
            waiting.cancel()
            await asyncio.wait([waiting])
        await asyncio.wait_for(_enter(database), 30)
    finally:
        await database.aclose()


async def _enter(database: MongoDatabase) -> None:
    async with database.call():
        pass


async def test_a_stream_gives_the_changes_of_a_collection(database: MongoDatabase) -> None:
    """A change made after the stream was opened comes out of it, and a quiet stream gives None."""
    things = database.collection("things")
    await things.insert_one({"_id": 1})
    with database.call():
        stream = await database.watch([], collection="things", max_await_time_ms=50)
        try:
            assert await stream.try_next() is None
            await things.insert_one({"_id": 2})
            change = None
            while change is None:
                change = await stream.try_next()
            assert change["documentKey"] == {"_id": 2}
        finally:
            await stream.close()


async def test_statistics_count_connections(database: MongoDatabase) -> None:
    """They show what is open and lent, and a closed client has nothing open."""
    await database.check()
    shown = database.statistics()
    assert shown.open >= 1
    assert shown.opened >= shown.open
    assert shown.lent == 0
    await database.aclose()
    assert database.statistics().open == 0
    await database.aclose()


@pytest.mark.parametrize("driver", DRIVERS)
async def test_a_server_that_goes_and_comes_back_costs_errors_but_no_restart(
    own_mongo: MongoServer, driver: str
) -> None:
    """While it is away each caller hears so within an operation's time; afterwards the same database works."""
    async with open_mongo_database(own_mongo) as given:
        settings = changed(with_driver(given, driver), operation_timeout_seconds=1.0)
        async with open_mongo(background(), settings) as database:
            await own_mongo.kill()
            for _ in range(3):
                with pytest.raises(DependencyUnavailable):
                    await database.check()
            await own_mongo.start()
            await database.wait_for_connection(background(), 30)
            with database.call():
                await database.collection("things").insert_one({"_id": 1})


@pytest.mark.parametrize("driver", DRIVERS)
async def test_a_frozen_server_holds_nobody_beyond_an_operations_time(own_mongo: MongoServer, driver: str) -> None:
    """Reads, writes and transactions all end while the server is frozen, and work again once it goes on."""

    async def write(session: Session) -> None:
        await opened.collection("things").insert_one({"x": 1}, session=session)

    async def call() -> None:
        with opened.call():
            await opened.collection("things").insert_one({"x": 2})

    async with open_mongo_database(own_mongo) as given:
        settings = changed(with_driver(given, driver), operation_timeout_seconds=1.0)
        async with open_mongo(background(), settings) as opened:
            await opened.transaction(write)
            own_mongo.freeze()
            async with asyncio.timeout(30):
                answers = await asyncio.gather(
                    opened.check(), call(), opened.transaction(write), return_exceptions=True
                )
            assert [type(answer) for answer in answers] == [DependencyUnavailable] * 3
            own_mongo.thaw()
            await opened.wait_for_connection(background(), 30)
            await opened.transaction(write)


async def test_a_primary_that_steps_down_by_force_is_ridden_out(own_mongo: MongoServer) -> None:
    """Alone in its set it is elected again within seconds, and a write that began meanwhile is done once."""
    async with open_mongo_database(own_mongo) as settings, open_mongo(background(), settings) as database:
        await own_mongo.step_down()
        with database.call():
            await database.collection("things").insert_one({"_id": 1})
            assert await database.collection("things").count_documents({}) == 1


@pytest.mark.parametrize("driver", DRIVERS)
async def test_a_rotated_password_needs_no_restart(mongo: MongoServer, tmp_path: Path, driver: str) -> None:
    """When the server refuses the old password the file is read anew, and the same database works on."""
    file = tmp_path / "password"
    async with open_mongo_database(mongo) as given:
        assert given.password is not None
        file.write_text(given.password.get_secret_value())
        settings = changed(with_driver(given, driver), password=None, password_file=file, idle_seconds=0.05)
        async with open_mongo(background(), settings) as database:
            await mongo.create_user(given.database, "another", [{"role": "readWrite", "db": given.database}])
            await asyncio.sleep(0.2)  # the open connections are idle for too long now
            await eventually(lambda: _is_refused(database), seconds=20)
            assert database.statistics().renewed == 0
            file.write_text("another\n")
            await database.wait_for_connection(background(), 20)
            assert database.statistics().renewed == 1
            with database.call():
                await database.collection("things").insert_one({"_id": 1})


async def _is_refused(database: MongoDatabase) -> bool:
    """Ask side by side, so that new connections are needed, and tell whether one was refused for its password."""
    answers = await asyncio.gather(*(database.check() for _ in range(5)), return_exceptions=True)
    return any("Authentication failed" in str(answer) for answer in answers)


@pytest.mark.parametrize("driver", DRIVERS)
async def test_a_server_that_is_not_there_is_awaited_as_long_as_allowed(driver: str) -> None:
    """The wait ends with the last error when its time is up, and at once when its context is cancelled."""
    settings = MongoSettings(
        hosts=("127.0.0.1:9",),
        database="none",
        driver=driver,
        operation_timeout_seconds=0.3,
    )
    with pytest.raises(DependencyUnavailable, match="no connection within"):
        async with open_mongo(background().with_timeout(1.0), settings):
            pass
    ctx = background().with_cancel()
    asyncio.get_running_loop().call_later(0.2, ctx.cancel)
    with pytest.raises(ContextCancelled):
        async with open_mongo(ctx, settings):
            pass


async def test_the_pool_is_among_the_metrics(database: MongoDatabase, monkeypatch: pytest.MonkeyPatch) -> None:
    """Counters and gauges of the one client of a process bear names that begin with lp_."""
    own = CollectorRegistry()
    monkeypatch.setattr("runtime.mongo.registry", own)
    from runtime.mongo import expose_mongo

    expose_mongo(database)
    names = {family.name for family in own.collect()}
    assert {"lp_mongo_pool_open", "lp_mongo_pool_opened"} <= names
