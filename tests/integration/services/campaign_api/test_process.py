"""campaign_api as a process: how it starts, how it ends, and what survives its death."""

import asyncio
import signal
import socket
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from loyalty.campaign import Campaign
from runtime.mongo_settings import MongoSettings
from sandbox.servers import MongoServer
from sandbox.servers.mongo import open_mongo_nodes
from tests.support.campaign_api_client import PATH, campaign_body, match, path_of
from tests.support.campaign_api_process import open_campaign_api
from tests.support.campaign_sample import ACTIVE, some_campaign
from tests.support.campaign_world import MongoWorld, open_mongo_world
from tests.support.fault_report import FaultReport
from tests.support.ledger import judge_units
from tests.support.mongo_settings import open_mongo_database
from tests.support.servers import embedded_only
from tests.support.service_process import HttpServiceProcess, armed

ORDER = campaign_body()
KEY = {"idempotency-key": "key-00001"}


@pytest.fixture
async def own_settings(own_mongo: MongoServer) -> AsyncIterator[MongoSettings]:
    """Settings that lead to a database on a server of the test's own; it is running again when the test ends."""
    async with open_mongo_database(own_mongo) as settings:
        yield settings


@pytest.fixture
async def world(mongo_settings: MongoSettings) -> AsyncIterator[MongoWorld]:
    """The store that the process uses, too."""
    async with open_mongo_world(mongo_settings) as opened:
        yield opened


@pytest.fixture
async def brief_world() -> AsyncIterator[MongoWorld]:
    """The same on a server that ends the transactions of the dead sooner than after a minute."""
    async with (
        open_mongo_nodes(parameters={"transactionLifetimeLimitSeconds": "3"}) as (server,),
        open_mongo_database(server) as settings,
        open_mongo_world(settings) as opened,
    ):
        yield opened


async def test_bad_settings_end_with_78_and_name_each_one(mongo_settings: MongoSettings, tmp_path: Path) -> None:
    """All that is wrong is told at once, and no value of it."""
    settings = {"MONGO__DRIVER": "mongoose", "MONGO__POOL_MAX": "0", "KEEP_KEYS": "7"}
    async with open_campaign_api(mongo_settings, tmp_path, **settings) as service:
        status = await service.process.wait(20)
        text = service.process.log.read_text()

    assert status == 78
    for name in ("CAMPAIGN_API_MONGO__DRIVER", "CAMPAIGN_API_MONGO__POOL_MAX", "CAMPAIGN_API_KEEP_KEYS"):
        assert name in text
    assert "mongoose" not in text


async def test_database_down_at_start_ends_with_1_and_the_last_error(
    own_mongo: MongoServer, own_settings: MongoSettings, tmp_path: Path
) -> None:
    """The service waits as long as its setting says, then says why it gave up; HTTP was never served."""
    await own_mongo.stop()
    try:
        settings = {"STARTUP_SECONDS": "2", "MONGO__OPERATION_TIMEOUT_SECONDS": "0.5"}
        async with open_campaign_api(own_settings, tmp_path, **settings) as service:
            status = await service.process.wait(20)
            text = service.process.log.read_text()
    finally:
        await own_mongo.start()

    assert status == 1
    assert "Waiting for the database" in service.events()
    assert "no connection within 2.0 s; last error: " in text
    assert "Connect" in text or "refused" in text
    assert "Starting HTTP server" not in service.events()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_signal_while_the_database_is_awaited_ends_with_0(
    own_mongo: MongoServer, own_settings: MongoSettings, tmp_path: Path, number: signal.Signals
) -> None:
    """Nobody has to wait for the end of a start that is not wanted any more, not even on a server that is frozen."""
    own_mongo.freeze()
    try:
        async with open_campaign_api(own_settings, tmp_path) as service:
            await service.wait_event("Waiting for the database")
            assert await service.readiness() == 503
            service.process.send_signal(number)

            assert await service.process.wait(10) == 0
    finally:
        own_mongo.thaw()
    assert "Starting HTTP server" not in service.events()


async def test_database_that_comes_late_is_waited_for(
    own_mongo: MongoServer, own_settings: MongoSettings, tmp_path: Path
) -> None:
    """The service is not ready before its database is, and then it is, with the client that it built before."""
    await own_mongo.stop()
    async with open_campaign_api(own_settings, tmp_path) as service:
        await service.wait_event("Waiting for the database")
        await own_mongo.start()
        await service.wait_readiness(200)
        service.process.send_signal(signal.SIGTERM)

        assert await service.process.wait(20) == 0


async def test_index_in_another_form_ends_with_1_and_its_name(world: MongoWorld, tmp_path: Path) -> None:
    """A conflict that only an operator can mend is told, and nothing is served on a database without its indexes."""
    campaigns = world.database.collection("campaigns")
    await campaigns.drop_index("by_status")
    await campaigns.create_index([("status", 1)], name="by_status")
    async with open_campaign_api(world.settings, tmp_path) as service:
        status = await service.process.wait(20)

    assert status == 1
    assert "IndexConflictError" in service.process.log.read_text()
    assert "by_status" in service.process.log.read_text()
    assert "Starting HTTP server" not in service.events()


