"""K2: the consumer killed at each of its crash points, again and again."""

import signal

import pytest

from tests.support.consumer_judge import judge_steps, judge_world, recorded_steps, stop_and_judge
from tests.support.coupon_consumer_world import World
from tests.support.coupon_events import cancelled, some_event
from tests.support.fault_report import FaultReport
from tests.support.seeds import seeded
from tests.support.service_process import armed

KILLS = 20
KILLED = 128 + signal.SIGKILL
POINTS = {"after-poll": 4, "after-insert": 4, "after-commit": 4, "before-kafka-commit": 1, "in-revoke": 1}
"""The points, and up to which arrival at each a member may live: of the last two there are few."""


@pytest.mark.thorough
@pytest.mark.timeout(900)
@pytest.mark.fault("K2", f"{KILLS} deaths, 4 at each of the {len(POINTS)} crash points")
async def test_twenty_deaths_at_crash_points_leave_each_record_settled_once(
    world: World, fault_report: FaultReport
) -> None:
    """Whoever comes next goes on from the database's offset: nothing is lost, and nothing is settled twice."""
    random = seeded("kill")
    deaths = [*POINTS] * (KILLS // len(POINTS))
    random.shuffle(deaths)
    async with recorded_steps(world) as steps:
        for point in deaths:
            issued = [some_event() for _ in range(400)]
            await world.produce(issued + [cancelled(event) for event in issued[::10]])
            hit = random.randint(1, POINTS[point])
            small = {"BATCH_RECORDS": "50", "CONSUMER__CHUNK_RECORDS": "20"}
            async with world.consumer(**armed(point, hit), **small) as doomed:
                if point == "in-revoke":
                    await world.wait_stored(at_least=await world.stored_records() + 1)
                    doomed.process.send_signal(signal.SIGTERM)
                assert await doomed.process.wait(60) == KILLED, doomed.process.log.read_text()
        async with world.consumer() as last:
            await world.wait_stored(seconds=90)
            ended, _ = await stop_and_judge(last)
    fault_report.judge(ended, await judge_world(world), judge_steps(steps, world.ends))
