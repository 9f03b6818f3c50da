"""C2: the consumer killed between any two of its steps, and in the middle of those that leave it."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

import pytest

from sandbox.salesforce import Fault, FaultKind
from sandbox.servers import MongoServer
from services.consent_consumer.change_stream import CONSENT_MASTER
from tests.support.consent_consumer_process import ConsentWorld, master
from tests.support.consent_judge import (
    finish_consents,
    judge_saves,
    recorded_saves,
    replays,
)
from tests.support.consent_members import ConsentMembers
from tests.support.consent_world import PATIENT, SHORT_LEASE, begin, open_consents
from tests.support.eventually import eventually
from tests.support.fault_proxy import open_fault_proxy
from tests.support.fault_report import FaultReport
from tests.support.seeds import seeded
from tests.support.service_process import armed

KILLED: Final = 137
KILLS: Final = 24
POINTS: Final = {"after-read": 6, "before-call": 6, "after-call": 6, "before-save": 6, "after-save": 6, "after-bury": 1}
"""The points of the process itself, and up to which arrival at each it may live."""

Death = Callable[[ConsentWorld, int], Awaitable[None]]


async def _die_at(world: ConsentWorld, point: str, hit: int) -> None:
    async with world.consumer(**PATIENT, **SHORT_LEASE, **armed(point, hit)) as doomed:
        assert await doomed.process.wait(60) == KILLED, doomed.process.log.read_text()


async def _die_unanswered(world: ConsentWorld) -> None:
    """Kill it when Salesforce has applied a call and has not answered."""
    number = world.salesforce.faults.switch_on(Fault(kind=FaultKind.HANG, after_apply=True))
    applied = sum(1 for _ in world.salesforce.applied())
    async with world.consumer(**PATIENT, **SHORT_LEASE) as doomed:
        await eventually(lambda: sum(1 for _ in world.salesforce.applied()) > applied, seconds=60)
        await doomed.process.kill()
    world.salesforce.faults.switch_off(number)


async def _die_in_save(world: ConsentWorld) -> None:
    """Kill it when the database answers nothing more, with saves and everything else on their way."""
    async with (
        open_fault_proxy(world.port) as proxy,
        world.behind(proxy).consumer(**PATIENT, **SHORT_LEASE) as doomed,
    ):
        await doomed.wait_event("Change stream started", count=2)
        applied = sum(1 for _ in world.salesforce.applied())
        await eventually(lambda: sum(1 for _ in world.salesforce.applied()) > applied, seconds=60)
        proxy.down.swallow()
        told = proxy.statistics().bytes_up
        await eventually(lambda: proxy.statistics().bytes_up > told, seconds=20)
        await doomed.process.kill()


async def _die(world: ConsentWorld, members: ConsentMembers, point: str, hit: int) -> None:
    if point == "unanswered":
        await _die_unanswered(world)
    elif point == "in-save":
        await _die_in_save(world)
    else:
        if point == "after-bury":
            await members.put(CONSENT_MASTER, master(f"odd {members.writes}", member_id=7))
        await _die_at(world, point, hit)


@pytest.mark.thorough
@pytest.mark.timeout(900)
@pytest.mark.fault("C2", f"{KILLS} kills under changes, at {len(POINTS)} points, in an unanswered call and in a save")
async def test_kills_at_every_step_lose_and_invent_nothing(
    mongo: MongoServer, tmp_path: Path, fault_report: FaultReport
) -> None:
    """Whoever comes next goes on from the saved place: what it tells again changes nothing, and no version falls."""
    random = seeded("kill")
    windows = [*POINTS, "unanswered", "in-save"]
    deaths = windows * (KILLS // len(windows))
    random.shuffle(deaths)
    async with open_consents([mongo], tmp_path) as (world, members), recorded_saves(world) as saves:
        await begin(world)
        async with members.at_work(pause_seconds=0.02):
            for point in deaths:
                await _die(world, members, point, random.randint(1, POINTS.get(point, 1)))
        async with world.consumer(**PATIENT, **SHORT_LEASE) as last:
            fault_report.judge(await finish_consents(world, members, last))
        fault_report.measure(writes=str(members.writes), told_again=str(replays(world)))
    fault_report.judge(judge_saves(saves))
