"""What the audit reads of a real MongoDB and of the Salesforce sandbox: everything, but what the guest did."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import orjson
import pytest
from bson import ObjectId
from pymongo.errors import OperationFailure

from runtime.mongo import MongoDatabase
from runtime.mongo_settings import MongoSettings
from sandbox.consent_document import DETAILS, MASTERS
from sandbox.document_database import open_database
from sandbox.document_holdings import CampaignRow, read_documents
from sandbox.links import GUEST
from sandbox.salesforce import ControlError, SalesforceControl
from services.campaign_api.store import MongoCampaignStore
from tests.support import salesforce
from tests.support.campaign_sample import some_campaign_key, some_campaign_order
from tests.support.consent_consumer_process import detail, master
from tests.support.mongo_settings import mongo_url
from tests.support.salesforce import open_sandbox

ID = UUID("00000000-0000-4000-8000-000000000001")
OBJECT_ID = ObjectId("0123456789abcdef01234567")


async def test_campaign_is_read_as_it_was_made(mongo_settings: MongoSettings, tmp_path: Path) -> None:
    """A campaign that campaign_api's own store has made is read with every field."""
    order = some_campaign_order("An offer", "Of one line.")
    database = MongoDatabase(mongo_settings)
    answer = await MongoCampaignStore(database, 60).create_campaign(order, some_campaign_key())
    await database.aclose()
    async with open_sandbox(tmp_path) as (sandbox, _), SalesforceControl(sandbox.url) as control:
        name = mongo_settings.database
        holdings = await read_documents(mongo_url(mongo_settings), control, campaigns=name, consents=name)
    (row,) = holdings.campaigns
    assert (row.campaign_id, row.name, row.description) == (order.campaign_id, order.name, order.description)
    assert (row.status, row.starts_at, row.ends_at, row.version) == ("draft", order.starts_at, order.ends_at, 1)
    assert abs(row.created_at - datetime.now(UTC)) < timedelta(minutes=5)
    assert row == CampaignRow.of(orjson.loads(answer.body))


async def test_consents_are_read_without_the_guests(mongo_settings: MongoSettings, tmp_path: Path) -> None:
    """Documents and records of all types of ids are there, and none of the guest's, of the deleted ones neither."""
    url, name = mongo_url(mongo_settings), mongo_settings.database
    async with open_database(url, name, timeout_seconds=20) as database:
        await database[MASTERS].insert_many(
            [master("a"), master(7), master(ID), master(OBJECT_ID), master("g", member_id=GUEST)]
        )
        await database[DETAILS].insert_many([detail("d", ID), detail("gd", "g")])
        await database["consent_dead_letters"].insert_many([{"_id": "one"}, {"_id": "two"}])
    async with open_sandbox(tmp_path) as (sandbox, client), SalesforceControl(sandbox.url) as control:
        masters = [salesforce.master("s:a"), salesforce.master("s:g", MemberId__c=GUEST)]
        gone = salesforce.master("s:gone", MemberId__c=GUEST, Deleted__c=True)
        await client.upsert(salesforce.MASTER, *masters, gone)
        details = [salesforce.detail(f"s:{one}", of) for one, of in (("d", "s:a"), ("gd", "s:g"), ("old", "s:gone"))]
        await client.upsert(salesforce.DETAIL, *details, {"ExternalId__c": "s:x", "Deleted__c": True, "Version__c": 1})
        holdings = await read_documents(url, control, campaigns=name, consents=name)
    assert holdings.consents[MASTERS].keys() == {"s:a", "i:7", f"u:{ID}", f"o:{OBJECT_ID}"}
    assert holdings.consents[DETAILS] == {
        "s:d": {
            "master_id": f"u:{ID}",
            "purpose": "sms",
            "is_granted": True,
            "changed_at": "2026-11-28T10:00:00.000+00:00",
            "schema_version": 1,
        }
    }
    assert [record["ExternalId__c"] for record in holdings.records[MASTERS]] == ["s:a"]
    assert [record["ExternalId__c"] for record in holdings.records[DETAILS]] == ["s:d", "s:x"]
    assert holdings.dead_letters == 2


async def test_what_cannot_be_read_is_an_error(mongo_settings: MongoSettings, tmp_path: Path) -> None:
    """Neither a database that may not be read nor a control that stays shut is taken for an empty one."""
    url, name = mongo_url(mongo_settings), mongo_settings.database
    async with (
        open_sandbox(tmp_path, control_secret="s" * 16) as (sandbox, _),
        SalesforceControl(sandbox.url) as control,
    ):
        with pytest.raises(OperationFailure, match="not authorized"):
            await read_documents(url, control, campaigns="admin", consents=name)
        with pytest.raises(ControlError):
            await read_documents(url, control, campaigns=name, consents=name)
