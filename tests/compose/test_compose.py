"""The stack of docker-compose.yml, disturbed in every way that its operators or their machines know of."""

import asyncio
import os
import re
import signal
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Final

import pytest

from patterns import background
from sandbox.audit import Verdict
from sandbox.compose import ComposeSystem, bad_ends, open_compose
from sandbox.delivery import ROWS, Delivery
from sandbox.docker import docker, inspect
from sandbox.instance import COUPON_FLOW, Service
from sandbox.seed import make_seed, plant
from tests.support.eventually import eventually
from tests.support.flow import MEMBERS, POINTS, Flow, flow_on

AWAY_SECONDS = 10.0
RATE = 15.0
FLOWS: Final = (COUPON_FLOW, tuple(service for service in Service if service.needs_mongo))
"""Services that know nothing of one another."""

pytestmark = pytest.mark.timeout(900)


@pytest.fixture
async def stack() -> AsyncIterator[ComposeSystem]:
    """A stack of which nothing runs yet; `down` leaves nothing of it."""
    async with open_compose(f"loyalty-test-{os.getpid()}") as system:
        yield system
    assert await system.left_over() == []


async def _replace_each(flow: Flow[ComposeSystem]) -> None:
    """Do a rolling restart of every instance of every service, under load."""
    for service in Service:
        for old in [one for one in flow.system.instances if one.service is service]:
            await flow.system.replace(old)
            await flow.wait_requests(30)


async def _kill_each(flow: Flow[ComposeSystem], services: Sequence[Service]) -> None:
    """Kill one instance of each of some services and start it again."""
    for service in services:
        await flow.replace_killed(service)
        await flow.wait_requests(30)


async def _take_away(flow: Flow[ComposeSystem], *servers: str) -> None:
    """Stop servers for ten seconds, and wait until everybody has found them again; no container restarts meanwhile."""
    container_ids = [one for server in servers for one in await flow.system.container_ids(server)]
    assert len(container_ids) == len(servers)
    ours = [one.container_id for one in flow.system.instances]
    await docker("stop", *container_ids)
    await asyncio.sleep(AWAY_SECONDS)
    await docker("start", *container_ids)
    await flow.wait_all_ready(120)
    await flow.wait_requests(100)
    for one in ours:
        assert await docker("inspect", "--format", "{{.RestartCount}}", one) == "0\n"


async def _scale_to_three_and_back(flow: Flow[ComposeSystem]) -> None:
    """Give the consumer two companions, each with partitions of its own, and take the two oldest away again."""
    for _ in range(2):
        await flow.system.start(Service.COUPON_CONSUMER)
    consumers = [one for one in flow.system.instances if one.service is Service.COUPON_CONSUMER]

    async def all_have_work() -> bool:
        return all([await one.has_work() for one in consumers])

    await eventually(all_have_work, seconds=60, pause_seconds=0.5)
    await flow.wait_requests(50)
    for one in consumers[:2]:
        await flow.system.stop(one)
    await flow.wait_requests(50)


def _check(verdict: Verdict) -> None:
    """See that nothing differs, and that there was something of everything to look at."""
    assert verdict.is_ok, "\n".join(verdict.lines())
    assert verdict.redemptions_told > 0
    assert verdict.documents is not None
    assert verdict.documents.campaigns_told > 0
    assert verdict.documents.records > 0


async def test_stack_restarted_and_scaled_under_load_fails_no_request(stack: ComposeSystem, tmp_path: Path) -> None:
    """Rolling restarts of every service and a consumer scaled to three and back cost nothing, and all end with 0.

    Before that a file is loaded while members redeem, stopped, gone on with and loaded again; its rows are there once.
    """
    await stack.up()
    members = make_seed(MEMBERS, POINTS)
    await plant(members, stack.rewards_url)
    async with flow_on(stack, tmp_path, members, rate=RATE) as flow:
        await flow.wait_requests(60)
        delivery = Delivery(stack, flow.journal, 7, print)
        await delivery.run(background())
        await _replace_each(flow)
        await _scale_to_three_and_back(flow)
        verdict = await flow.verdict()
    _check(verdict)
    assert delivery.differences == []
    assert verdict.loads is not None
    assert verdict.loads.rows == ROWS
    assert verdict.failed_requests == 0
    assert bad_ends(await stack.stop_all()) == []


async def test_stack_killed_and_without_its_servers_breaks_no_promise(stack: ComposeSystem, tmp_path: Path) -> None:
    """After kill -9 of one of each service, and ten seconds without each server, the audit is content."""
    await stack.up()
    members = make_seed(MEMBERS, POINTS)
    await plant(members, stack.rewards_url)
    async with flow_on(stack, tmp_path, members, rate=RATE) as flow:
        await flow.wait_requests(60)
        await asyncio.gather(*(_kill_each(flow, services) for services in FLOWS))
        await _take_away(flow, "kafka", "salesforce")
        await _take_away(flow, "postgres", "mongo")
        verdict = await flow.verdict(failures_allowed=True)
    _check(verdict)
    assert bad_ends(await stack.stop_all()) == []


async def _stop_audited(stack: ComposeSystem) -> int:
    """Wait until the members have told of their requests, stop everything, and return how many the audit covers."""
    (demo,) = await stack.container_ids("demo")

    async def last_line() -> str:
        return (await docker("logs", "--tail", "1", demo)).strip()

    async def have_told() -> bool:
        return (await last_line()).startswith("requests")

    await eventually(have_told, seconds=60, pause_seconds=0.5)
    ends = await stack.stop_all()
    found = re.match(r"audit ok: (\d+) requests", await last_line())
    assert found, await docker("logs", demo)
    assert bad_ends(ends) == []
    return int(found[1])


async def _await_restart_by_engine(container_id: str) -> None:
    """Kill a container's process as the kernel would, behind the engine's back, and wait until it is healthy again."""
    (found,) = await inspect(container_id)
    os.kill(found["State"]["Pid"], signal.SIGKILL)

    async def is_back() -> bool:
        (now,) = await inspect(container_id)
        return bool(now["RestartCount"] == 1 and now["State"]["Health"]["Status"] == "healthy")

    await eventually(is_back, seconds=120, pause_seconds=0.5)


async def test_stack_with_its_own_members_audits_itself_at_each_stop(stack: ComposeSystem) -> None:
    """Stopped, every container of ours has ended with 0; started again, the members go on and audit both runs.

    A consumer that dies meanwhile is started again by the engine, and nobody notices.
    """
    await stack.up(members=1)
    (consumer,) = await stack.container_ids("coupon-consumer")
    if os.geteuid() == 0:  # nobody else may kill what the engine started
        await _await_restart_by_engine(consumer)
    first = await _stop_audited(stack)
    await stack.compose("start", timeout_seconds=120)
    assert await _stop_audited(stack) > first
