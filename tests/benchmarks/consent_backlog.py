"""A backlog of consents that waits in a real MongoDB, and Salesforce sandboxes for whoever is to carry it there."""

import secrets
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import httpx
from bson import ObjectId

from runtime.mongo import Document, MongoDatabase
from runtime.mongo_settings import MongoSettings
from sandbox.salesforce import SalesforceControl
from sandbox.servers import KeptProcess, Program, start_process
from sandbox.servers.address import LOOPBACK, free_port
from services.consent_consumer.change_stream import CONSENT_DETAIL, CONSENT_MASTER
from services.consent_consumer.store import LEASES, POSITIONS, MongoConsentStore, Position
from tests.support.campaign_api_process import mongo_variables
from tests.support.eventually import eventually
from tests.support.service_process import ROOT

DETAILS: Final = 3
"""How many purposes each consent has."""
_PURPOSES: Final = ("email", "sms", "push")
_CHUNK: Final = 1_000
_CLIENT_ID: Final = "consents"
_READY_SECONDS: Final = 30.0


@dataclass(frozen=True, slots=True)
class Sandbox:
    """A sandbox that runs and holds nothing yet; `variables` are a consumer's settings, without their prefix."""

    process: KeptProcess
    control: SalesforceControl
    variables: dict[str, str]


class Backlog:
    """Changes of consents that nobody has carried yet: each document inserted, and then changed once.

    Args:
        database: where they are.
        mongo: how it is reached.
        directory: for logs and secrets.
        consents: how many there are; each with its purposes is eight changes.
    """

    def __init__(self, database: MongoDatabase, mongo: MongoSettings, directory: Path, consents: int) -> None:
        self.masters = consents * 2
        self.details = consents * 2 * DETAILS
        self._database = database
        self._store = MongoConsentStore(database)
        self._mongo = mongo
        self._directory = directory
        self._begin: Position | None = None
        self._client_id = directory / "client-id"
        self._client_id.write_text(_CLIENT_ID)
        self._client_secret = directory / "client-secret"
        self._client_secret.write_text(secrets.token_urlsafe(24))

    @property
    def events(self) -> int:
        """How many changes wait, of both collections together."""
        return self.masters + self.details

    async def plant(self) -> None:
        """Write the documents, as members' apps would, and remember where their changes begin."""
        masters, details = (self._database.collection(name) for name in (CONSENT_MASTER, CONSENT_DETAIL))
        for name in (CONSENT_MASTER, CONSENT_DETAIL):
            await self._database.client[self._database.name].create_collection(name)
        self._begin = Position(await self._store.cluster_time(), None)
        left = self.masters // 2
        while left:
            consents = [_master(number) for number in range(min(left, _CHUNK))]
            await masters.insert_many(consents)
            await details.insert_many([_detail(each, purpose) for each in consents for purpose in _PURPOSES])
            left -= len(consents)
        ids = [document["_id"] async for document in masters.find({}, {"_id": 1})]
        for first in range(0, len(ids), _CHUNK):
            chosen = ids[first : first + _CHUNK]
            now = datetime.now(UTC)
            await masters.update_many({"_id": {"$in": chosen}}, {"$set": {"status": "withdrawn", "changed_at": now}})
            of_them = {"master_id": {"$gte": chosen[0], "$lte": chosen[-1]}}
            await details.update_many(of_them, {"$set": {"is_granted": False, "changed_at": now}})

    async def rewind(self) -> None:
        """Let both streams stand where the backlog begins, for whoever comes next."""
        if self._begin is None:
            raise ValueError("a backlog has to be planted first")
        for name in (LEASES, POSITIONS):
            await self._database.collection(name).delete_many({})
        for name in (CONSENT_MASTER, CONSENT_DETAIL):
            await self._store.take_position(name, 0)
            await self._store.save_position(name, self._begin, 0)

    @asynccontextmanager
    async def open_sandbox(self) -> AsyncIterator[Sandbox]:
        """Start a sandbox that holds nothing; it is stopped on leaving, and what it logged is removed."""
        port = free_port()
        log = self._directory / f"applied-{port}.log"
        command: list[str | Path] = [sys.executable, "-m", "sandbox.salesforce", "--log", log, "--port", str(port)]
        command += ["--client-id-file", self._client_id, "--client-secret-file", self._client_secret]
        name = f"salesforce-{port}"
        process = await start_process(
            Program(name=name, command=command, log=self._directory / f"{name}.log", directory=ROOT)
        )
        url = f"http://{LOOPBACK}:{port}"
        try:
            async with SalesforceControl(url) as control:
                await eventually(lambda: _answers(control), seconds=_READY_SECONDS, pause_seconds=0.05)
                yield Sandbox(process, control, self._variables(url))
        finally:
            await process.stop()
            process.release()
            log.unlink(missing_ok=True)

    def _variables(self, url: str) -> dict[str, str]:
        return {
            **mongo_variables(self._mongo),
            "SALESFORCE__URL": url,
            "SALESFORCE__CLIENT_ID": _CLIENT_ID,
            "SALESFORCE__CLIENT_SECRET_FILE": str(self._client_secret),
            "START": "now",
            "ADMIN__PORT": str(free_port()),
        }


async def _answers(control: SalesforceControl) -> bool:
    try:
        await control.counts()
    except (httpx.HTTPError, TimeoutError):
        return False
    return True


def _master(number: int) -> Document:
    return {
        "_id": ObjectId(),
        "member_id": f"m-{number}",
        "status": "granted",
        "policy_version": "2026-1",
        "channel": "app",
        "changed_at": datetime.now(UTC),
        "schema_version": 2,
    }


def _detail(master: Document, purpose: str) -> Document:
    return {
        "_id": ObjectId(),
        "master_id": master["_id"],
        "purpose": purpose,
        "is_granted": True,
        "changed_at": master["changed_at"],
        "schema_version": 1,
    }
