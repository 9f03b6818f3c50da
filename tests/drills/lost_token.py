"""The drill of a lost token: let an oplog forget what a stream has not read, and see what each policy makes of it.

`make drill-lost-token` runs it and tells what happens; the rows C5 of the faults are the same scenes, judged.
"""

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

from pymongo.errors import OperationFailure

from runtime.command import EXIT_FAILED
from sandbox.salesforce import Fault, FaultKind
from sandbox.servers import open_mongo_nodes
from services.consent_consumer.change_stream import CONSENT_MASTER
from services.consent_consumer.record import MASTER_OBJECT, external_id
from services.consent_consumer.store import POSITIONS, MongoConsentStore
from tests.support.consent_consumer_process import GONE, OBJECTS, ConsentWorld, Content, content_in, content_of, master
from tests.support.consent_judge import finish_consents, judge_positions, wait_carried
from tests.support.consent_members import ConsentMembers
from tests.support.consent_world import PATIENT, open_consents
from tests.support.consumer_judge import stop_and_judge
from tests.support.eventually import eventually
from tests.support.judgement import Judgement, Rule, judge
from tests.support.service_process import ServiceProcess

Tell = Callable[[str], None]

RESYNC: Final = {"ON_LOST_TOKEN": "resync"}
SLOW: Final = {"IN_FLIGHT_MAX": "20", "BATCH_EVENTS": "20"}
"""Little is read ahead, so that a stream which is held up has most of its changes still before it."""

_OPLOG_MB: Final = 5
_NOISE_BYTES: Final = 1_000_000
_FORGOTTEN_SECONDS: Final = 180
_AWAY_TOO_LONG: Final = 286
_READ_TOO_SLOWLY: Final = 136
_LEFT_OUT: Final = 3


@asynccontextmanager
async def open_forgetful(directory: Path) -> AsyncIterator[tuple[ConsentWorld, ConsentMembers]]:
    """Open a world on a MongoDB that remembers few changes."""
    async with (
        open_mongo_nodes(1, oplog_mb=_OPLOG_MB) as nodes,
        open_consents(nodes, directory) as (world, members),
    ):
        yield world, members


async def roll_over(
    world: ConsentWorld,
    *,
    behind: Mapping[str, Any],  # Any: BSON
    tell: Tell,
    stream: str = CONSENT_MASTER,
) -> None:
    """Write beside the consents until the oplog has no more what came behind a stream's token; it takes a minute."""
    tell(f"the oplog holds {_OPLOG_MB} MB: other collections are written to until it has forgotten")
    noise = world.database.collection("noise")

    async def is_forgotten() -> bool:
        with world.database.call():
            await noise.insert_many([{"x": "x" * _NOISE_BYTES} for _ in range(5)])
        return await _is_lost(world, stream, behind)

    await eventually(is_forgotten, seconds=_FORGOTTEN_SECONDS, pause_seconds=0.2)


async def away_too_long(directory: Path, tell: Tell) -> Judgement:
    """Stop the consumer for longer than the oplog reaches back (286), and try each policy on that same loss."""
    async with open_forgetful(directory) as (world, members):
        async with world.consumer(**PATIENT) as consumer:
            await consumer.wait_event("Change stream started", count=2)
            await members.act_times(100)
            await wait_carried(world, members)
            ended, _ = await stop_and_judge(consumer)
        tell("the consumer has carried everything and is stopped; members go on")
        await members.act_times(100)
        await roll_over(world, behind=await token_of(world), tell=tell)
        lost = await _positions(world)
        ended |= await _fail(world, _AWAY_TOO_LONG, tell)
        kept = [_place(each) for each in lost] == [_place(each) for each in await _positions(world)]
        ended |= judge(Rule.PROGRESS_SAVED, [] if kept else ["a lost position was moved"])
        ended |= await _resync(world, members, tell)
        tell("the positions are put back to where they were lost, for the third policy")
        for position in lost:
            await world.database.collection(POSITIONS).replace_one({"_id": position["_id"]}, position)
        return ended | await _skip(world, members, tell)


async def read_too_slowly(directory: Path, tell: Tell) -> Judgement:
    """Hold a stream that is open up for longer than the oplog reaches back (136), and have it resynced."""
    async with open_forgetful(directory) as (world, members):
        async with world.consumer(**PATIENT, **SLOW) as consumer:
            await consumer.wait_event("Change stream started", count=2)
            await members.act_times(20)
            await wait_carried(world, members)
            world.salesforce.faults.switch_on(Fault(kind=FaultKind.UNAVAILABLE))
            tell("Salesforce is down; members go on, and the consumer reads no further than it may")
            await members.act_times(400)
            await consumer.wait_metrics(**{'lp_consent_master_held{name="default"}': float(SLOW["IN_FLIGHT_MAX"])})
            await roll_over(world, behind=await token_of(world), tell=tell)
            world.salesforce.faults.clear()
            tell("Salesforce is back")
            ended = await _judge_failure(consumer, _READ_TOO_SLOWLY, tell)
        return ended | await _resync(world, members, tell)


