"""G14: a place is saved only under the lease that has taken it, and never a step back."""

from pathlib import Path

import pytest

from sandbox.servers import MongoServer
from tests.support.consent_judge import judge_saves, recorded_saves
from tests.support.consent_world import SHORT_LEASE
from tests.support.fault_report import FaultReport
from tests.support.guard_scene import wait_frozen
from tests.support.judgement import Judgement, Rule
from tests.support.salesforce_scene import SalesforceScene, open_salesforce_scene
from tests.support.service_process import armed


async def _overtake(scene: SalesforceScene, without: str | None) -> Judgement:
    """Freeze a consumer in a save beyond its lease, let another one go on to the end, thaw the first; judge both."""
    # The first two saves are those of the beginning, one a stream.
    point = armed("before-save", 4, action="freeze")
    async with (
        recorded_saves(scene.world) as saves,
        scene.consumer(without=without, **SHORT_LEASE, **point) as frozen,
    ):
        async with scene.members.at_work(pause_seconds=0.05):
            await wait_frozen(frozen)
        async with scene.consumer(without=without, **SHORT_LEASE) as following:
            await scene.carry()
            judgement = await scene.finish(following)
        frozen.process.thaw()
        await frozen.wait_event("The lease is lost")
        judgement |= await scene.finish(frozen)
    return judgement | judge_saves(saves)


@pytest.mark.fault("G14", "a consumer frozen in a save beyond its lease, overtaken, thawed")
async def test_consumer_that_slept_through_its_lease_moves_nothing(
    mongo: MongoServer, tmp_path: Path, fault_report: FaultReport
) -> None:
    """Its save is refused, it waits for the next lease, and the place of each stream has only ever gone forward."""
    async with open_salesforce_scene(mongo, tmp_path) as scene:
        fault_report.judge(await _overtake(scene, None))


@pytest.mark.fault("G14", "without the fence: a consumer frozen in a save beyond its lease, overtaken, thawed")
async def test_without_the_fence_a_sleeper_takes_the_place_back(
    mongo: MongoServer, tmp_path: Path, fault_report: FaultReport
) -> None:
    """Its old place overwrites the newer one of whoever has worked since."""
    async with open_salesforce_scene(mongo, tmp_path) as scene:
        fault_report.notice(await _overtake(scene, "fence"), Rule.PROGRESS_SAVED)
