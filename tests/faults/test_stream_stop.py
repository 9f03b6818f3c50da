"""C1: the consumer told to stop while calls are under way, at any moment and when Salesforce has no answer."""

import asyncio
from pathlib import Path

import pytest

from sandbox.salesforce import Fault, FaultKind
from sandbox.servers import MongoServer
from services.consent_consumer.change_stream import CONSENT_MASTER
from services.consent_consumer.store import DEAD_LETTERS
from tests.support.consent_consumer_process import master
from tests.support.consent_judge import finish_consents, replays
from tests.support.consent_world import PATIENT, begin, open_consents
from tests.support.consumer_judge import stop_and_judge
from tests.support.eventually import eventually
from tests.support.fault_report import FaultReport
from tests.support.seeds import seeded

STOPS = 8
IMPATIENT = {"SALESFORCE__CALL_TIMEOUT_SECONDS": "3", "SALESFORCE__CONNECT_TIMEOUT_SECONDS": "3"}


@pytest.mark.thorough
@pytest.mark.parametrize(
    "calls",
    [
        pytest.param(calls, marks=pytest.mark.fault("C1", f"SIGTERM at {STOPS} random moments under changes, {name}"))
        for calls, name in ((1, "one call of 0.3 s a stream at a time"), (2, "two calls of 0.3 s a stream"))
    ],
)
async def test_stops_under_changes_lose_nothing(
    mongo: MongoServer, tmp_path: Path, fault_report: FaultReport, calls: int
) -> None:
    """Each stop finishes the calls in hand and saves behind what is done without a gap.

    So with one call at a time no master is told again; of two, one may have been ahead of the other.
    """
    random = seeded("stop")
    slowest = 0.0
    settings = {**PATIENT, "CALLS_MAX": str(calls)}
    async with open_consents([mongo], tmp_path) as (world, members):
        await begin(world)
        world.salesforce.faults.switch_on(Fault(kind=FaultKind.SLOW, seconds=0.3))
        async with members.at_work(pause_seconds=0.005):
            for _ in range(STOPS):
                async with world.consumer(**settings) as consumer:
                    await consumer.wait_event("Change stream started", count=2)
                    await asyncio.sleep(random.uniform(0.1, 2.0))
                    ended, seconds = await stop_and_judge(consumer)
                fault_report.judge(ended)
                slowest = max(slowest, seconds)
        world.salesforce.faults.clear()
        async with world.consumer(**settings) as consumer:
            fault_report.judge(await finish_consents(world, members, consumer))
        # A detail that waits for its master holds the place of its stream, so that details may be told again.
        told_again = replays(world, CONSENT_MASTER)
        assert told_again == 0 or calls > 1
        fault_report.measure(
            slowest_stop=f"{slowest:.1f} s", writes=str(members.writes), masters_told_again=str(told_again)
        )


@pytest.mark.fault("C1", "SIGTERM while Salesforce has applied a call and never answers")
async def test_a_stop_abandons_a_call_that_is_not_answered(
    mongo: MongoServer, tmp_path: Path, fault_report: FaultReport
) -> None:
    """The call ends by its own deadline; nothing of it is saved, and the next start sends it again."""
    async with open_consents([mongo], tmp_path) as (world, members):
        async with world.consumer(**PATIENT, **IMPATIENT) as consumer:
            await consumer.wait_event("Change stream started", count=2)
            world.salesforce.faults.switch_on(Fault(kind=FaultKind.HANG, after_apply=True))
            for number in range(200):
                await members.put(CONSENT_MASTER, master(number))
            await eventually(lambda: any(world.salesforce.applied()), seconds=40)
            ended, seconds = await stop_and_judge(consumer)
        fault_report.judge(ended)
        world.salesforce.faults.clear()
        async with world.consumer(**PATIENT) as consumer:
            fault_report.judge(await finish_consents(world, members, consumer))
        assert replays(world) > 0
        fault_report.measure(stop=f"{seconds:.1f} s", told_again=str(replays(world)))


@pytest.mark.fault("C1", "SIGTERM while a call of 200 records, refused as a whole, is made again in halves of 0.5 s")
async def test_a_stop_begins_no_further_half_of_a_refused_call(
    mongo: MongoServer, tmp_path: Path, fault_report: FaultReport
) -> None:
    """The half under way ends; nothing of the call counts for any record of it, and the next start sends it again."""
    async with open_consents([mongo], tmp_path) as (world, members):
        await begin(world)
        for number in range(200):
            await members.put(CONSENT_MASTER, master(number))
        world.salesforce.faults.switch_on(Fault(kind=FaultKind.SLOW, seconds=0.5))
        world.salesforce.faults.switch_on(Fault(kind=FaultKind.NOT_UNIQUE))
        async with world.consumer(**PATIENT) as consumer:
            await eventually(lambda: sum(one.hits for one in world.salesforce.faults) > 4, seconds=40)
            ended, seconds = await stop_and_judge(consumer)
        fault_report.judge(ended)
        assert await world.database.collection(DEAD_LETTERS).count_documents({}) < 100
        world.salesforce.faults.clear()
        async with world.consumer(**PATIENT) as consumer:
            fault_report.judge(await finish_consents(world, members, consumer))
        fault_report.measure(stop=f"{seconds:.1f} s")
