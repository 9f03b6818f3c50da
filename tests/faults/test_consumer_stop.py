"""K1: the consumer told to stop at any moment."""

import pytest

from tests.support.consumer_judge import judge_steps, judge_world, recorded_steps, stop_and_judge
from tests.support.coupon_consumer_world import World
from tests.support.coupon_events import some_event
from tests.support.fault_report import FaultReport
from tests.support.seeds import seeded

RECORDS = 100_000
STOPS = 8


@pytest.mark.thorough
@pytest.mark.timeout(600)
@pytest.mark.fault("K1", f"SIGTERM at {STOPS} random moments of {RECORDS} records")
async def test_stops_at_random_moments_leave_each_record_settled_once(world: World, fault_report: FaultReport) -> None:
    """Each member finishes the batch in hand and ends with 0; the next one is given nothing that was settled before."""
    random = seeded("stop")
    slowest = 0.0
    await world.produce([some_event() for _ in range(RECORDS)])
    async with recorded_steps(world) as steps:
        for _ in range(STOPS):
            goal = await world.stored_records() + random.randrange(1, RECORDS // (2 * STOPS))
            async with world.consumer(BATCH_RECORDS="500", CONSUMER__CHUNK_RECORDS="100") as member:
                await world.wait_stored(at_least=goal)
                ended, seconds = await stop_and_judge(member)
            fault_report.judge(ended)
            slowest = max(slowest, seconds)
            assert await world.stored_records() < world.records
        async with world.consumer() as last:
            await world.wait_stored(seconds=90)
            ended, _ = await stop_and_judge(last)
    fault_report.judge(ended, await judge_world(world), judge_steps(steps, world.ends))
    fault_report.measure(slowest_stop=f"{slowest:.1f} s")
