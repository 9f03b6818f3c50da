"""consent_consumer as a real process, with a Salesforce in this one and its collections in a real database."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from runtime.mongo import Collection, MongoDatabase
from runtime.mongo_settings import MongoSettings
from sandbox.salesforce import Salesforce
from sandbox.servers.address import LOOPBACK, free_port
from services.consent_consumer.change_stream import CONSENT_DETAIL, CONSENT_MASTER
from services.consent_consumer.record import DETAIL_OBJECT, MASTER_OBJECT, external_id
from tests.support.campaign_api_process import mongo_variables
from tests.support.eventually import eventually
from tests.support.fault_proxy import FaultProxy
from tests.support.ledger import digest
from tests.support.salesforce import APP
from tests.support.service_process import ROOT, ServiceProcess, environment_of, open_service

Content = dict[str, Any]  # Any: BSON, or JSON
State = tuple[object, ...]
"""What can be told of a document in MongoDB and of its record in Salesforce alike."""

OBJECTS: Final = {CONSENT_MASTER: MASTER_OBJECT, CONSENT_DETAIL: DETAIL_OBJECT}
GONE: Final[State] = ("gone",)

_TEXT_CHARACTERS_MAX: Final = 200


class ConsentWorld:
    """Both ends of the consumer: the members' documents, and what Salesforce holds."""

    def __init__(self, database: MongoDatabase, mongo: MongoSettings, salesforce: Salesforce, directory: Path) -> None:
        self.database = database
        self.salesforce = salesforce
        self._mongo = mongo
        self._directory = directory

    @property
    def masters(self) -> Collection:
        """The collection `consent_master`."""
        return self.database.collection(CONSENT_MASTER)

    @property
    def port(self) -> int:
        """Where the database listens on loopback."""
        return int(self._mongo.hosts[0].rpartition(":")[2])

    @property
    def details(self) -> Collection:
        """The collection `consent_detail`."""
        return self.database.collection(CONSENT_DETAIL)

    def consumer(self, *, without: str | None = None, **settings: str) -> AbstractAsyncContextManager[ServiceProcess]:
        """Start a consumer, perhaps without a guard; settings are variables without their prefix.

        It is stopped on leaving.
        """
        variables = self._variables() | settings
        return open_service(ServiceProcess, "consent_consumer", self._directory, variables, without=without)

    def behind(self, proxy: FaultProxy) -> "ConsentWorld":
        """Return the same world, whose consumers reach the database through a proxy."""
        way = self._mongo.model_copy(update={"hosts": (f"{LOOPBACK}:{proxy.port}",), "replica_set": None})
        return ConsentWorld(self.database, way, self.salesforce, self._directory)

    async def command(self, *arguments: str, **settings: str) -> "subprocess.CompletedProcess[str]":
        """Run one of the operator's commands to its end; settings are variables without their prefix."""
        return await asyncio.to_thread(
            subprocess.run,
            [sys.executable, "-m", "services.consent_consumer", *arguments],
            cwd=ROOT,
            env=environment_of("consent_consumer", self._variables() | settings),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def _variables(self) -> dict[str, str]:
        secret_file = self._directory / "client-secret"
        secret_file.write_text(APP.client_secret)
        return {
            **mongo_variables(self._mongo),
            "SALESFORCE__URL": self.salesforce.url,
            "SALESFORCE__CLIENT_ID": APP.client_id,
            "SALESFORCE__CLIENT_SECRET_FILE": str(secret_file),
            "SALESFORCE__BACKOFF_MOST_SECONDS": "1",
            "RETRY__FIRST_SECONDS": "0.05",
            "RETRY__MOST_SECONDS": "0.5",
            "START": "now",
            "SAVE_SECONDS": "0.1",
            "LEASE__SECONDS": "10",
            "LEASE__RENEW_SECONDS": "1",
            "LEASE__POLL_SECONDS": "0.2",
            "MONGO__OPERATION_TIMEOUT_SECONDS": "4",
            "ADMIN__PORT": str(free_port()),
        }

    async def wait_agreed(self, *, seconds: float = 40) -> None:
        """Wait until Salesforce holds exactly what the collections hold."""
        await eventually(self._is_agreed, seconds=seconds, pause_seconds=0.05)

    async def _is_agreed(self) -> bool:
        for name, kind in OBJECTS.items():
            documents = self.database.collection(name).find()
            wanted = {external_id(document["_id"]): content_of(document) async for document in documents}
            held = {key: content_in(record.fields) for key, record in self.salesforce.records(kind).items()}
            if wanted != {key: content for key, content in held.items() if content != GONE}:
                return False
        return True


def master(document_id: object, **fields: object) -> Content:
    """Return a consent that nothing is wrong with, with some fields changed."""
    return {
        "_id": document_id,
        "member_id": "m-1",
        "status": "granted",
        "policy_version": "2026-1",
        "channel": "app",
        "changed_at": datetime(2026, 11, 28, 10, tzinfo=UTC),
        "schema_version": 2,
        **fields,
    }


def detail(document_id: object, master_id: object, **fields: object) -> Content:
    """Return a detail of that consent that nothing is wrong with, with some fields changed."""
    return {
        "_id": document_id,
        "master_id": master_id,
        "purpose": "sms",
        "is_granted": True,
        "changed_at": datetime(2026, 11, 28, 10, tzinfo=UTC),
        "schema_version": 1,
        **fields,
    }


def content_of(document: Mapping[str, Any]) -> State:  # Any: BSON
    """Return what Salesforce has to hold of a document; two writes differ in it by `changed_at` at least."""
    changed_at = document.get("changed_at")
    at = _time(changed_at) if isinstance(changed_at, datetime) else changed_at
    if "purpose" in document:
        return document["purpose"], document.get("is_granted"), external_id(document.get("master_id")), at
    return document.get("status"), document.get("channel"), _short(document.get("policy_version")), at


def content_in(fields: Mapping[str, Any]) -> State:  # Any: JSON
    """Return the same of a record, or of the fields that a call set of one."""
    if fields["Deleted__c"]:
        return GONE
    at = _time(datetime.fromisoformat(fields["ChangedAt__c"]))
    if fields.get("Purpose__c") is not None:
        return fields["Purpose__c"], fields["Granted__c"], fields["Master__r"]["ExternalId__c"], at
    return fields["Status__c"], fields["Channel__c"], _short(fields["PolicyVersion__c"]), at


def _short(value: object) -> object:
    """Let no text of megabytes be compared and shown again and again."""
    is_long = isinstance(value, str) and len(value) > _TEXT_CHARACTERS_MAX
    return digest(value) if is_long else value


def _time(time: datetime) -> str:
    return time.astimezone(UTC).isoformat(timespec="milliseconds")


@asynccontextmanager
async def open_consent_world(
    database: MongoDatabase, mongo: MongoSettings, salesforce: Salesforce, directory: Path
) -> AsyncIterator[ConsentWorld]:
    """Give the world of one test, with both collections made."""
    for name in (CONSENT_MASTER, CONSENT_DETAIL):
        await database.client[database.name].create_collection(name)
    yield ConsentWorld(database, mongo, salesforce, directory)
