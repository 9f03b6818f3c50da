"""C3 and C4: nodes of MongoDB step down, die, sleep, and go away altogether, under changes."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import pytest

from sandbox.servers import MongoServer, open_mongo_nodes
from tests.support.consent_consumer_process import ConsentWorld
from tests.support.consent_judge import finish_consents, judge_saves, recorded_saves, wait_carried
from tests.support.consent_members import ConsentMembers
from tests.support.consent_world import PATIENT, open_consents
from tests.support.eventually import eventually
from tests.support.fault_report import FaultReport
from tests.support.footprint import footprint_of, judge_settled
from tests.support.judgement import judge_time
from tests.support.servers import embedded_only
from tests.support.service_process import ServiceProcess

pytestmark = [embedded_only, pytest.mark.thorough, pytest.mark.timeout(300)]

SLEEP_SECONDS: Final = 12.0
AWAY_SECONDS: Final = 20.0
"""Longer than the lease."""
BACK_SECONDS: Final = 60.0
POOL: Final = 20
"""How many connections to one node the pool may have on top of what it had when it was idle."""


@asynccontextmanager
async def open_three(directory: Path) -> AsyncIterator[tuple[list[MongoServer], ConsentWorld, ConsentMembers]]:
    """Start three nodes that elect soon, and the world upon them."""
    async with (
        open_mongo_nodes(3, settings={"electionTimeoutMillis": 2_000}) as nodes,
        open_consents(nodes, directory) as (world, members),
    ):
        yield nodes, world, members


async def _hurt_primary(primary: MongoServer, how: str) -> None:
    """Hurt the first node, and have it back."""
    if how == "step-down":
        await primary.step_down(seconds=5)
    elif how == "kill -9":
        await primary.kill()
        await asyncio.sleep(1)
        await primary.start()
    else:
        primary.freeze()
        await asyncio.sleep(SLEEP_SECONDS)
        primary.thaw()


async def _wait_more(world: ConsentWorld, *, seconds: float) -> float:
    """Wait until Salesforce is told something from now on; return how long that took."""
    began = time.monotonic()
    applied = sum(1 for _ in world.salesforce.applied())
    await eventually(lambda: sum(1 for _ in world.salesforce.applied()) > applied, seconds=seconds, pause_seconds=0.1)
    return time.monotonic() - began


@pytest.mark.parametrize(
    "how",
    [
        pytest.param("step-down", marks=pytest.mark.fault("C3", "step-down of the primary of three, twice")),
        pytest.param("kill -9", marks=pytest.mark.fault("C3", "kill -9 of the primary of three, twice")),
        pytest.param("SIGSTOP", marks=pytest.mark.fault("C3", f"the primary of three frozen for {SLEEP_SECONDS:g} s")),
    ],
)
async def test_streams_ride_out_an_election(tmp_path: Path, fault_report: FaultReport, how: str) -> None:
    """The process goes on by itself behind the last change that it read: no gap, no step back, no restart."""
    async with open_three(tmp_path) as (nodes, world, members), recorded_saves(world) as saves:
        async with world.consumer(**PATIENT) as consumer:
            await consumer.wait_event("Change stream started", count=2)
            back = 0.0
            async with members.at_work(pause_seconds=0.01):
                for _ in range(1 if how == "SIGSTOP" else 2):
                    await _wait_more(world, seconds=40)
                    await _hurt_primary(nodes[0], how)
                    back = max(back, await _wait_more(world, seconds=BACK_SECONDS))
                    await nodes[0].wait_for_primary()
            fault_report.judge(await finish_consents(world, members, consumer))
        fault_report.measure(writes=str(members.writes), went_on_after=f"{back:.1f} s")
    fault_report.judge(judge_saves(saves))


@pytest.mark.parametrize(
    "gone",
    [
        pytest.param(3, marks=pytest.mark.fault("C4", f"all three nodes away for {AWAY_SECONDS:g} s under changes")),
        pytest.param(2, marks=pytest.mark.fault("C4", f"no majority for {AWAY_SECONDS:g} s under changes")),
    ],
)
async def test_streams_wait_for_a_majority(tmp_path: Path, fault_report: FaultReport, gone: int) -> None:
    """Longer than its lease it is not ready and asks with pauses; with the majority it goes on, the same process."""
    async with open_three(tmp_path) as (nodes, world, members):
        async with world.consumer(**PATIENT) as consumer:
            await consumer.wait_event("Change stream started", count=2)
            idle = footprint_of(consumer.process.pid)
            async with members.at_work(pause_seconds=0.01):
                await _wait_more(world, seconds=40)
                tries = await _take_away(nodes[:gone], consumer)
                back = await _wait_more(world, seconds=BACK_SECONDS)
                await nodes[0].wait_for_primary()
            await consumer.wait_readiness(200)
            await wait_carried(world, members)
            fault_report.judge(await judge_settled(consumer.process.pid, idle, more=POOL))
            fault_report.judge(await finish_consents(world, members, consumer))
        fault_report.judge(judge_time("coming back", back, at_most=BACK_SECONDS))
        fault_report.measure(back=f"{back:.1f} s", tries=str(tries))
    assert tries <= 2 * (AWAY_SECONDS + back) / 0.25  # two streams, and a pause of half of 0.5 s at least


async def _take_away(nodes: Sequence[MongoServer], consumer: ServiceProcess) -> int:
    """Kill nodes, see the consumer say so, and start them again; return how often it opened a stream in vain."""
    for node in nodes:
        await node.kill()
    await consumer.wait_readiness(503)
    await asyncio.sleep(AWAY_SECONDS)
    tries = consumer.events().count("Change stream interrupted")
    await asyncio.gather(*(node.start() for node in nodes))
    return tries
