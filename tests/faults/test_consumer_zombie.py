"""K3 and G1: a member that sleeps in the middle of a transaction, is overtaken, and goes on with it."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from tests.support.consumer_judge import judge_steps, judge_world, recorded_steps, stop_and_judge
from tests.support.coupon_consumer_process import CouponConsumerProcess
from tests.support.coupon_consumer_world import World
from tests.support.coupon_events import some_event
from tests.support.eventually import eventually
from tests.support.fault_proxy import open_fault_proxy
from tests.support.fault_report import FaultReport
from tests.support.judgement import Judgement, Rule

SMALL_BATCHES = {"BATCH_RECORDS": "20", "CONSUMER__CHUNK_RECORDS": "20"}
# Longer than the other member takes to come, join and store everything; and nothing but the transaction asks meanwhile.
PATIENT = {
    "POSTGRES__ACQUIRE_TIMEOUT_SECONDS": "100",
    "POSTGRES__STATEMENT_TIMEOUT_SECONDS": "100",
    "TRY_TIMEOUT_SECONDS": "110",
    "GRACE_SECONDS": "150",
    "CHECK_SECONDS": "100",
    "BROKER_DOWN_SECONDS": "200",
}
LOST = "Ownership lost: another member stored these records"


@asynccontextmanager
async def _late_transaction(world: World, without: str | None) -> AsyncIterator[CouponConsumerProcess]:
    """Freeze a member whose transaction is on its way to the database, let another store its records, and thaw it."""
    await world.produce([some_event() for _ in range(300)])
    async with open_fault_proxy(world.postgres.port, host=world.postgres.host) as proxy:
        way = {"POSTGRES__HOST": "127.0.0.1", "POSTGRES__PORT": str(proxy.port)}
        async with world.consumer(without=without, **way, **SMALL_BATCHES, **PATIENT) as zombie:
            await world.wait_stored()
            proxy.up.swallow()
            await world.produce([some_event() for _ in range(300)])
            await eventually(_in_work(zombie), seconds=20, pause_seconds=0.05)
            zombie.process.freeze()
            async with world.consumer() as other:
                await world.wait_stored(seconds=90)
                proxy.up.restore()
                zombie.process.thaw()
                yield zombie
                await world.produce([some_event() for _ in range(300)])
                await world.wait_stored(seconds=90)
                for member in (zombie, other):
                    ended, _ = await stop_and_judge(member)
                    assert ended.is_ok, ended


def _in_work(member: CouponConsumerProcess) -> Callable[[], Awaitable[bool]]:
    async def is_in_work() -> bool:
        return (await member.metrics())['lp_kafka_ledger_in_work{name="default"}'] > 0

    return is_in_work


async def _judge_late_transaction(world: World, without: str | None) -> Judgement:
    async with recorded_steps(world) as steps, _late_transaction(world, without) as zombie:
        if without is None:
            await zombie.wait_event(LOST)
        else:
            went_back = "select exists (select from offset_steps where ended < began)"
            await eventually(lambda: world.fetch_value(went_back), seconds=40)
    return await judge_world(world) | judge_steps(steps, world.ends)


@pytest.mark.thorough
@pytest.mark.timeout(300)
@pytest.mark.fault("K3", "a member frozen in mid-transaction beyond its session, overtaken, thawed")
async def test_transaction_of_a_member_that_was_overtaken_changes_nothing(
    world: World, fault_report: FaultReport
) -> None:
    """It finds the offset moved on and says so: each record is settled once, by the other member."""
    fault_report.judge(await _judge_late_transaction(world, None))


@pytest.mark.thorough
@pytest.mark.timeout(300)
@pytest.mark.fault("G1", "without the guard: a member frozen in mid-transaction, overtaken, thawed")
async def test_without_the_offset_guard_it_takes_the_offset_back(world: World, fault_report: FaultReport) -> None:
    """Records that were settled are read and settled again; that no coupon shows it is the versions' merit alone."""
    judgement = await _judge_late_transaction(world, "offset")
    fault_report.notice(judgement, Rule.NOTHING_DOUBLED)
    assert not judgement.failed(Rule.NOTHING_LOST, Rule.RIGHT_CONTENT), judgement
