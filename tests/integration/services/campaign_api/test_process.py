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
from tests.support.campaign_api_client import match, path_of
from tests.support.campaign_api_process import open_campaign_api
from tests.support.campaign_sample import ACTIVE, some_campaign
from tests.support.campaign_world import MongoWorld, open_mongo_world
from tests.support.service_process import HttpServiceProcess


@pytest.fixture
async def world(mongo_settings: MongoSettings) -> AsyncIterator[MongoWorld]:
    """The store that the process uses, too."""
    async with open_mongo_world(mongo_settings) as opened:
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


async def test_answers_without_a_body_leave_the_connection_usable(world: MongoWorld, tmp_path: Path) -> None:
    """304, 204 and what follows them go over one connection, and the client knows where each one ends."""
    campaign = some_campaign()
    await world.put(campaign)
    async with open_campaign_api(world.settings, tmp_path) as service:
        await service.wait_readiness(200)
        async with service.client("ops-1", "operator", connections=1) as operator:
            answers = [
                await operator.get(path_of(campaign), headers={"if-none-match": '"1"'}),
                await operator.delete(path_of(campaign), headers=match(1)),
                await operator.get(path_of(campaign)),
            ]
            ports = {answer.extensions["network_stream"].get_extra_info("client_addr") for answer in answers}
        metrics = await service.metrics()

    assert len(ports) == 1
    assert [answer.status_code for answer in answers] == [304, 204, 404]
    assert [answer.content for answer in answers[:2]] == [b"", b""]
    assert metrics['lp_mongo_pool_opened_total{name="default"}'] >= 1
