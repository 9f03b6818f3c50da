"""K15: far more waits in the topic than the consumer may hold in memory."""

import asyncio

import pytest

from tests.support.consumer_judge import judge_steps, judge_world, recorded_steps, stop_and_judge
from tests.support.coupon_consumer_world import World
from tests.support.coupon_events import some_event
from tests.support.fault_report import FaultReport
from tests.support.footprint import footprint_of

RECORDS = 300_000
PIECE = 20_000
QUEUE_BYTES = 4 * 1024 * 1024
SHARES = 10


@pytest.mark.thorough
@pytest.mark.timeout(600)
@pytest.mark.fault("K15", f"{RECORDS} records waiting, {QUEUE_BYTES >> 20} MB for those in hand")
async def test_backlog_is_drained_in_bounded_memory(world: World, fault_report: FaultReport) -> None:
    """What is in hand stays within its bytes, and the process is no larger after the backlog than in its beginning."""
    for _ in range(RECORDS // PIECE):
        await world.produce([some_event() for _ in range(PIECE)])
    bounds = {"CONSUMER__QUEUE_BYTES": str(QUEUE_BYTES), "CONSUMER__FETCH_QUEUE_BYTES": str(QUEUE_BYTES)}
    loop = asyncio.get_running_loop()
    marks: list[float] = []
    async with recorded_steps(world) as steps, world.consumer(**bounds) as member:
        await world.wait_stored(at_least=RECORDS // SHARES, seconds=120)
        first = footprint_of(member.process.pid)
        for share in range(1, SHARES + 1):
            await world.wait_stored(at_least=RECORDS * share // SHARES, seconds=120)
            marks.append(loop.time())
        held = await member.metrics()
        assert held['lp_kafka_ledger_bytes_peak{name="default"}'] <= QUEUE_BYTES
        fault_report.judge(footprint_of(member.process.pid).judge(first, more=10))
        ended, _ = await stop_and_judge(member)
    fault_report.judge(ended, await judge_world(world), judge_steps(steps, world.ends))
    half = SHARES // 2
    rates = [RECORDS / SHARES * half / seconds for seconds in (marks[half] - marks[0], marks[-1] - marks[-1 - half])]
    fault_report.measure(
        rate_in_the_first_half=f"{rates[0]:,.0f} records/s", in_the_second=f"{rates[1]:,.0f} records/s"
    )