async def test_port_in_use_is_reported_through_server_errors(mongo_settings: MongoSettings, tmp_path: Path) -> None:
    """The status is 1, and the database was closed in order, last, all the same."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        async with open_campaign_api(mongo_settings, tmp_path, HTTP__PORT=port) as service:
            status = await service.process.wait(20)

    events = service.events()
    assert status == 1
    assert "Server failed" in events
    phases = [line["phase"] for line in service.log() if line["event"] == "Stop phase done"]
    assert phases == ["http server", "mongo"]
    assert "Application shutdown completed" not in events


@pytest.mark.parametrize("driver", ["pymongo", "motor"])
async def test_stop_under_load_loses_no_request(world: MongoWorld, tmp_path: Path, driver: str) -> None:
    """Twenty busy keep-alive clients see answers to all they sent; the log has the original's words in their order."""
    campaigns = [some_campaign(ACTIVE) for _ in range(20)]
    for campaign in campaigns:
        await world.put(campaign)
    # The lag must outlast the busiest client's pause between connecting and sending: here all share one loop.
    settings = {"HTTP__DRAIN_LAG_SECONDS": "5", "MONGO__DRIVER": driver}
    async with open_campaign_api(world.settings, tmp_path, **settings) as service:
        await service.wait_readiness(200)
        outcomes: Counter[str] = Counter()
        is_busy = asyncio.Event()
        clients = [asyncio.create_task(_read_until_refused(service, one, outcomes, is_busy)) for one in campaigns]
        await is_busy.wait()
        service.process.send_signal(signal.SIGTERM)
        status = await service.process.wait(20)
        await asyncio.gather(*clients)

    words = ["Starting HTTP server", "Received shutdown signal", "Application shutdown completed"]
    assert status == 0
    assert set(outcomes) == {"200", "refused"}
    assert outcomes["refused"] == len(clients)
    assert [event for event in service.events() if event in words] == words


async def _read_until_refused(
    service: HttpServiceProcess, campaign: Campaign, outcomes: "Counter[str]", is_busy: asyncio.Event
) -> None:
    """Read one campaign over and over, on a connection that is kept alive, until nobody accepts a new one."""
    async with service.client("m-1", "member") as client:
        while True:
            try:
                response = await client.get(path_of(campaign))
            except httpx.ConnectError:
                outcomes["refused"] += 1
                return
            except httpx.TransportError as error:
                outcomes[type(error).__name__] += 1
                return
            outcomes[str(response.status_code)] += 1
            if outcomes["200"] == 200:
                is_busy.set()


@embedded_only
@pytest.mark.parametrize(
    "point",
    [
        pytest.param(point, marks=pytest.mark.fault("H7", f"kill -9 of campaign_api while it creates one, {point}"))
        for point in ("after-insert", "after-key", "after-commit")
    ],
)
async def test_order_whose_server_died_is_done_once_by_its_repetition(
    brief_world: MongoWorld, tmp_path: Path, fault_report: FaultReport, point: str
) -> None:
    """Wherever kill -9 hits, the same order with the same key gets an answer, again the same, and one exists.

    Only a key that was written and not committed is in progress, until the server ends the dead process's transaction.
    """
    world = brief_world
    async with open_campaign_api(world.settings, tmp_path, **armed(point)) as service:
        await service.wait_readiness(200)
        async with service.client("ops-1", "operator") as operator:
            with pytest.raises(httpx.TransportError):
                await operator.post(PATH, json=ORDER, headers=KEY)
        assert await service.process.wait(20) == 128 + signal.SIGKILL
    left = await world.count()
    async with open_campaign_api(world.settings, tmp_path) as service:
        await service.wait_readiness(200)
        async with service.client("ops-1", "operator") as operator:
            first, refusals = await _repeat_while_in_progress(operator)
            second = await operator.post(PATH, json=ORDER, headers=KEY)

    assert left == (1 if point == "after-commit" else 0)
    assert refusals <= ({"request-in-progress"} if point == "after-key" else set())
    assert [answer.status_code for answer in (first, second)] == [201, 201]
    assert first.content == second.content
    told = [(KEY["idempotency-key"], answer.json()["campaign_id"]) for answer in (first, second)]
    stored = [(KEY["idempotency-key"], one["_id"]) async for one in world.database.collection("campaigns").find({})]
    fault_report.judge(judge_units(told, told, stored))


async def _repeat_while_in_progress(operator: httpx.AsyncClient) -> tuple[httpx.Response, set[str]]:
    """Repeat the order until it is no longer refused as in progress; return the answer, and what came before it."""
    refusals: set[str] = set()
    async with asyncio.timeout(40):
        while True:
            answer = await operator.post(PATH, json=ORDER, headers=KEY)
            if answer.status_code != 409:
                return answer, refusals
            refusals.add(answer.json()["code"])
            await asyncio.sleep(0.1)


