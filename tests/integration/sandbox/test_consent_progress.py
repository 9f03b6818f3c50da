"""How far consents have come, seen in a real database and a real sandbox."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

from bson import ObjectId

from runtime.mongo_settings import MongoSettings
from runtime.settings import read_secret
from sandbox.consent_document import DETAILS, MASTERS, name_of
from sandbox.consent_progress import ConsentProgress, ConsentWatch
from sandbox.document_database import open_database
from sandbox.salesforce import SalesforceControl
from tests.support.salesforce import DETAIL, MASTER, codes, detail, master, open_sandbox

AT = datetime(2026, 11, 28, 10, tzinfo=UTC)
LATER = AT + timedelta(milliseconds=1)


def _url(mongo: MongoSettings) -> str:
    password = read_secret(mongo.password, mongo.password_file)
    return f"mongodb://{mongo.user}:{password}@{mongo.hosts[0]}/?directConnection=true&authSource={mongo.auth_database}"


async def test_progress_follows_each_document_to_its_last_state_and_to_its_end(
    mongo_settings: MongoSettings, tmp_path: Path
) -> None:
    """What Salesforce lacks, has in an older state, or still has without cause, waits; dead letters are counted."""
    detail_id = ObjectId()
    async with (
        open_database(_url(mongo_settings), mongo_settings.database, timeout_seconds=20) as database,
        open_sandbox(tmp_path) as (salesforce, client),
        SalesforceControl(salesforce.url) as control,
    ):
        watch = ConsentWatch(database, control)
        assert await watch.look() == ConsentProgress(0, 0, 0)

        await database[MASTERS].insert_one({"_id": "one", "changed_at": AT})
        await database[DETAILS].insert_one({"_id": detail_id, "changed_at": AT})
        assert await watch.look() == ConsentProgress(0, 2, 0)

        sent = master("s:one", ChangedAt__c=AT.isoformat())
        assert codes(await client.upsert(MASTER, sent)) == [None]
        sent = detail(name_of(detail_id), "s:one", ChangedAt__c=AT.isoformat())
        assert codes(await client.upsert(DETAIL, sent)) == [None]
        assert await watch.look() == ConsentProgress(2, 0, 0)

        await database[MASTERS].update_one({"_id": "one"}, {"$set": {"changed_at": LATER}})
        await database[DETAILS].delete_one({"_id": detail_id})
        assert await watch.look() == ConsentProgress(0, 2, 0)

        sent = master("s:one", 2, ChangedAt__c=LATER.isoformat())
        assert codes(await client.upsert(MASTER, sent)) == [None]
        sent = {"ExternalId__c": name_of(detail_id), "Deleted__c": True, "Version__c": 2}
        assert codes(await client.upsert(DETAIL, sent)) == [None]
        await database["consent_dead_letters"].insert_one({})
        assert await watch.look() == ConsentProgress(1, 0, 1)


async def test_progress_is_unknown_while_salesforce_is_away(mongo_settings: MongoSettings, tmp_path: Path) -> None:
    """Nobody is told that nothing waits because one of the two could not be asked."""
    async with open_sandbox(tmp_path) as (salesforce, _):
        gone = salesforce.url
    async with (
        open_database(_url(mongo_settings), mongo_settings.database, timeout_seconds=20) as database,
        SalesforceControl(gone) as control,
    ):
        assert await ConsentWatch(database, control).look() is None
