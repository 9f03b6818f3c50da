"""A stream that an administrator kills at the server: it goes on from where it stood."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from patterns import ErrorGroup, background
from runtime.mongo import open_mongo
from runtime.mongo_settings import MongoSettings
from sandbox.servers import MongoServer
from services.consent_consumer.change_stream import CONSENT_MASTER, ChangeReader
from services.consent_consumer.position import StreamLedger
from services.consent_consumer.settings import RetrySettings
from services.consent_consumer.store import MongoConsentStore, Position
from tests.support.consent_consumer_process import master
from tests.support.eventually import eventually

_KILLS = 3
_RETRY = RetrySettings(first_seconds=0.05, most_seconds=0.5)

Operation = dict[str, Any]  # Any: BSON
Client = Any  # the driver's, as a server's own administrator has it
Kill = Callable[[Client, str, Operation], Awaitable[object]]


async def kill_operation(administrator: Client, _: str, operation: Operation) -> None:
    """Interrupt the question under way: the server answers 11601."""
    await administrator.admin.command("killOp", op=operation["opid"])


async def kill_cursor(administrator: Client, database: str, operation: Operation) -> None:
    """Take the cursor away: the question under way is answered 237, and a later one 43."""
    cursor = operation["cursor"]["cursorId"]
    await administrator[database].command("killCursors", CONSENT_MASTER, cursors=[cursor])


@pytest.mark.parametrize("kill", [kill_operation, kill_cursor])
async def test_a_stream_that_is_killed_goes_on_from_where_it_stood(
    mongo: MongoServer, any_driver: MongoSettings, kill: Kill
) -> None:
    """The error says nothing of the position: each change is read once, in its order, killed in between or not."""
    async with open_mongo(background(), any_driver) as database, mongo.connect() as administrator:
        await database.collection(CONSENT_MASTER).insert_one(master("before"))
        begin = Position(await MongoConsentStore(database).cluster_time(), None)
        reader = ChangeReader(database, CONSENT_MASTER, StreamLedger(1_000, begin), begin, events_max=10, retry=_RETRY)
        found: list[object] = []
        async with ErrorGroup(background()) as group:
            await group.go(read_numbers, reader, found)
            for number in range(_KILLS):
                await kill_until_opened_anew(administrator, database.name, kill)
                await database.collection(CONSENT_MASTER).insert_one(master(number))
        await reader.aclose()
    assert found == list(range(_KILLS))


async def read_numbers(reader: ChangeReader, found: list[object]) -> None:
    """Read one change a kill, each within a minute."""
    for _ in range(_KILLS):
        async with asyncio.timeout(60):
            found.append((await reader.read(background())).document_id)


async def kill_until_opened_anew(administrator: Client, database: str, kill: Kill) -> None:
    """Kill what the stream asks the server, until it asks by another cursor."""
    under_way = [
        {"$currentOp": {"allUsers": True}},
        # A question that has just come, or is over, is listed without its cursor.
        {"$match": {"ns": f"{database}.{CONSENT_MASTER}", "op": "getmore", "cursor.cursorId": {"$exists": True}}},
    ]
    first: object = None

    async def is_another() -> bool:
        nonlocal first
        async for operation in await administrator.admin.aggregate(under_way):
            cursor = operation["cursor"]["cursorId"]
            first = first or cursor
            if cursor != first:
                return True
            await kill(administrator, database, operation)
        return False

    await eventually(is_another, seconds=30, pause_seconds=0.05)
