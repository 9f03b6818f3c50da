"""Judge consent_consumer: what MongoDB promised of each document, against what Salesforce was told and what is dead.

The last state of each document has to have arrived, or to lie among the dead letters (L1), and to be what its record
holds; no record may be marked as deleted whose document nobody deleted since, dead letter or not (L4). A document has
one record, whose versions never fall (L2), and nothing was ever told that no document was (L3). Each stored position
stands behind the last event of its stream (L5).
"""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Final

from bson import Timestamp

from runtime.mongo import ChangeStream, MongoDatabase
from sandbox.salesforce.applied_log import Applied
from services.consent_consumer.change_stream import (
    CONSENT_DETAIL,
    CONSENT_MASTER,
    consent_detail_stream,
    consent_master_stream,
)
from services.consent_consumer.record import external_id, version
from services.consent_consumer.store import DEAD_LETTERS, POSITIONS, MongoConsentStore
from tests.support.consent_consumer_process import GONE, OBJECTS, ConsentWorld, State, content_in, content_of
from tests.support.consent_members import ConsentMembers, Key
from tests.support.consumer_judge import stop_and_judge
from tests.support.eventually import eventually
from tests.support.judgement import Judgement, Rule, judge, judge_progress
from tests.support.service_process import ServiceProcess

_OPEN: Final = {CONSENT_MASTER: consent_master_stream, CONSENT_DETAIL: consent_detail_stream}
_STREAMS: Final = {kind: stream for stream, kind in OBJECTS.items()}


@dataclass(frozen=True, slots=True)
class Letter:
    """A dead letter; `state` is None for an event that was too large to come with its document."""

    at_version: int
    state: State | None


@dataclass(frozen=True, slots=True)
class Fate:
    """What became of one document: all that Salesforce took of it, in order, its record now, its dead letters."""

    applied: list[Applied] = field(default_factory=list)
    record: list[Mapping[str, Any]] = field(default_factory=list)  # Any: JSON; one, or none
    letters: list[Letter] = field(default_factory=list)

    def arrived(self, right: frozenset[State]) -> bool:
        """Say whether one of these states was ever taken, or is dead, or asks for no record and has none."""
        told = {content_in(one.fields) for one in self.applied}
        return bool(told & right) or self._is_dead(right, 0) or (GONE in right and not self.applied)

    def stands(self, right: frozenset[State]) -> bool:
        """Say whether the record holds one of these states, or one of them is a dead letter that is newer."""
        return not self.record or any(
            content_in(record) in right or self._is_dead(right, record["Version__c"]) for record in self.record
        )

    @property
    def is_marked(self) -> bool:
        """Whether the record is marked as deleted."""
        return any(content_in(record) == GONE for record in self.record)

    @property
    def last_living(self) -> State | None:
        """The last state but a deletion that Salesforce took; None if there was none."""
        living = [told for one in self.applied if (told := content_in(one.fields)) != GONE]
        return living[-1] if living else None

    def _is_dead(self, right: frozenset[State], above: int) -> bool:
        return any(one.at_version > above and (one.state is None or one.state in right) for one in self.letters)


async def judge_consents(world: ConsentWorld, members: ConsentMembers) -> Judgement:
    """Hold what members were promised against Salesforce and the dead letters (L1 to L4)."""
    fates = await _fates(world)
    documents = await _documents(world.database)
    lost: list[str] = []
    wrong: list[str] = []
    for key in sorted(members.keys):
        right, found = members.right(key), documents.get(key, GONE)
        if found not in right:
            lost.append(f"{_name(key)}: MongoDB has {found} instead of {set(right)}")
        elif key not in members.dropped:
            right = frozenset({found})
        fate = fates[key]
        if not fate.arrived(right):
            lost.append(f"{_name(key)}: {set(right)} never arrived")
        if fate.is_marked and not members.deleted_since(key, fate.last_living):
            wrong.append(f"{_name(key)}: is marked as deleted, and nobody deleted it since {fate.last_living}")
        elif not fate.stands(right):
            wrong.append(f"{_name(key)}: holds {[content_in(one) for one in fate.record]} instead of {set(right)}")
    doubled = [line for key, fate in fates.items() for line in _doubled(_name(key), fate.applied)]
    invented = [line for key, fate in fates.items() for line in _invented(key, fate, members.attempted(key))]
    return Judgement(
        {
            Rule.NOTHING_LOST: tuple(lost),
            Rule.NOTHING_DOUBLED: tuple(doubled),
            Rule.NOTHING_INVENTED: tuple(invented),
            Rule.RIGHT_CONTENT: tuple(wrong),
        }
    )


async def judge_positions(world: ConsentWorld) -> Judgement:
    """Look whether a stream opened at each stored position has nothing to give (L5); stop the consumer first."""
    left = await asyncio.gather(*(_left(world.database, stream) for stream in OBJECTS))
    expected = dict.fromkeys((f"{stream}, events behind its position" for stream in OBJECTS), "0")
    return judge_progress(expected, dict(zip(expected, left, strict=True)))


async def wait_carried(world: ConsentWorld, members: ConsentMembers, *, seconds: float = 90) -> None:
    """Wait until the last state of every document has arrived and stands, or is dead."""

    async def is_carried() -> bool:
        return not (await judge_consents(world, members)).failed(Rule.NOTHING_LOST, Rule.RIGHT_CONTENT)

    try:
        await eventually(is_carried, seconds=seconds, pause_seconds=0.2)
    except TimeoutError as error:
        error.add_note(str(await judge_consents(world, members))[:2_000])
        raise


