"""MongoDB or Salesforce missing at the start of the services that need them, in every order there is (X7)."""

import itertools
import time
from contextlib import AsyncExitStack
from pathlib import Path
from signal import SIGTERM

import pytest

from patterns import background
from runtime.mongo import open_mongo
from runtime.mongo_settings import MongoSettings
from sandbox.salesforce import Salesforce, open_salesforce
from sandbox.servers import MongoServer
from sandbox.servers.address import free_port
from services.consent_consumer.change_stream import CONSENT_DETAIL, CONSENT_MASTER
from services.consent_consumer.record import MASTER_OBJECT
from tests.support.campaign_api_client import campaign_body
from tests.support.campaign_api_process import mongo_variables, open_campaign_api
from tests.support.consent_consumer_process import master
from tests.support.eventually import eventually
from tests.support.fault_report import FaultReport
from tests.support.judgement import Rule, judge, judge_end, judge_time
from tests.support.mongo_settings import open_mongo_database
from tests.support.salesforce import APP, sandbox_settings
from tests.support.service_process import HttpServiceProcess, ServiceProcess, open_service

MONGO, SALESFORCE, CAMPAIGNS, CONSENTS = "MongoDB", "Salesforce", "campaign_api", "consent_consumer"
PARTS = (MONGO, SALESFORCE, CAMPAIGNS, CONSENTS)
PATIENT = {"STARTUP_SECONDS": "120"}
SECONDS = 60.0


class Parts:
    """The parts of one start, whatever their order; all are stopped on leaving."""

    def __init__(self, mongo: MongoServer, settings: MongoSettings, directory: Path, stack: AsyncExitStack) -> None:
        self._mongo = mongo
        self._settings = settings
        self._directory = directory
        self._stack = stack
        self._port = free_port()
        self.salesforce: Salesforce | None = None
        self.services: dict[str, ServiceProcess] = {}
        self.campaigns: HttpServiceProcess | None = None

    async def start(self, part: str) -> None:
        """Start one part; a service is left alone as soon as its admin port answers."""
        if part == MONGO:
            await self._mongo.start()
            await self._mongo.wait_for_primary()
        elif part == SALESFORCE:
            settings = sandbox_settings(self._directory, port=self._port)
            self.salesforce = await self._stack.enter_async_context(open_salesforce(settings))
        else:
            service = await self._open_campaigns() if part == CAMPAIGNS else await self._open_consents()
            self.services[part] = service

            async def answers() -> bool:
                return await service.readiness() is not None

            await service.wait(answers, seconds=SECONDS)

    async def _open_campaigns(self) -> ServiceProcess:
        opened = open_campaign_api(self._settings, self._directory, **PATIENT)
        self.campaigns = await self._stack.enter_async_context(opened)
        return self.campaigns

    async def _open_consents(self) -> ServiceProcess:
        secret_file = self._directory / "client-secret"
        secret_file.write_text(APP.client_secret)
        variables = mongo_variables(self._settings) | PATIENT
        variables |= {
            "SALESFORCE__URL": f"http://127.0.0.1:{self._port}",
            "SALESFORCE__CLIENT_ID": APP.client_id,
            "SALESFORCE__CLIENT_SECRET_FILE": str(secret_file),
            "SALESFORCE__BACKOFF_MOST_SECONDS": "1",
            "RETRY__MOST_SECONDS": "1",
            "START": "now",
            "ADMIN__PORT": str(free_port()),
        }
        opened = open_service(ServiceProcess, "consent_consumer", self._directory, variables)
        return await self._stack.enter_async_context(opened)

    async def too_early(self, started: set[str]) -> list[str]:
        """Name each service that has ended, or that says it is ready without its database."""
        ended = [f"{name} has ended" for name, one in self.services.items() if not one.process.is_running]
        if MONGO in started:
            return ended
        ready = [name for name, one in self.services.items() if await one.readiness() == 200]
        return ended + [f"{name} is ready without MongoDB" for name in ready]


async def _prove(parts: Parts, settings: MongoSettings, number: int) -> None:
    """See that a campaign is created, and that a consent reaches Salesforce."""
    await parts.services[CONSENTS].wait_event("Change stream started", count=2, seconds=SECONDS)
    async with open_mongo(background(), settings) as database:
        await database.collection(CONSENT_MASTER).insert_one(master(f"order-{number}"))
    assert parts.campaigns is not None
    await parts.campaigns.wait_readiness(200, seconds=SECONDS)
    async with parts.campaigns.client("ops-1", "operator") as client:
        key = {"idempotency-key": f"order-{number:04}"}
        assert (await client.post("/v1/campaigns", json=campaign_body(), headers=key)).status_code == 201
    salesforce = parts.salesforce
    assert salesforce is not None
    await eventually(lambda: f"s:order-{number}" in salesforce.records(MASTER_OBJECT), seconds=SECONDS)


@pytest.mark.thorough
@pytest.mark.timeout(1_200)
@pytest.mark.fault("X7", "MongoDB, Salesforce, campaign_api and consent_consumer, started in all 24 orders")
async def test_services_on_mongodb_wait_for_what_is_missing_at_their_start(
    own_mongo: MongoServer, tmp_path: Path, fault_report: FaultReport
) -> None:
    """Each waits, live and not ready, for its database, and then works, whether Salesforce came first or last."""
    slowest = 0.0
    async with open_mongo_database(own_mongo) as settings:
        async with open_mongo(background(), settings) as database:
            for name in (CONSENT_MASTER, CONSENT_DETAIL):
                await database.client[settings.database].create_collection(name)
        for number, order in enumerate(itertools.permutations(PARTS), 1):
            await own_mongo.stop()
            directory = tmp_path / str(number)
            directory.mkdir()
            async with AsyncExitStack() as stack:
                parts, started = Parts(own_mongo, settings, directory, stack), set[str]()
                for part in order:
                    await parts.start(part)
                    started.add(part)
                    fault_report.judge(judge(Rule.RIGHT_END, await parts.too_early(started)))
                began = time.monotonic()
                await _prove(parts, settings, number)
                seconds = time.monotonic() - began
                slowest = max(slowest, seconds)
                what = f"{' before '.join(order)}: first campaign and consent"
                fault_report.judge(judge(Rule.NOTHING_LOST), judge_time(what, seconds, at_most=SECONDS))
                for name, service in parts.services.items():
                    service.process.send_signal(SIGTERM)
                    status, last = await service.end(SECONDS)
                    fault_report.judge(judge_end(name, status, last, wanted=(0, "Process stopped")))
    fault_report.measure(slowest_first=f"{slowest:.1f} s")
