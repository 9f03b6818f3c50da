"""A stream whose changes are gone from the oplog: what each policy makes of that."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from pymongo.errors import OperationFailure

from patterns import background
from runtime.mongo import MongoDatabase, open_mongo
from sandbox.servers import open_mongo_nodes
from services.consent_consumer.change_stream import consent_master_stream
from services.consent_consumer.record import MASTER_OBJECT
from services.consent_consumer.store import MongoConsentStore
from tests.support.consent_consumer_process import ConsentWorld, detail, master, open_consent_world
from tests.support.eventually import eventually
from tests.support.mongo_settings import open_mongo_database
from tests.support.salesforce import open_sandbox
from tests.support.servers import embedded_only

pytestmark = [embedded_only, pytest.mark.timeout(300)]

_HISTORY_LOST = 286
_MEGABYTE = 1_000_000


@asynccontextmanager
async def open_lost(directory: Path) -> AsyncIterator[ConsentWorld]:
    """Give a world whose consumer stopped, and whose oplog has since forgotten all that the consumer had not read."""
    async with (
        open_mongo_nodes(1, oplog_mb=5) as (server,),
        open_mongo_database(server) as settings,
        open_mongo(background(), settings) as database,
        open_sandbox(directory) as (salesforce, _),
        open_consent_world(database, settings, salesforce, directory) as world,
    ):
        async with world.consumer() as consumer:
            await consumer.wait_event("Change stream started", count=2)
            await world.masters.insert_many([master("kept"), master("gone")])
            await world.details.insert_one(detail("of kept", "kept"))
            await world.wait_agreed()
            assert await consumer.process.stop(grace_seconds=40) == 0
        await world.masters.delete_one({"_id": "gone"})
        await world.masters.insert_one(master("missed"))

        async def is_forgotten() -> bool:
            await database.collection("noise").insert_many([{"x": "x" * _MEGABYTE} for _ in range(5)])
            return await _is_lost(database)

        await eventually(is_forgotten, seconds=120, pause_seconds=0.2)
        yield world


async def _is_lost(database: MongoDatabase) -> bool:
    found = await MongoConsentStore(database).find_position("consent_master")
    assert found is not None
    assert found.position is not None
    try:
        with database.call():
            stream = await consent_master_stream(database, found.position, 1)
            await stream.close()
    except OperationFailure as error:
        if error.code != _HISTORY_LOST:
            raise
        return True
    return False


async def test_each_policy_does_with_a_lost_position_what_it_says(tmp_path: Path) -> None:
    """One after the other on the same loss, since it takes MongoDB a minute to forget."""
    async with open_lost(tmp_path) as world:
        positions = world.database.collection("consent_positions")
        lost = await positions.find().to_list(None)
        await _fail(world)
        kept = await positions.find().to_list(None)
        assert [(each["token"], each["saved_at"]) for each in kept] == [(e["token"], e["saved_at"]) for e in lost]
        await _resync(world)
        for position in lost:
            await positions.replace_one({"_id": position["_id"]}, position)
        await _skip(world)


async def _fail(world: ConsentWorld) -> None:
    """By default the process ends with 1 and a line that names the ways out, and each further start says the same."""
    for _ in range(2):
        async with world.consumer() as consumer:
            assert await consumer.process.wait(60) == 1
            failure = next(line for line in consumer.log() if line["event"] == "Change streams failed")
            assert "PositionLostError" in failure["error"]
            assert "resync, or skip" in failure["error"]
    assert "s:missed" not in world.salesforce.records(MASTER_OBJECT)


async def _resync(world: ConsentWorld) -> None:
    """What was missed is carried, what has gone is marked, and the stream goes on from there."""
    async with world.consumer(ON_LOST_TOKEN="resync") as consumer:  # noqa: S106 - a policy
        await world.wait_agreed(seconds=60)
        assert world.salesforce.records(MASTER_OBJECT)["s:gone"].fields["Deleted__c"] is True
        await consumer.wait_event("A collection was read as a whole", count=2)
        await world.masters.insert_one(master("later"))
        await world.wait_agreed()
        assert await consumer.process.stop(grace_seconds=40) == 0


async def _skip(world: ConsentWorld) -> None:
    """By an operator's decision what comes from then on is carried, and what was missed never is."""
    await world.masters.insert_one(master("left out"))
    for stream in ("consent_master", "consent_detail"):
        skipped = await world.command("skip", "--stream", stream, "--by", "a drill", "--reason", "the oplog is gone")
        assert skipped.returncode == 0, skipped.stdout + skipped.stderr
    async with world.consumer() as consumer:
        await consumer.wait_event("Change stream started", count=2)
        await world.masters.insert_one(master("carried"))
        await eventually(lambda: "s:carried" in world.salesforce.records(MASTER_OBJECT), seconds=40)
        assert await consumer.process.stop(grace_seconds=40) == 0
    assert "s:left out" not in world.salesforce.records(MASTER_OBJECT)
