"""campaign_api under kills and outages: what was answered is there, once, and a repetition finds it."""

import asyncio
import json
import signal
from collections.abc import AsyncIterator
from itertools import count
from pathlib import Path

import httpx
import pytest

from runtime.mongo_settings import MongoSettings
from sandbox.servers import MongoServer
from sandbox.servers.mongo import open_mongo_nodes
from tests.support.campaign_api_client import PATH, campaign_body, match, path_of
from tests.support.campaign_api_process import open_campaign_api
from tests.support.campaign_sample import some_campaign
from tests.support.campaign_world import MongoWorld, open_mongo_world
from tests.support.fault_report import FaultReport
from tests.support.ledger import judge_units
from tests.support.mongo_settings import open_mongo_database
from tests.support.servers import embedded_only
from tests.support.service_process import armed

ORDER = campaign_body()
KEY = {"idempotency-key": "key-00001"}


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
@pytest.mark.parametrize(
    "disturbance",
    [
        pytest.param(kind, marks=pytest.mark.fault("H18", f"{kind} of the only node while campaigns are created"))
        for kind in ("forced step-down", "kill -9")
    ],
)
async def test_primary_that_goes_and_comes_back_costs_no_order(
    own_mongo: MongoServer,
    own_settings: MongoSettings,
    tmp_path: Path,
    fault_report: FaultReport,
    driver: str,
    disturbance: str,
) -> None:
    """Whoever repeats with the same key what got 503 or 409 has one campaign for each order in the end."""
    settings = {"MONGO__DRIVER": driver, "MONGO__OPERATION_TIMEOUT_SECONDS": "2"}
    told: list[tuple[str, str]] = []
    is_busy, is_over = asyncio.Event(), asyncio.Event()

    async def order(key: str) -> None:
        while (answer := await operator.post(PATH, json=ORDER, headers={"idempotency-key": key})).status_code != 201:
            assert answer.status_code in (409, 503), answer.text
            await asyncio.sleep(0.05)
        told.append((key, answer.json()["campaign_id"]))
        if len(told) == 10:
            is_busy.set()

    async def order_till_it_is_over(customer: int) -> None:
        for number in count():
            await order(f"key-{customer}-{number:05}")
            if is_over.is_set():
                return

    async def disturb() -> int:
        await is_busy.wait()
        if disturbance == "kill -9":
            await own_mongo.kill()
            await own_mongo.start()
        else:
            await own_mongo.step_down()
        await own_mongo.wait_for_primary()
        is_over.set()
        return len(told)

    async with open_campaign_api(own_settings, tmp_path, **settings) as service:
        await service.wait_readiness(200)
        async with (
            service.client("ops-1", "operator") as operator,
            asyncio.timeout(50),
            asyncio.TaskGroup() as customers,
        ):
            for number in range(4):
                customers.create_task(order_till_it_is_over(number))
            told_before = await disturb()
        await service.wait_readiness(200)

    async with open_mongo_world(own_settings) as world:
        keys = [each async for each in world.database.collection("idempotency_keys").find()]
        kept = [(each["_id"]["key"], json.loads(each["response"])["campaign_id"]) for each in keys]
        stored = [each["_id"] async for each in world.database.collection("campaigns").find()]
    assert told_before < len(told)
    assert sorted(campaign_id for _, campaign_id in kept) == sorted(stored)
    fault_report.judge(judge_units(told, told, kept))


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