@pytest.mark.fault("H7", "kill -9 of campaign_api after it changed a campaign, before its answer")
async def test_change_whose_server_died_is_answered_by_its_repetition(
    world: MongoWorld, tmp_path: Path, fault_report: FaultReport
) -> None:
    """The change was made once, and its repetition under the same ETag gets it as its answer."""
    campaign = some_campaign()
    await world.put(campaign)
    async with open_campaign_api(world.settings, tmp_path, **armed("after-change")) as service:
        await service.wait_readiness(200)
        async with service.client("ops-1", "operator") as operator:
            with pytest.raises(httpx.TransportError):
                await operator.patch(path_of(campaign), json={"status": "active"}, headers=match(1))
        assert await service.process.wait(20) == 128 + signal.SIGKILL
    async with open_campaign_api(world.settings, tmp_path) as service:
        await service.wait_readiness(200)
        async with service.client("ops-1", "operator") as operator:
            answer = await operator.patch(path_of(campaign), json={"status": "active"}, headers=match(1))

    assert (answer.status_code, answer.json()["status"], answer.headers["etag"]) == (200, "active", '"2"')
    told = [(campaign.campaign_id, f"{answer.json()['status']} {answer.headers['etag']}")]
    view = await world.store.find_campaign(campaign.campaign_id)
    assert view is not None
    stored = [(view["campaign_id"], f'{view["status"]} "{view["version"]}"')]
    fault_report.judge(judge_units(told, told, stored))


async def test_deletion_whose_server_died_finds_nothing_when_it_is_repeated(world: MongoWorld, tmp_path: Path) -> None:
    """The campaign is gone, and the repetition says so."""
    campaign = some_campaign()
    await world.put(campaign)
    async with open_campaign_api(world.settings, tmp_path, **armed("after-delete")) as service:
        await service.wait_readiness(200)
        async with service.client("ops-1", "operator") as operator:
            with pytest.raises(httpx.TransportError):
                await operator.delete(path_of(campaign), headers=match(1))
        assert await service.process.wait(20) == 128 + signal.SIGKILL
    async with open_campaign_api(world.settings, tmp_path) as service:
        await service.wait_readiness(200)
        async with service.client("ops-1", "operator") as operator:
            answer = await operator.delete(path_of(campaign), headers=match(1))

    assert (answer.status_code, answer.json()["code"]) == (404, "campaign-not-found")
    assert await world.count() == 0


@pytest.mark.parametrize("driver", ["pymongo", "motor"])
async def test_database_restart_is_ridden_out(
    own_mongo: MongoServer, own_settings: MongoSettings, tmp_path: Path, driver: str
) -> None:
    """While the database is away reads get 503 with Retry-After; when it is back they work, in the same process."""
    settings = {"MONGO__DRIVER": driver, "MONGO__OPERATION_TIMEOUT_SECONDS": "1"}
    async with open_campaign_api(own_settings, tmp_path, **settings) as service:
        await service.wait_readiness(200)
        async with service.client("ops-1", "operator") as operator:
            path = (await operator.post(PATH, json=ORDER, headers=KEY)).headers["location"]
            await own_mongo.kill()
            away = await operator.get(path)
            written = await operator.patch(path, json={"name": "Winter"}, headers=match(1))
            await service.wait_readiness(503)
            await own_mongo.start()
            await service.wait_readiness(200)
            back = await operator.patch(path, json={"name": "Winter"}, headers=match(1))

    for answer in (away, written):
        assert (answer.status_code, answer.json()["code"]) == (503, "dependency-unavailable")
        assert answer.headers["retry-after"] == "1"
    assert (back.status_code, back.json()["name"], back.headers["etag"]) == (200, "Winter", '"2"')


async def test_frozen_database_costs_each_request_its_own_deadline(
    own_mongo: MongoServer, own_settings: MongoSettings, tmp_path: Path
) -> None:
    """Every read of a database that never answers ends with 503 or 504; after the thaw reads work, with no restart."""
    settings = {"HTTP__REQUEST_TIMEOUT_SECONDS": "1", "MONGO__OPERATION_TIMEOUT_SECONDS": "0.7"}
    async with open_campaign_api(own_settings, tmp_path, **settings) as service:
        await service.wait_readiness(200)
        async with service.client("ops-1", "operator") as operator:
            path = (await operator.post(PATH, json=ORDER, headers=KEY)).headers["location"]
            own_mongo.freeze()
            try:
                answers = await asyncio.gather(*(operator.get(path) for _ in range(30)))
                await service.wait_readiness(503)
            finally:
                own_mongo.thaw()
            await service.wait_readiness(200)
            back = await operator.get(path)

    assert {answer.status_code for answer in answers} <= {503, 504}
    assert back.status_code == 200