async def finish_consents(world: ConsentWorld, members: ConsentMembers, consumer: ServiceProcess) -> Judgement:
    """Wait until all has arrived and is behind both positions, stop the consumer, and judge (L1 to L5, L7, L8).

    A document that was made and taken back while Salesforce refused it counts as arrived, and may still be on its way:
    a stop leaves it to the next start, and the position before it. So the positions are waited for as well.
    """
    await wait_carried(world, members)
    with suppress(TimeoutError):  # the judge tells how far they came
        await eventually(lambda: _is_behind_all(world), seconds=60, pause_seconds=0.2)
    ended, _ = await stop_and_judge(consumer)
    return ended | await judge_consents(world, members) | await judge_positions(world)


async def _is_behind_all(world: ConsentWorld) -> bool:
    return (await judge_positions(world)).is_ok


def replays(world: ConsentWorld, stream: str | None = None) -> int:
    """Count what Salesforce was told again, of one stream or of both: the same version of the same record."""
    kind = None if stream is None else OBJECTS[stream]
    applied = (one for one in world.salesforce.applied() if kind in (None, one.type))
    told = [(one.type, one.external_id, one.fields["Version__c"]) for one in applied]
    return len(told) - len(set(told))


@dataclass(frozen=True, slots=True)
class Save:
    """A change of a stored position: by whom it is held, and where it stands, as far as that changed."""

    stream: str
    fence: int | None
    cluster_time: Timestamp | None
    token: str | None


@asynccontextmanager
async def recorded_saves(world: ConsentWorld) -> AsyncIterator[list[Save]]:
    """Have the list of every change of a position on leaving, as MongoDB's own log tells them."""
    saves: list[Save] = []
    begin = await MongoConsentStore(world.database).cluster_time()
    yield saves
    with world.database.call():
        stream = await world.database.watch([], collection=POSITIONS, start_at_operation_time=begin)
        saves += [_save(event) for event in await _drain(stream)]


def judge_saves(saves: Sequence[Save]) -> Judgement:
    """Look whether fences, cluster times and tokens of each stream never went back (L5)."""
    backward: list[str] = []
    for name in ("fence", "cluster_time", "token"):
        last: dict[str, Any] = {}  # Any: each of the three has an order of its own
        for save in saves:
            value = getattr(save, name)
            if value is not None:
                if save.stream in last and value < last[save.stream]:
                    backward.append(f"{save.stream}: {name} {value} came after {last[save.stream]}")
                last[save.stream] = value
    return judge(Rule.PROGRESS_SAVED, backward)


async def _fates(world: ConsentWorld) -> defaultdict[Key, Fate]:
    fates: defaultdict[Key, Fate] = defaultdict(Fate)
    for one in world.salesforce.applied():
        fates[_STREAMS[one.type], one.external_id].applied.append(one)
    for stream, kind in OBJECTS.items():
        for known_as, record in world.salesforce.records(kind).items():
            fates[stream, known_as].record.append(record.fields)
    async for letter in world.database.collection(DEAD_LETTERS).find():
        event = letter["event"]
        key = letter["stream"], external_id(event["documentKey"]["_id"])
        fates[key].letters.append(Letter(version(event["clusterTime"]), _state_in(event)))
    return fates


def _state_in(event: Mapping[str, Any]) -> State | None:  # Any: BSON
    if "fullDocument" not in event:
        return GONE if event["operationType"] == "delete" else None
    document = event["fullDocument"]
    return GONE if document is None else content_of(document)


async def _documents(database: MongoDatabase) -> dict[Key, State]:
    return {
        (stream, external_id(document["_id"])): content_of(document)
        for stream in OBJECTS
        async for document in database.collection(stream).find()
    }


def _doubled(name: str, applied: Sequence[Applied]) -> Iterator[str]:
    ids = {one.id for one in applied}
    if len(ids) > 1 or sum(one.is_created for one in applied) > 1:
        yield f"{name} has the records {sorted(ids)}"
    versions = [one.fields["Version__c"] for one in applied]
    if versions != sorted(versions):
        yield f"{name} was told an older version after a newer one: {versions}"


def _invented(key: Key, fate: Fate, attempted: frozenset[State]) -> Iterator[str]:
    told = {content_in(one.fields) for one in fate.applied}
    told |= {one.state for one in fate.letters if one.state is not None}
    if not attempted:
        yield f"{_name(key)} is there and nobody asked for it"
    elif told - attempted:
        yield f"{_name(key)} was told {told - attempted}, which it never was"


async def _left(database: MongoDatabase, stream: str) -> str:
    """Return how many events come behind a stored position, or that there is none."""
    saved = await MongoConsentStore(database).find_position(stream)
    if saved is None or saved.position is None:
        return "no position"
    with database.call():
        return str(len(await _drain(await _OPEN[stream](database, saved.position, 200))))


async def _drain(stream: ChangeStream) -> list[Mapping[str, Any]]:  # Any: BSON
    """Return all events that a stream has to give now: it answers None when it has come to the end of the oplog."""
    events: list[Mapping[str, Any]] = []
    try:
        while (event := await stream.try_next()) is not None:
            events.append(event)
    finally:
        await stream.close()
    return events


def _save(event: Mapping[str, Any]) -> Save:  # Any: BSON
    changed = event.get("fullDocument") or event["updateDescription"]["updatedFields"]
    token = changed.get("token")
    return Save(
        event["documentKey"]["_id"],
        changed.get("fence"),
        changed.get("cluster_time"),
        None if token is None else token["_data"],
    )


def _name(key: Key) -> str:
    return f"{key[0]} {key[1]}"