async def token_of(world: ConsentWorld, stream: str = CONSENT_MASTER) -> Mapping[str, Any]:  # Any: BSON
    """Return a stream's stored token.

    Raises:
        LookupError: It has none yet.
    """
    saved = await MongoConsentStore(world.database).find_position(stream)
    if saved is None or saved.position is None or saved.position.token is None:
        raise LookupError(f"{stream} has no token yet")
    return saved.position.token


async def _fail(world: ConsentWorld, code: int, tell: Tell) -> Judgement:
    """By default the process ends, says why and what may be done, and does so again at each start."""
    tell("policy fail, the default, started twice:")
    judgement = Judgement()
    for _ in range(2):
        async with world.consumer(**PATIENT) as consumer:
            judgement |= await _judge_failure(consumer, code, tell)
    await _tell_positions(world, tell)
    return judgement


async def _judge_failure(consumer: ServiceProcess, code: int, tell: Tell) -> Judgement:
    """See the process end with 1 and a line that names the code and the ways out (L8)."""
    status = await consumer.process.wait(90)
    failures = [str(line["error"]) for line in consumer.log() if line["event"] == "Change streams failed"]
    tell(f"  status {status}: {'; '.join(failures) or 'no word of a failure'}")
    wanted = ("PositionLostError", f"(code {code})", "resync, or skip")
    is_told = len(failures) == 1 and all(word in failures[0] for word in wanted)
    return judge(Rule.RIGHT_END, [] if is_told and status == EXIT_FAILED else [f"{status}, {failures}, not {code}"])


async def _resync(world: ConsentWorld, members: ConsentMembers, tell: Tell) -> Judgement:
    """Read both collections whole: Salesforce is as MongoDB is, and the streams go on from there."""
    tell("policy resync:")
    async with world.consumer(**PATIENT, **RESYNC) as consumer:
        await consumer.wait_event("A collection was read as a whole", count=2, seconds=90)
        await members.act_times(50)
        judgement = await finish_consents(world, members, consumer)
        for line in consumer.log():
            if line["event"] == "A collection was read as a whole":
                tell(f"  {line['stream']} was read as a whole, {line['marked_deleted']} records marked as deleted")
    await world.wait_agreed()
    await _tell_positions(world, tell)
    await _tell_difference(world, tell)
    return judgement


async def _skip(world: ConsentWorld, members: ConsentMembers, tell: Tell) -> Judgement:
    """Leave out, by an operator's word that is kept, what was missed; nothing but that differs, for ever."""
    tell("policy skip, an operator's command:")
    left_out = [f"left out {number}" for number in range(_LEFT_OUT)]
    for document_id in left_out:
        await members.put(CONSENT_MASTER, master(document_id))
    refused = []
    for stream in OBJECTS:
        done = await world.command("skip", "--stream", stream, "--by", "a drill", "--reason", "the oplog is gone")
        tell(f"  {done.stdout.strip()}")
        refused += [f"skip of {stream} ended with {done.returncode}"] if done.returncode else []
    async with world.consumer(**PATIENT) as consumer:
        await consumer.wait_event("Change stream started", count=2)
        await members.put(CONSENT_MASTER, master("carried"))
        await eventually(lambda: "s:carried" in world.salesforce.records(MASTER_OBJECT), seconds=60)
        ended, _ = await stop_and_judge(consumer)
    await _tell_positions(world, tell)
    differing = await _tell_difference(world, tell)
    wrong = [] if differing == sorted(f"s:{one}" for one in left_out) else [f"{differing} differ, not {left_out}"]
    return ended | judge(Rule.RIGHT_END, refused) | judge(Rule.NOTHING_LOST, wrong) | await judge_positions(world)


async def _is_lost(world: ConsentWorld, name: str, token: Mapping[str, Any]) -> bool:  # Any: BSON
    try:
        with world.database.call():
            stream = await world.database.watch([], collection=name, resume_after=token)
            await stream.close()
    except OperationFailure as error:
        if error.code != _AWAY_TOO_LONG:
            raise
        return True
    return False


async def _positions(world: ConsentWorld) -> list[Content]:
    return await world.database.collection(POSITIONS).find(sort=[("_id", 1)]).to_list(None)


def _place(position: Content) -> tuple[object, ...]:
    return position["token"], position["cluster_time"], position["saved_at"]


async def _tell_positions(world: ConsentWorld, tell: Tell) -> None:
    for line in (await world.command("positions")).stdout.splitlines():
        tell(f"  {line}")


async def _tell_difference(world: ConsentWorld, tell: Tell) -> list[str]:
    """Tell what Salesforce has against MongoDB, and return the external ids that differ."""
    differing: list[str] = []
    for stream, kind in OBJECTS.items():
        found = world.database.collection(stream).find()
        documents = {external_id(document["_id"]): content_of(document) async for document in found}
        records = {key: content_in(record.fields) for key, record in world.salesforce.records(kind).items()}
        living = {key: content for key, content in records.items() if content != GONE}
        unequal = sorted(key for key in documents.keys() | living.keys() if documents.get(key) != living.get(key))
        tell(f"  {stream}: {len(documents)} documents, {len(living)} living records, {len(unequal)} differ {unequal}")
        differing += unequal
    return differing
