"""A position that the server refuses: with which code, and what a stream makes of it."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest

from patterns import background
from runtime.mongo import MongoDatabase, open_mongo
from runtime.mongo_settings import MongoSettings
from sandbox.servers import open_mongo_nodes
from services.consent_consumer.change_stream import (
    CONSENT_DETAIL,
    CONSENT_MASTER,
    Change,
    ChangeReader,
    consent_master_stream,
)
from services.consent_consumer.errors import PositionLostError
from services.consent_consumer.position import StreamLedger
from services.consent_consumer.settings import RetrySettings
from services.consent_consumer.store import MongoConsentStore, Position
from services.consent_consumer.watch import reached
from tests.support.consent_consumer_process import detail, master
from tests.support.eventually import eventually
from tests.support.mongo_settings import open_mongo_database
from tests.support.servers import embedded_only

_CAPPED_POSITION_LOST, _INVALID_RESUME_TOKEN, _STREAM_FATAL, _HISTORY_LOST = 136, 260, 280, 286
_UNUSABLE = "its position cannot be used"
_GONE = "the changes behind its position are gone"
_RETRY = RetrySettings(first_seconds=0.05, most_seconds=0.5)
_MEGABYTE = 1_000_000


@pytest.fixture
async def database(any_driver: MongoSettings) -> AsyncIterator[MongoDatabase]:
    """A database with both collections in it."""
    async with open_mongo(background(), any_driver) as opened:
        await opened.collection(CONSENT_MASTER).insert_one(master("before"))
        await opened.collection(CONSENT_DETAIL).insert_one(detail("of before", "before"))
        yield opened


@asynccontextmanager
async def reading(database: MongoDatabase, stream: str, position: Position) -> AsyncIterator[ChangeReader]:
    """Read a stream from a position, one event at a time."""
    ledger = StreamLedger(1_000, position)
    reader = ChangeReader(database, stream, ledger, position, events_max=1, retry=_RETRY)
    try:
        yield reader
    finally:
        await reader.aclose()


async def read_one(database: MongoDatabase, stream: str, position: Position) -> Change:
    """Return the next change behind a position, which has to be there within half a minute."""
    async with asyncio.timeout(30), reading(database, stream, position) as reader:
        return await reader.read(background())


async def read_all(reader: ChangeReader, count: int) -> None:
    """Read so many changes, which have to be there within half a minute."""
    async with asyncio.timeout(30):
        for _ in range(count):
            await reader.read(background())


async def now(database: MongoDatabase) -> Position:
    """Return the place where no change has been yet."""
    return Position(await MongoConsentStore(database).cluster_time(), None)


async def test_the_token_of_an_invalidate_opens_a_stream_only_as_what_it_is(database: MongoDatabase) -> None:
    """Taken for another event's it is refused as 260 and cannot be used; told apart it gives what came after."""
    masters = database.collection(CONSENT_MASTER)
    stream = await consent_master_stream(database, await now(database), 1)
    await masters.drop()
    event: Mapping[str, Any] | None = None

    async def is_invalidated() -> bool:
        nonlocal event
        event = await stream.try_next()
        return event is not None and event["operationType"] == "invalidate"

    await eventually(is_invalidated, seconds=30)
    await stream.close()
    await masters.insert_one(master("after"))
    assert event is not None
    token = dict(event["_id"])

    with pytest.raises(PositionLostError, match=_UNUSABLE) as raised:
        await read_one(database, CONSENT_MASTER, Position(event["clusterTime"], token))
    assert (raised.value.code, raised.value.is_history_lost) == (_INVALID_RESUME_TOKEN, False)
    change = await read_one(database, CONSENT_MASTER, Position(event["clusterTime"], token, is_invalidate=True))
    assert change.document_id == "after"


async def test_the_token_of_another_stream_is_not_found(database: MongoDatabase) -> None:
    """It is refused as 280: a stream does not begin anywhere near it instead."""
    begin = await now(database)
    await database.collection(CONSENT_DETAIL).insert_one(detail("d", "before"))
    await database.collection(CONSENT_MASTER).insert_one(master("later"))
    event = (await read_one(database, CONSENT_DETAIL, begin)).event

    with pytest.raises(PositionLostError, match=_UNUSABLE) as raised:
        await read_one(database, CONSENT_MASTER, Position(event["clusterTime"], dict(event["_id"])))
    assert raised.value.code == _STREAM_FATAL


async def test_a_damaged_token_cannot_be_used(database: MongoDatabase) -> None:
    """Cut off, changed, or of another type: it ends the stream with words about the position, not about the history."""
    begin = await now(database)
    await database.collection(CONSENT_MASTER).insert_one(master("a"))
    event = (await read_one(database, CONSENT_MASTER, begin)).event
    data = dict(event["_id"])["_data"]
    damaged: list[tuple[Mapping[str, Any], int]] = [
        ({"_data": "no number"}, 9),
        ({"_data": data[:20]}, 15),
        ({"_data": 5}, 40_647),
        ({}, 40_647),
        ({"_data": ""}, 40_649),
        ({"_data": f"FF{data[2:]}"}, 50_811),
    ]
    for token, code in damaged:
        with pytest.raises(PositionLostError, match=_UNUSABLE) as raised:
            await read_one(database, CONSENT_MASTER, Position(event["clusterTime"], token))
        assert (raised.value.code, raised.value.is_history_lost) == (code, False), token


@embedded_only
@pytest.mark.thorough
@pytest.mark.timeout(300)
async def test_what_the_oplog_forgets_is_seen_coming_and_then_told() -> None:
    """On a small oplog: a stream read too slowly is refused as 136, one opened too late as 286; both are told as gone.

    And the watch's numbers agree with the server: the position is within the oplog before, and beyond it then.
    """
    async with (
        open_mongo_nodes(1, oplog_mb=5) as (server,),
        open_mongo_database(server) as settings,
        open_mongo(background(), settings) as database,
    ):
        store = MongoConsentStore(database)
        begin = await now(database)
        await database.collection(CONSENT_MASTER).insert_many([master(number) for number in range(50)])
        async with reading(database, CONSENT_MASTER, begin) as slow:
            first = await slow.read(background())
            position = Position(first.event["clusterTime"], dict(first.event["_id"]))
            assert (await store.oplog_span()).first < reached(position) < (await store.oplog_span()).last

            async def is_beyond() -> bool:
                await database.collection("noise").insert_many([{"x": "x" * _MEGABYTE} for _ in range(5)])
                return reached(position) < (await store.oplog_span()).first

            await eventually(is_beyond, seconds=120, pause_seconds=0.2)
            with pytest.raises(PositionLostError, match=_GONE) as raised:
                await read_all(slow, 50)
            assert (raised.value.code, raised.value.is_history_lost) == (_CAPPED_POSITION_LOST, True)
        with pytest.raises(PositionLostError, match=_GONE) as raised:
            await read_one(database, CONSENT_MASTER, position)
        assert (raised.value.code, raised.value.is_history_lost) == (_HISTORY_LOST, True)
