"""What the demo does to Salesforce and to MongoDB, to a real sandbox and a real server."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random
from typing import cast

import httpx

from patterns import background
from sandbox.disturbance import FAILURES, WITHOUT_PRIMARY, Disturbance
from sandbox.instance import Service
from sandbox.journal import Journal
from sandbox.salesforce import SalesforceControl
from sandbox.seed import make_seed
from sandbox.servers import MongoServer
from sandbox.traffic import Traffic
from sandbox.world import MongoSide, World
from tests.support.eventually import eventually
from tests.support.salesforce import MASTER, SalesforceClient, master, open_sandbox


class _World:
    """A platform of which nothing but MongoDB runs."""

    instances = ()

    def __init__(self, mongo: MongoServer) -> None:
        self._mongo = mongo

    async def step_mongo_down(self) -> None:
        """Step down."""
        await self._mongo.step_down()


class _Sender:
    """Answer 503, whatever is asked."""

    async def send(self, *_: object, **__: object) -> httpx.Response:
        """Answer."""
        return httpx.Response(503, content=b'{"code":"dependency-unavailable"}')


def _traffic(journal: Journal) -> Traffic:
    seed = make_seed(2, 1)
    journal.seeded(seed)
    senders = {Service.CAMPAIGN_API: _Sender()}
    return Traffic(senders, journal, seed, lambda subject: subject, rate=1, random=Random(1))


async def _keep_calling(client: SalesforceClient, seen: list[str]) -> None:
    """Call again and again, as a consumer would; note each answer, or what there was in place of one."""
    version = 0
    while True:
        version += 1
        try:
            answer = await client.upsert(MASTER, *(master(f"s:{number}", version) for number in range(4)))
        except httpx.HTTPError as error:
            seen.append(type(error).__name__)
        else:
            locked = answer.status_code == 200 and [one["success"] for one in answer.json()].count(False)
            seen.append(f"{answer.status_code} {locked or ''}".strip())
        await asyncio.sleep(0.01)


@asynccontextmanager
async def _calls(client: SalesforceClient) -> AsyncIterator[list[str]]:
    seen: list[str] = []
    task = asyncio.create_task(_keep_calling(client, seen))
    try:
        yield seen
    finally:
        task.cancel()
        await asyncio.wait([task])


async def test_salesforce_fails_in_three_ways_and_serves_again(tmp_path: Path) -> None:
    """A caller meets 503, locked rows and a reset, each as often as is said, and then nothing is wrong any more."""
    said: list[str] = []
    async with open_sandbox(tmp_path) as (salesforce, client), SalesforceControl(salesforce.url) as control:
        with Journal(tmp_path / "journal") as journal:
            disturbance = Disturbance(cast("World", None), MongoSide("", "", control), _traffic(journal), said.append)
            async with _calls(client) as seen:
                await disturbance.fail_salesforce(background())
        assert await control.faults() == {}
        assert len(salesforce.records(MASTER)) == 4
    assert [seen.count(one) for one in ("503", "200 2", "ReadError")] == [fault.calls for _, fault in FAILURES]
    assert [one.startswith("Salesforce serves again") for one in said] == [False, True] * len(FAILURES)


async def test_failing_ends_with_the_demo_and_leaves_no_fault_behind(tmp_path: Path) -> None:
    """Where nobody calls, an end of the demo is not held up, and what was switched on is off."""
    said: list[str] = []
    async with open_sandbox(tmp_path) as (salesforce, _), SalesforceControl(salesforce.url) as control:
        with Journal(tmp_path / "journal") as journal, background().with_cancel() as ctx:
            disturbance = Disturbance(cast("World", None), MongoSide("", "", control), _traffic(journal), said.append)
            failing = asyncio.create_task(disturbance.fail_salesforce(ctx))

            async def is_failing() -> bool:
                return bool(await control.faults())

            await eventually(is_failing)
            ctx.cancel()
            await asyncio.wait_for(failing, 15)
        assert await control.faults() == {}
    assert [one.startswith("Salesforce got fewer than 2 calls") for one in said] == [False, True]


async def test_step_down_is_said_and_allowed_for_until_there_is_a_primary_again(
    own_mongo: MongoServer, tmp_path: Path
) -> None:
    """A request of that time that is refused for want of a database is excused; the same one after it has failed."""
    said: list[str] = []
    refused: list[bool] = []
    with Journal(tmp_path) as journal:
        traffic = _traffic(journal)
        side = MongoSide(own_mongo.superuser_url, "", SalesforceControl("http://127.0.0.1:1"))

        async def browse() -> None:
            await traffic.handle(traffic.members.campaigns.browse("m-1"))

        class Browsing(_World):
            async def step_mongo_down(self) -> None:
                await super().step_mongo_down()
                async with own_mongo.connect() as client:
                    refused.append(not (await client.admin.command("hello"))["isWritablePrimary"])
                await browse()

        disturbance = Disturbance(cast("World", Browsing(own_mongo)), side, traffic, said.append)
        await disturbance.step_mongo_down()
        async with own_mongo.connect() as client:
            assert (await client.admin.command("hello"))["isWritablePrimary"]
        await browse()
        statistics = traffic.statistics()
    assert refused == [True]
    assert (statistics.excused, statistics.failed) == (1, 1)
    assert "503 dependency-unavailable" in WITHOUT_PRIMARY
    assert "1 requests for campaigns were refused" in said[-1]
