"""A write of a consent is in the journal whatever becomes of it, and the journal is never a lie."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from enum import Enum
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pymongo.errors import AutoReconnect, DuplicateKeyError, OperationFailure

from patterns import background, bubble
from runtime.mongo import Document
from sandbox.consent_books import ConsentBooks
from sandbox.consent_document import DETAILS, MASTERS, content_of, name_of
from sandbox.consent_writer import ConsentWriter, OwnDocument, WriterStatistics
from sandbox.document_database import Database
from sandbox.document_holdings import DocumentHoldings
from sandbox.journal import Journal, Record, Seed, read_journal

SEED = Seed({"m-1": 1}, {})
BEGIN = datetime(2026, 3, 1, tzinfo=UTC)


class Fate(Enum):
    """What becomes of one call."""

    ANSWERED = "answered"
    DONE_WITHOUT_ANSWER = "done without an answer"
    LOST = "lost"
    LATE = "done late: after the next call"
    LATER = "done later still: after the next write"
    REFUSED = "refused by the server, for good"


class _Collection:
    """A collection of documents whose calls meet what a list says, one after another; then all are answered."""

    def __init__(self, fates: Iterator[Fate]) -> None:
        self.documents: dict[object, Document] = {}
        self.calls: list[str] = []
        self._fates = fates
        self._late: list[tuple[Fate, Callable[[], object]]] = []

    async def insert_one(self, document: Document) -> None:
        """Insert, unless the id is taken."""

        def insert() -> None:
            if document["_id"] in self.documents:
                raise DuplicateKeyError("E11000")
            self.documents[document["_id"]] = dict(document)

        await self._call("insert", insert)

    async def update_one(self, query: Document, update: Document) -> object:
        """Set some fields of what meets the query."""
        return await self._put("update", query, lambda found: {**found, **update["$set"]})

    async def replace_one(self, query: Document, document: Document) -> object:
        """Replace what meets the query."""
        return await self._put("replace", query, lambda found: {"_id": found["_id"], **document})

    async def delete_one(self, query: Document) -> object:
        """Delete what meets the query."""
        return await self._put("delete", query, lambda _: None)

    async def find_one(self, query: Document) -> Document | None:
        """Return the document of an id."""
        found: Document | None = await self._call("find", lambda: self.documents.get(query["_id"]))
        return None if found is None else dict(found)

    async def _put(self, name: str, query: Document, change: Callable[[Document], Document | None]) -> object:
        def put() -> int:
            found = self.documents.get(query["_id"])
            if found is None or any(found.get(field) != value for field, value in query.items()):
                return 0
            changed = change(found)
            if changed is None:
                del self.documents[query["_id"]]
            else:
                self.documents[query["_id"]] = changed
            return 1

        count = await self._call(name, put)
        return SimpleNamespace(matched_count=count, deleted_count=count)

    async def _call(self, name: str, work: Callable[[], Any]) -> Any:  # noqa: ANN401 - whatever the call gives
        self.calls.append(name)
        await asyncio.sleep(0.001)
        fate = next(self._fates, Fate.ANSWERED)
        if fate is Fate.REFUSED:
            raise OperationFailure("not authorized", 13)
        due = [work for fate, work in self._late if fate is Fate.LATE or name != "find"]
        self._late = [(fate, work) for fate, work in self._late if work not in due]
        try:
            if fate in (Fate.ANSWERED, Fate.DONE_WITHOUT_ANSWER):
                result = work()
                if fate is Fate.ANSWERED:
                    return result
            elif fate is not Fate.LOST and name != "find":
                self._late.append((fate, work))
        finally:
            for each in due:
                with suppress(DuplicateKeyError):
                    each()
        raise AutoReconnect("connection closed")


class _World:
    """A writer with its journal, on collections whose calls meet their fates."""

    def __init__(self, directory: Path, fates: list[Fate]) -> None:
        row = iter(fates)
        self.collections = {MASTERS: _Collection(row), DETAILS: _Collection(row)}
        self.journal = Journal(directory)
        self.journal.seeded(SEED)
        self.writer = ConsentWriter(cast("Database", self.collections), self.journal, Random(1))
        self._changes = 0

    def state(self, **fields: object) -> Document:
        """Return a new state of a document, of a time of its own."""
        self._changes += 1
        return {"status": "granted", "changed_at": BEGIN + timedelta(milliseconds=self._changes), **fields}

    def record(self) -> Record:
        """Close the journal and read it."""
        self.journal.close()
        return read_journal(self.journal.directory)

    @property
    def masters(self) -> _Collection:
        """The collection `consent_master`."""
        return self.collections[MASTERS]


def test_acknowledged_writes_are_done_and_settled(tmp_path: Path) -> None:
    """An insert, a change, a replacement and a deletion are each written down, done, and settled."""
    world = _World(tmp_path, [])

    async def scenario() -> None:
        document = OwnDocument(MASTERS, 7)
        with background().with_cancel() as ctx:
            first = world.state(channel="web")
            assert await world.writer.write(ctx, document, first)
            assert await world.writer.write(ctx, document, second := {**first, **world.state(status="expired")})
            assert world.masters.documents == {7: {"_id": 7, **second}}
            assert await world.writer.write(ctx, document, third := world.state(), as_whole=True)
            assert world.masters.documents == {7: {"_id": 7, **third}}
            assert await world.writer.write(ctx, document, None)

    bubble(scenario)
    assert world.masters.calls == ["insert", "update", "replace", "delete"]
    assert world.masters.documents == {}
    record = world.record()
    assert [write.name for write in record.consent_writes.values()] == ["i:7"] * 4
    assert record.consent_outcomes == dict.fromkeys(range(1, 5), True)
    assert world.writer.statistics().stored == 4


def test_write_is_on_file_before_it_is_sent(tmp_path: Path) -> None:
    """A writer that is killed while the server works has written down what it sent."""
    world = _World(tmp_path, [])

    async def scenario() -> None:
        document = OwnDocument(MASTERS, 7)
        with background().with_cancel() as ctx:
            writing = asyncio.create_task(world.writer.write(ctx, document, world.state()))
            await asyncio.sleep(0.0005)
            assert world.masters.calls == ["insert"]
            assert list(read_journal(tmp_path).consent_writes) == [1]
            writing.cancel()
            await asyncio.wait([writing])

    bubble(scenario)
    record = world.record()
    assert list(record.consent_writes) == [1]
    assert record.consent_outcomes == {}


def test_lost_answer_is_learnt_by_a_look(tmp_path: Path) -> None:
    """A change that was done without an answer is found, settled, and gone on from."""
    world = _World(tmp_path, [Fate.ANSWERED, Fate.DONE_WITHOUT_ANSWER, Fate.LOST, Fate.LOST])

    async def scenario() -> None:
        document = OwnDocument(MASTERS, 7)
        with background().with_cancel() as ctx:
            assert await world.writer.write(ctx, document, world.state())
            assert await world.writer.write(ctx, document, world.state())
            assert await world.writer.write(ctx, document, None)

    bubble(scenario)
    assert world.masters.calls == ["insert", "update", "find", "find", "find", "delete"]
    assert world.record().consent_outcomes == {1: True, 2: True, 3: True}


def test_insert_that_is_not_found_is_given_up(tmp_path: Path) -> None:
    """It may still come, so the app leaves the document alone, and its outcome stays unknown."""
    world = _World(tmp_path, [Fate.LATE])

    async def scenario() -> None:
        document = OwnDocument(MASTERS, 7)
        with background().with_cancel() as ctx:
            assert not await world.writer.write(ctx, document, world.state())
        assert document.is_given_up

    bubble(scenario)
    assert list(world.masters.documents) == [7]
    assert world.record().consent_outcomes == {}


def test_late_change_does_not_undo_a_later_one(tmp_path: Path) -> None:
    """A change that arrives after the next one has been acknowledged has no effect any more."""
    world = _World(tmp_path, [Fate.ANSWERED, Fate.LATER])

    async def scenario() -> None:
        document = OwnDocument(MASTERS, 7)
        with background().with_cancel() as ctx:
            assert await world.writer.write(ctx, document, world.state())
            assert not await world.writer.write(ctx, document, world.state(status="late"))
            assert await world.writer.write(ctx, document, world.state(status="last"))

    bubble(scenario)
    assert world.masters.documents[7]["status"] == "last"
    assert world.record().consent_outcomes == {1: True, 3: True}


def test_write_that_comes_after_a_late_one_is_refused_and_the_late_one_learnt(tmp_path: Path) -> None:
    """A change that arrives between a look and the next write is what that write finds; both outcomes are settled."""
    world = _World(tmp_path, [Fate.ANSWERED, Fate.LATE])

    async def scenario() -> None:
        document = OwnDocument(MASTERS, 7)
        with background().with_cancel() as ctx:
            assert await world.writer.write(ctx, document, world.state())
            assert not await world.writer.write(ctx, document, world.state(status="late"))
            assert not await world.writer.write(ctx, document, world.state(status="too early"))
            assert document.state == {"status": "late", "changed_at": BEGIN + timedelta(milliseconds=2)}
            assert await world.writer.write(ctx, document, world.state(status="last"))

    bubble(scenario)
    assert world.masters.calls == ["insert", "update", "find", "update", "find", "update"]
    assert world.record().consent_outcomes == {1: True, 2: True, 3: False, 4: True}
    assert world.writer.statistics() == WriterStatistics(sent=4, stored=3, refused=1, unanswered=1)


def test_id_that_is_taken_is_a_refusal(tmp_path: Path) -> None:
    """An insert that finds its id taken had no effect, and the app knows what is there."""
    world = _World(tmp_path, [])
    taken = world.state(status="of another one")
    world.masters.documents[7] = {"_id": 7, **taken}
    document = OwnDocument(MASTERS, 7)

    async def scenario() -> None:
        with background().with_cancel() as ctx:
            assert not await world.writer.write(ctx, document, world.state())

    bubble(scenario)
    assert document.state == taken
    assert world.record().consent_outcomes == {1: False}


def test_server_that_stays_away_is_given_up_half_a_minute_after_the_end(tmp_path: Path) -> None:
    """As long as the context lives the server is asked again; after that the look ends, with the outcome unknown."""
    world = _World(tmp_path, [Fate.ANSWERED, *[Fate.LOST] * 1_000])

    async def scenario() -> float:
        loop = asyncio.get_running_loop()
        document = OwnDocument(MASTERS, 7)
        with background().with_cancel() as ctx:
            await world.writer.write(ctx, document, world.state())
            writing = asyncio.create_task(world.writer.write(ctx, document, world.state()))
            await asyncio.sleep(600)
            assert not writing.done()
            ended_at = loop.time()
            ctx.cancel()
            assert not await writing
        assert document.is_given_up
        return loop.time() - ended_at

    assert 15 < bubble(scenario) < 30
    assert world.record().consent_outcomes == {1: True}


def test_error_that_time_does_not_change_is_raised(tmp_path: Path) -> None:
    """A missing right is no outage: neither a write nor a look goes on after it."""
    for fates in ([Fate.REFUSED], [Fate.LOST, Fate.REFUSED]):
        world = _World(tmp_path, list(fates))

        async def scenario(world: _World = world) -> None:
            with background().with_cancel() as ctx:
                await world.writer.write(ctx, OwnDocument(MASTERS, 7), world.state())

        with pytest.raises(OperationFailure, match="not authorized"):
            bubble(scenario)
        assert world.record().consent_outcomes == {}


_FATES = st.lists(st.sampled_from([fate for fate in Fate if fate is not Fate.REFUSED]), max_size=40)
_STEPS = st.lists(st.tuples(st.integers(0, 1), st.sampled_from(["change", "replace", "delete"])), max_size=20)


@settings(max_examples=100, deadline=None)
@given(_FATES, _STEPS)
def test_journal_and_database_agree_whatever_becomes_of_the_calls(
    fates: list[Fate], steps: list[tuple[int, str]]
) -> None:
    """Whichever calls are lost, done in silence or done late, what is stored is what the journal allows for."""
    with TemporaryDirectory() as directory:
        world = _World(Path(directory), fates)

        async def scenario() -> None:
            documents = [OwnDocument(MASTERS, "one"), OwnDocument(MASTERS, "two")]
            with background().with_cancel() as ctx:
                for which, what in steps:
                    document = documents[which]
                    if document.is_given_up:
                        continue
                    wanted = None if what == "delete" and document.state is not None else world.state(status=what)
                    is_as_wanted = await world.writer.write(ctx, document, wanted, as_whole=what == "replace")
                    assert is_as_wanted == (document.state == wanted and not document.is_given_up)
                    if wanted is None and document.state is None:
                        document.is_given_up = True  # the apps use no id a second time

        bubble(scenario)
        stored = {name_of(name): content_of(one) for name, one in world.masters.documents.items()}
        holdings = DocumentHoldings([], {MASTERS: stored, DETAILS: {}}, {MASTERS: [], DETAILS: []}, 0)
        assert list(ConsentBooks(world.record(), holdings).documents_written()) == []
