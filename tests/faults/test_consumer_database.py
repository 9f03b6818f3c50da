"""K4 and K12: the consumer while its database is slow, or away for long."""

import asyncio
import itertools
from datetime import datetime

import pytest

from tests.support.consumer_judge import judge_steps, judge_world, recorded_steps, stop_and_judge
from tests.support.coupon_consumer_process import CouponConsumerProcess
from tests.support.coupon_consumer_world import World
from tests.support.coupon_events import some_event
from tests.support.eventually import eventually
from tests.support.fault_proxy import open_fault_proxy
from tests.support.fault_report import FaultReport
from tests.support.footprint import footprint_of

POLL_INTERVAL = {"CONSUMER__MAX_POLL_INTERVAL_SECONDS": "6", "CONSUMER__REVOKE_WAIT_SECONDS": "1"}
SMALL_BATCHES = {"CONSUMER__CHUNK_RECORDS": "10", "BATCH_RECORDS": "50", "CONSUMER__QUEUE_BATCHES": "2"}
POOL = 10
SLOW_SECONDS = 20.0
AWAY_SECONDS = 60.0
APART_SECONDS = 1.0


async def _is_paused(member: CouponConsumerProcess) -> bool:
    return (await member.metrics())['lp_kafka_consumer_is_paused{name="default"}'] == 1


def _tries(member: CouponConsumerProcess) -> list[datetime]:
    return [
        datetime.fromisoformat(line["timestamp"]) for line in member.log() if line["event"] == "Waiting for a server"
    ]


@pytest.mark.thorough
@pytest.mark.timeout(300)
@pytest.mark.fault("K4", f"each answer of Postgres 1 s late for {SLOW_SECONDS:g} s, poll interval 6 s")
async def test_slow_database_costs_no_membership_and_no_memory(world: World, fault_report: FaultReport) -> None:
    """Polling goes on while paused: no partition moves, the backlog waits in Kafka, and then all of it is stored."""
    async with recorded_steps(world) as steps, open_fault_proxy(world.postgres.port, host=world.postgres.host) as proxy:
        way = {"POSTGRES__HOST": "127.0.0.1", "POSTGRES__PORT": str(proxy.port)}
        async with world.consumer(**way, **POLL_INTERVAL, **SMALL_BATCHES) as member:
            await world.produce([some_event() for _ in range(1_000)])
            await world.wait_stored()
            idle = footprint_of(member.process.pid)
            proxy.down.delay_seconds = 1.0
            await world.produce([some_event() for _ in range(5_000)])
            await eventually(lambda: _is_paused(member), seconds=40)
            await asyncio.sleep(SLOW_SECONDS)  # several poll intervals, each of which would cost the membership
            assert await world.stored_records() < world.records
            fault_report.judge(footprint_of(member.process.pid).judge(idle, more=POOL))
            proxy.down.delay_seconds = 0.0
            await world.wait_stored(seconds=90)
            assert await member.rebalances() == (1, 0, 0)
            ended, _ = await stop_and_judge(member)
    fault_report.judge(ended, await judge_world(world), judge_steps(steps, world.ends))


@pytest.mark.thorough
@pytest.mark.timeout(300)
@pytest.mark.fault("K12", f"Postgres stopped for {AWAY_SECONDS:g} s under load")
async def test_long_absence_of_the_database_is_waited_out_with_few_tries(
    fragile_postgres: World, fault_report: FaultReport
) -> None:
    """Not ready and still a member, it asks at most once a second; afterwards everything is stored, nothing is dead."""
    world = fragile_postgres
    async with recorded_steps(world) as steps, world.consumer() as member:
        await world.produce([some_event() for _ in range(5_000)])
        await world.wait_stored()
        idle = footprint_of(member.process.pid)
        await world.postgres.stop_fast()
        await world.produce([some_event() for _ in range(20_000)])
        await member.wait_readiness(503)
        await asyncio.sleep(AWAY_SECONDS)
        tries = _tries(member)
        fault_report.judge(footprint_of(member.process.pid).judge(idle, more=POOL))
        await world.postgres.start()
        loop = asyncio.get_running_loop()
        back_at = loop.time()
        await world.wait_stored(at_least=5_001)
        fault_report.measure(tries=str(len(tries)), first_stored=f"{loop.time() - back_at:.1f} s")
        await world.wait_stored(seconds=90)
        await member.wait_readiness(200)
        assert await member.rebalances() == (1, 0, 0)
        ended, _ = await stop_and_judge(member)
    apart = [(later - earlier).total_seconds() for earlier, later in itertools.pairwise(tries)]
    assert min(apart) >= APART_SECONDS, apart
    fault_report.judge(ended, await judge_world(world), judge_steps(steps, world.ends))
