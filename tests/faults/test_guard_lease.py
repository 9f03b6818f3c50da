"""G14: a place is saved only under the lease that has taken it, and never a step back."""

from pathlib import Path
from typing import Final

import pytest

from sandbox.servers import MongoServer
from services.consent_consumer.store import LEASE, LEASES, MongoConsentStore
from tests.support.consent_judge import judge_saves, recorded_saves
from tests.support.fault_report import FaultReport
from tests.support.guard_scene import wait_frozen
from tests.support.judgement import Judgement, Rule
from tests.support.salesforce_scene import SalesforceScene, open_salesforce_scene
from tests.support.service_process import armed

# By its own clock it has the lease still when it wakes up, so that the fence alone is between it and the place.
LONG_LEASE: Final = {"LEASE__SECONDS": "600", "LEASE__RENEW_SECONDS": "200", "LEASE__POLL_SECONDS": "0.1"}


async def _end_lease(scene: SalesforceScene) -> None:
    """Let the database hold the lease for over, as another clock may, whatever its holder believes."""
    lease = await scene.world.database.collection(LEASES).find_one({"_id": LEASE})
    assert lease is not None
    await MongoConsentStore(scene.world.database).give_back_lease(lease["claim_id"])


async def _overtake(scene: SalesforceScene, without: str | None) -> Judgement:
    """Freeze a consumer in a save, end its lease, let another one go on to the end, thaw the first; judge both."""
    # The first two saves are those of the beginning, one a stream.
    point = armed("before-save", 4, action="freeze")
    async with (
        recorded_saves(scene.world) as saves,
        scene.consumer(without=without, **LONG_LEASE, **point) as frozen,
    ):
        async with scene.members.at_work(pause_seconds=0.05):
            await wait_frozen(frozen)
        await _end_lease(scene)
        async with scene.consumer(without=without, **LONG_LEASE) as following:
            await scene.carry()
            judgement = await scene.finish(following)
        frozen.process.thaw()
        if without is None:
            await frozen.wait_event("Work ended with its lease: waiting for the next")
            await frozen.wait_event("The lease is held", count=2)
        judgement |= await scene.finish(frozen)
    return judgement | judge_saves(saves)


@pytest.mark.fault("G14", "a consumer frozen in a save, its lease ended, overtaken, thawed")
async def test_consumer_that_slept_through_its_lease_moves_nothing(
    mongo: MongoServer, tmp_path: Path, fault_report: FaultReport
) -> None:
    """Its save is refused, it waits for the next lease, and the place of each stream has only ever gone forward."""
    async with open_salesforce_scene(mongo, tmp_path) as scene:
        fault_report.judge(await _overtake(scene, None))


@pytest.mark.fault("G14", "without the fence: a consumer frozen in a save, its lease ended, overtaken, thawed")
async def test_without_the_fence_a_sleeper_takes_the_place_back(
    mongo: MongoServer, tmp_path: Path, fault_report: FaultReport
) -> None:
    """Its old place overwrites the newer one of whoever has worked since."""
    async with open_salesforce_scene(mongo, tmp_path) as scene:
        fault_report.notice(await _overtake(scene, "fence"), Rule.PROGRESS_SAVED)
