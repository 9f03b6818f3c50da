"""Members' apps on a real MongoDB: what they wrote down is what is there, through every outage."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random
from uuid import UUID

import pytest
from bson import Int64, ObjectId
from pymongo.errors import OperationFailure

from loyalty.consent import read_detail, read_master
from patterns import Context, background
from runtime.mongo_settings import MongoSettings
from runtime.settings import read_secret
from sandbox.consent_apps import ConsentApps
from sandbox.consent_books import ConsentBooks
from sandbox.consent_document import DETAILS, MASTERS, content_of, name_of
from sandbox.document_database import open_database
from sandbox.document_holdings import DocumentHoldings
from sandbox.journal import Journal, Record, Seed, read_journal
from sandbox.servers import MongoServer
from sandbox.servers.address import free_port
from tests.support.eventually import eventually
from tests.support.mongo_settings import mongo_url, open_mongo_database

MEMBERS = ("m-1", "m-2", "m-3")


class _Run:
    """Apps at work, their journal and their database."""

    def __init__(self, apps: ConsentApps, ctx: Context, working: "asyncio.Task[None]", mongo: MongoSettings) -> None:
        self.apps = apps
        self._ctx = ctx
        self._working = working
        self._mongo = mongo

    async def wait_stored(self, more: int) -> None:
        """Wait until so many more writes are known to be stored."""
        wanted = self.apps.statistics().writes.stored + more

        def is_stored() -> bool:
            assert not self._working.done(), "the apps have ended by themselves"
            return self.apps.statistics().writes.stored >= wanted

        await eventually(is_stored, seconds=40)

    async def end(self) -> None:
        """Tell the apps to end, and wait for that."""
        self._ctx.cancel()
        await asyncio.wait_for(self._working, 40)

    async def stored(self) -> dict[str, list[dict[str, object]]]:
        """Return the documents of both collections."""
        async with open_database(mongo_url(self._mongo), self._mongo.database, timeout_seconds=20) as database:
            return {name: [one async for one in database[name].find()] for name in (MASTERS, DETAILS)}


@asynccontextmanager
async def _at_work(
    mongo: MongoSettings, directory: Path, *, rate: float = 200.0, documents_max: int = 5_000
) -> AsyncIterator[_Run]:
    seed = 7
    with Journal(directory) as journal, background().with_cancel() as ctx:
        journal.seeded(Seed({}, {}))
        apps = ConsentApps(
            mongo_url(mongo),
            mongo.database,
            journal,
            MEMBERS,
            rate=rate,
            random=Random(seed),
            documents_max=documents_max,
        )
        working = asyncio.create_task(apps.run(ctx))
        try:
            yield _Run(apps, ctx, working, mongo)
        finally:
            working.cancel()
            await asyncio.wait([working])


def _differences(record: Record, stored: dict[str, list[dict[str, object]]]) -> list[str]:
    consents = {name: {name_of(one["_id"]): content_of(one) for one in found} for name, found in stored.items()}
    books = ConsentBooks(record, DocumentHoldings([], consents, {}, 0))
    return [*books.documents_written(), *books.documents_invented()]


async def test_apps_write_what_the_journal_says(mongo_settings: MongoSettings, tmp_path: Path) -> None:
    """Ids of four types, both schema versions, every kind of change: all of it known, none of it unexplained."""
    async with _at_work(mongo_settings, tmp_path) as run:
        await run.wait_stored(600)
        await run.end()
        stored = await run.stored()
        seen = run.apps.statistics()
    record = read_journal(tmp_path)
    assert _differences(record, stored) == []
    assert seen.writes.stored == seen.writes.sent == len(record.consent_writes)
    assert (seen.masters, seen.details) == (len(stored[MASTERS]), len(stored[DETAILS]))
    assert {type(one["_id"]) for one in stored[MASTERS]} == {str, ObjectId, UUID, Int64}
    assert {one["schema_version"] for one in stored[MASTERS]} == {1, 2}
    assert {read_master(one).member_id for one in stored[MASTERS]} == set(MEMBERS)
    masters = {name_of(one["_id"]) for one in stored[MASTERS]}
    assert {name_of(read_detail(one).master_id) for one in stored[DETAILS]} <= masters
    writes = Counter((write.collection, write.content is None) for write in record.consent_writes.values())
    assert min(writes[collection, is_deletion] for collection in (MASTERS, DETAILS) for is_deletion in (True, False))
    documents = len({(write.collection, write.name) for write in record.consent_writes.values()})
    assert len(record.consent_writes) > 1.3 * documents


async def _step_down(mongo: MongoServer) -> None:
    await mongo.step_down(2)


async def _kill(mongo: MongoServer) -> None:
    await mongo.kill()
    await mongo.start()


async def _freeze(mongo: MongoServer) -> None:
    """Freeze it for longer than an operation may take: what it was sent meanwhile is done late, or not at all."""
    mongo.freeze()
    try:
        await asyncio.sleep(7)
    finally:
        mongo.thaw()


@pytest.mark.parametrize("hurt", [_step_down, _kill, _freeze], ids=lambda hurt: hurt.__name__.strip("_"))
async def test_apps_and_journal_agree_after_an_outage(
    own_mongo: MongoServer, tmp_path: Path, hurt: Callable[[MongoServer], Coroutine[None, None, None]]
) -> None:
    """Whatever was under way when the server went away, the journal says what may be there, and the apps go on."""
    async with open_mongo_database(own_mongo) as mongo:
        async with _at_work(mongo, tmp_path) as run:
            await run.wait_stored(200)
            await hurt(own_mongo)
            await own_mongo.wait_for_primary()
            await run.wait_stored(200)
            await run.end()
            stored = await run.stored()
            seen = run.apps.statistics().writes
        record = read_journal(tmp_path)
    assert _differences(record, stored) == []
    unknown = record.consent_writes.keys() - record.consent_outcomes.keys()
    assert len(unknown) <= seen.unanswered
    assert hurt is not _freeze or seen.unanswered > 0


async def test_apps_make_no_more_documents_than_they_may(mongo_settings: MongoSettings, tmp_path: Path) -> None:
    """At the bound documents are changed still, but none is made or deleted any more."""
    async with _at_work(mongo_settings, tmp_path, documents_max=20) as run:
        await run.wait_stored(200)
        await run.end()
        stored = await run.stored()
    record = read_journal(tmp_path)
    assert _differences(record, stored) == []
    assert len({(write.collection, write.name) for write in record.consent_writes.values()}) == 20
    last = max(record.consent_writes)
    assert all(record.consent_writes[number].content is not None for number in range(last - 100, last + 1))


async def test_apps_without_the_right_to_write_end_with_the_error(
    mongo: MongoServer, mongo_settings: MongoSettings, tmp_path: Path
) -> None:
    """What time does not change is no outage to wait for."""
    assert mongo_settings.user is not None
    password = read_secret(mongo_settings.password, mongo_settings.password_file) or ""
    await mongo.create_user(mongo_settings.user, password, [{"role": "read", "db": mongo_settings.database}])
    seed = Seed({}, {})
    with Journal(tmp_path) as journal, background().with_timeout(20) as ctx:
        journal.seeded(seed)
        # One at a time: what is cancelled in mid-connect, as a sibling would be, PyMongo leaves to the collector.
        url, name = mongo_url(mongo_settings), mongo_settings.database
        apps = ConsentApps(url, name, journal, MEMBERS, rate=100, random=Random(1), in_flight_max=1)
        with pytest.raises(OperationFailure, match="not authorized"):
            await apps.run(ctx)


async def test_apps_without_a_server_hold_no_more_than_they_may(tmp_path: Path) -> None:
    """Where nobody answers, so many actions wait and the others are dropped; each that waits is written down."""
    with Journal(tmp_path) as journal, background().with_cancel() as ctx:
        journal.seeded(Seed({}, {}))
        url = f"mongodb://127.0.0.1:{free_port()}/?directConnection=true"
        apps = ConsentApps(url, "consents", journal, MEMBERS, rate=200, random=Random(1), in_flight_max=3)
        working = asyncio.create_task(apps.run(ctx))
        await eventually(lambda: apps.statistics().dropped > 20)
        assert apps.statistics().in_flight == 3
        working.cancel()
        await asyncio.wait([working])
    record = read_journal(tmp_path)
    assert len(record.consent_writes) == 3
    assert record.consent_outcomes == {}
