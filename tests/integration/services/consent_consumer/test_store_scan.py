"""A scan on a real database: ids of every type, large documents, snapshots that grow old."""

import bson
import pytest
from bson import Timestamp
from bson.raw_bson import RawBSONDocument

from patterns import background
from runtime.mongo import open_mongo
from sandbox.servers import MongoServer
from services.consent_consumer.collection_scan import MongoCollectionScan, ScanPosition
from services.consent_consumer.errors import SnapshotTooOldError
from services.consent_consumer.foreign_document import FIELD_BY_FIELD
from tests.integration.services.consent_consumer.conftest import MongoWorld
from tests.support.consent_sample import IDS, NO_UUID, VALUES
from tests.support.consent_store_contract import MASTER
from tests.support.eventually import eventually
from tests.support.mongo_settings import open_mongo_database


async def test_scan_gives_ids_of_every_type_once_in_pages_of_two(world: MongoWorld) -> None:
    """The order is MongoDB's own over all types, and each document comes byte for byte."""
    documents = {bson.encode({"_id": each, "value": VALUES}, codec_options=FIELD_BY_FIELD) for each in (*IDS, NO_UUID)}
    with world.database.call():
        await world.database.collection(MASTER).insert_many([RawBSONDocument(each) for each in documents])
        cursor = world.database.collection(MASTER).with_options(codec_options=FIELD_BY_FIELD).find(sort=[("_id", 1)])
        expected = [document.raw for document in await cursor.to_list(None)]
    found = [document.raw for document in await scan_all(world.collections, 2)]

    assert found == expected
    assert set(found) == documents


async def scan_all(collections: MongoCollectionScan, limit: int) -> list[RawBSONDocument]:
    """Return all documents in the order of the scan."""
    found: list[RawBSONDocument] = []
    page = await collections.scan(MASTER, None, limit)
    while page.next is not None:
        for document in page.documents:
            assert isinstance(document, RawBSONDocument)
            found.append(document)
        page = await collections.scan(MASTER, page.next, limit)
    return found


async def test_page_that_would_not_fit_an_answer_is_shorter_and_not_the_last(world: MongoWorld) -> None:
    """Five documents of 7 MB, asked for at once: all five come, in more than one page."""
    for number in range(5):
        await world.put(MASTER, {"_id": number, "text": "x" * 7_000_000})
    page = await world.collections.scan(MASTER, None, 10)
    found = await scan_all(world.collections, 10)

    assert 1 <= len(page.documents) < 5
    assert [document["_id"] for document in found] == [0, 1, 2, 3, 4]


async def test_scan_walks_the_index_of_ids(world: MongoWorld) -> None:
    """A page in the middle reads as many documents as it gives."""
    for number in range(100):
        await world.put(MASTER, {"_id": f"{number:03}" if number % 2 else number})
    database = world.database.client[world.database.name]
    find = {
        "find": MASTER,
        "filter": {"$expr": {"$gt": ["$_id", {"$literal": 50}]}},
        "sort": {"_id": 1},
        "limit": 10,
    }
    with world.database.call():
        plan = await database.command("explain", find, verbosity="executionStats")
    page = await world.collections.scan(MASTER, ScanPosition(50, None), 10)

    assert plan["executionStats"]["totalKeysExamined"] == len(page.documents) == 10


async def test_document_made_while_its_collection_was_not_there_yet_is_in_the_next_scan(world: MongoWorld) -> None:
    """The time of an empty page is before whatever was made after it, so the changes from then on tell of it."""
    page = await world.collections.scan(MASTER, None, 10)
    await world.put(MASTER, {"_id": 1})
    following = await world.collections.scan(MASTER, None, 10)

    assert page.next is None
    assert len(following.documents) == 1
    assert page.cluster_time < following.cluster_time


async def test_snapshot_that_the_database_keeps_no_longer_is_told(world: MongoWorld) -> None:
    """The scan does not go on in a newer one by itself; whoever wants that says so."""
    for number in range(3):
        await world.put(MASTER, {"_id": number})
    page = await world.collections.scan(MASTER, None, 1)
    assert page.next is not None
    old = ScanPosition(page.next.after_id, Timestamp(page.cluster_time.time - 1_000, 1))
    with pytest.raises(SnapshotTooOldError, match=MASTER):
        await world.collections.scan(MASTER, old, 1)
    rest = await world.collections.scan(MASTER, ScanPosition(old.after_id, None), 10)

    assert [document["_id"] for document in rest.documents] == [1, 2]


async def test_snapshot_grows_too_old_during_a_scan(own_mongo: MongoServer) -> None:
    """Where the database keeps no history the scan is told so in its middle, as after five minutes otherwise."""
    async with own_mongo.connect() as client:
        await client.admin.command("setParameter", 1, minSnapshotHistoryWindowInSeconds=0)
    async with open_mongo_database(own_mongo) as settings, open_mongo(background(), settings) as database:
        world = MongoWorld(database, settings)
        for number in range(3):
            await world.put(MASTER, {"_id": number})
        page = await world.collections.scan(MASTER, None, 1)

        async def is_too_old() -> bool:
            await world.put(MASTER, {"_id": 7})
            try:
                await world.collections.scan(MASTER, page.next, 1)
            except SnapshotTooOldError:
                return True
            return False

        await eventually(is_too_old, seconds=50)
        assert len((await world.collections.scan(MASTER, None, 10)).documents) == 4
