"""MongoDB and the Salesforce sandbox of this machine's own platform: one node from a wheel, and a process beside it."""

import asyncio
import contextlib
import secrets
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import quote

import httpx
from pydantic import SecretStr

from deploy.mongo import set_up
from deploy.mongo_settings import MongoSetupSettings
from deploy.settings import Password
from sandbox.instance import Service
from sandbox.roles import write_secret
from sandbox.salesforce import SalesforceControl
from sandbox.servers import KeptProcess, MongoServer, Program, ServerError, open_mongo_nodes, start_process
from sandbox.servers.address import LOOPBACK, free_port
from sandbox.servers.mongo import REPLICA_SET
from sandbox.world import CAMPAIGNS, CONSENTS, MongoSide

ROOT: Final = Path(__file__).resolve().parents[1]
_WRITER: Final = "consent_writer"
_AUDITOR: Final = "auditor"
_USERS: Final = (Service.CAMPAIGN_API.value, Service.CONSENT_CONSUMER.value, _WRITER, _AUDITOR)
# What a request that was cut off leaves open keeps others out for no longer than this.
_PARAMETERS: Final = {"transactionLifetimeLimitSeconds": "10"}
_CLIENT_ID: Final = "consents"
_READY_SECONDS: Final = 30.0
_GRACE_SECONDS: Final = 10.0
_POLL_SECONDS: Final = 0.05


@dataclass(frozen=True, slots=True)
class MongoServers:
    """What of a platform of this machine is neither PostgreSQL nor Kafka.

    Attributes:
        mongo: the one node.
        salesforce: the process of the Salesforce sandbox.
        salesforce_url: where it is; the page that shows it, too.
        side: what the platform's members and its auditor need of both.
    """

    mongo: MongoServer
    salesforce: KeptProcess
    salesforce_url: str
    side: MongoSide
    _directory: Path

    def settings(self, service: Service) -> dict[str, str]:
        """Return what a service is told of both, as variables without their prefix."""
        settings = {
            "MONGO__HOSTS": self.mongo.address,
            "MONGO__DATABASE": CAMPAIGNS if service is Service.CAMPAIGN_API else CONSENTS,
            "MONGO__USER": service.value,
            "MONGO__PASSWORD_FILE": str(_password_file(self._directory, service)),
        }
        if service is Service.CONSENT_CONSUMER:
            settings |= {
                "SALESFORCE__URL": self.salesforce_url,
                "SALESFORCE__CLIENT_ID": _CLIENT_ID,
                "SALESFORCE__CLIENT_SECRET_FILE": str(_client_secret_file(self._directory)),
                # Consents may be written before the first consumer stands.
                "START": "resync",
                # Whoever waits for the lease of an instance that was killed is at work after this.
                "LEASE__SECONDS": "12",
                "LEASE__RENEW_SECONDS": "1",
                "LEASE__POLL_SECONDS": "0.5",
            }
        return settings


@contextlib.asynccontextmanager
async def open_mongo_servers(directory: Path, secrets_directory: Path) -> AsyncIterator[MongoServers]:
    """Start MongoDB, make its roles and users, start the Salesforce sandbox, and stop both on leaving.

    Args:
        directory: where logs go, and the log of what Salesforce applied.
        secrets_directory: a directory of ours alone, which is there; every password is a file in it.

    Raises:
        ServerUnavailableError: there is no MongoDB for this machine.
        ServerError: one of them did not start.
    """
    for user in _USERS:
        write_secret(_password_file(secrets_directory, user), secrets.token_urlsafe(24))
    write_secret(_client_secret_file(secrets_directory), secrets.token_urlsafe(24))
    async with open_mongo_nodes(1, parameters=_PARAMETERS) as (mongo,):
        await set_up(_setup_settings(mongo, secrets_directory))
        async with _open_salesforce(directory, secrets_directory) as (process, url), SalesforceControl(url) as control:
            await _wait_until_it_answers(control, process)
            reader_url, writer_url = (_url(mongo, secrets_directory, user) for user in (_AUDITOR, _WRITER))
            side = MongoSide(reader_url, writer_url, control)
            yield MongoServers(mongo, process, url, side, secrets_directory)


def _setup_settings(mongo: MongoServer, directory: Path) -> MongoSetupSettings:
    user, password = mongo.superuser
    return MongoSetupSettings(
        host=mongo.host,
        port=mongo.port,
        user=user,
        password=Password(value=SecretStr(password)),
        campaign_api_password=Password(file=_password_file(directory, Service.CAMPAIGN_API)),
        consent_consumer_password=Password(file=_password_file(directory, Service.CONSENT_CONSUMER)),
        consent_writer_password=Password(file=_password_file(directory, _WRITER)),
        auditor_password=Password(file=_password_file(directory, _AUDITOR)),
        campaigns_database=CAMPAIGNS,
        consents_database=CONSENTS,
    )


@contextlib.asynccontextmanager
async def _open_salesforce(directory: Path, secrets_directory: Path) -> AsyncIterator[tuple[KeptProcess, str]]:
    port = free_port()
    process = await start_process(
        Program(
            name="salesforce",
            command=[
                *(sys.executable, "-m", "sandbox.salesforce", "--port", str(port)),
                *("--log", directory / "salesforce-applied.log"),
                *("--client-id", _CLIENT_ID, "--client-secret-file", _client_secret_file(secrets_directory)),
            ],
            log=directory / "salesforce.log",
            directory=ROOT,
            grace_seconds=_GRACE_SECONDS,
        )
    )
    try:
        yield process, f"http://{LOOPBACK}:{port}"
    finally:
        await process.stop(grace_seconds=_GRACE_SECONDS)
        process.release()


async def _wait_until_it_answers(control: SalesforceControl, process: KeptProcess) -> None:
    give_up_at = time.monotonic() + _READY_SECONDS
    while process.is_running and time.monotonic() < give_up_at:
        try:
            await control.counts()
        except (httpx.HTTPError, TimeoutError):
            await asyncio.sleep(_POLL_SECONDS)
        else:
            return
    raise ServerError(f"the Salesforce sandbox does not answer; see {process.log}")


def _url(mongo: MongoServer, directory: Path, user: str) -> str:
    password = quote(_password_file(directory, user).read_text(), safe="")
    return f"mongodb://{user}:{password}@{mongo.address}/?replicaSet={REPLICA_SET}"


def _password_file(directory: Path, user: str) -> Path:
    return directory / f"{user}-mongo-password"


def _client_secret_file(directory: Path) -> Path:
    return directory / "salesforce-client-secret"
