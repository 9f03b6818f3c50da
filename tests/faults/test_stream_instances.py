"""C10 and C11: two instances of which one sleeps through its lease, and two streams of which one is held up."""

from pathlib import Path

import pytest

from sandbox.salesforce import Fault, FaultKind
from sandbox.servers import MongoServer
from services.consent_consumer.change_stream import CONSENT_DETAIL, CONSENT_MASTER
from services.consent_consumer.record import DETAIL_OBJECT, MASTER_OBJECT
from services.consent_consumer.store import MongoConsentStore
from tests.support.consent_consumer_process import ConsentWorld, detail, master
from tests.support.consent_judge import finish_consents, judge_saves, recorded_saves
from tests.support.consent_world import PATIENT, SHORT_LEASE, open_consents
from tests.support.consumer_judge import stop_and_judge
from tests.support.eventually import eventually
from tests.support.fault_report import FaultReport
from tests.support.guard_scene import wait_frozen
from tests.support.service_process import armed

WAITING = "Another instance holds the lease: waiting"
HELD_UP = {"IN_FLIGHT_MAX": "200"}
HOLDS_NOTHING = {
    f'lp_{stream}_{what}{{name="default"}}': 0.0
    for stream in (CONSENT_MASTER, CONSENT_DETAIL)
    for what in ("held", "unsettled", "oldest_seconds")
}


@pytest.mark.thorough
@pytest.mark.parametrize(
    "point",
    [
        pytest.param(point, marks=pytest.mark.fault("C10", f"an instance frozen beyond its lease {what}, overtaken"))
        for point, what in (("before-save", "before a save"), ("before-call", "before a call"))
    ],
)
async def test_an_instance_that_slept_through_its_lease_moves_nothing(
    mongo: MongoServer, tmp_path: Path, fault_report: FaultReport, point: str
) -> None:
    """Awake again it finds the lease gone and waits, ready, for the next; what it had on its way changes nothing."""
    async with (
        open_consents([mongo], tmp_path) as (world, members),
        recorded_saves(world) as saves,
        # The first two saves are those of the beginning, one a stream.
        world.consumer(**PATIENT, **SHORT_LEASE, **armed(point, 4, action="freeze")) as sleeper,
    ):
        await sleeper.wait_event("Change stream started", count=2)
        async with members.at_work(pause_seconds=0.01):
            await wait_frozen(sleeper)
            async with world.consumer(**PATIENT, **SHORT_LEASE) as follower:
                await follower.wait_event("Change stream started", count=2)
                before = members.promised
                await eventually(lambda: members.promised > before + 100, seconds=40)
                sleeper.process.thaw()
                await sleeper.wait_event("Work ended with its lease: waiting for the next")
                await sleeper.wait_event(WAITING)
                await sleeper.wait_readiness(200)
                await sleeper.wait_metrics(**HOLDS_NOTHING)
                ended, _ = await stop_and_judge(follower)
                fault_report.judge(ended)
                await sleeper.wait_event("Change stream started", count=4)
        fault_report.judge(await finish_consents(world, members, sleeper))
    fault_report.judge(judge_saves(saves))


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(
            Fault(kind=FaultKind.RECORD, object_type=DETAIL_OBJECT, code="UNABLE_TO_LOCK_ROW", every=1),
            marks=pytest.mark.fault("C11", "every row of the details locked while masters change"),
            id="locked",
        ),
        pytest.param(
            Fault(kind=FaultKind.SLOW, object_type=DETAIL_OBJECT, seconds=4),
            marks=pytest.mark.fault("C11", "calls with details take 4 s while masters change"),
            id="slow",
        ),
    ],
)
async def test_a_stream_that_is_held_up_holds_up_no_other(
    mongo: MongoServer, tmp_path: Path, fault_report: FaultReport, fault: Fault
) -> None:
    """The other one carries and saves meanwhile, each tells its own state, and the first goes on where it stood."""
    async with open_consents([mongo], tmp_path) as (world, members):
        async with world.consumer(**PATIENT, **HELD_UP) as consumer:
            await consumer.wait_event("Change stream started", count=2)
            stood = await _place(world, CONSENT_DETAIL)
            world.salesforce.faults.switch_on(fault)
            await members.put(CONSENT_DETAIL, detail("made and taken back", "the last one"))
            await members.delete(CONSENT_DETAIL, "made and taken back")
            await members.act_times(400)
            await members.put(CONSENT_MASTER, master("the last one"))
            await eventually(lambda: "s:the last one" in world.salesforce.records(MASTER_OBJECT), seconds=60)
            await consumer.wait_metrics(**{'lp_consent_master_unsettled{name="default"}': 0})
            metrics = await consumer.metrics()
            held, oldest = (
                metrics[f'lp_consent_detail_{what}{{name="default"}}'] for what in ("held", "oldest_seconds")
            )
            assert held > 0
            if fault.kind is FaultKind.RECORD:
                assert await _place(world, CONSENT_DETAIL) == stood
            world.salesforce.faults.clear()
            fault_report.judge(await finish_consents(world, members, consumer))
        fault_report.measure(held=f"{held:g}", oldest=f"{oldest:.1f} s")


async def _place(world: ConsentWorld, stream: str) -> object:
    saved = await MongoConsentStore(world.database).find_position(stream)
    return None if saved is None or saved.position is None else saved.position.cluster_time
