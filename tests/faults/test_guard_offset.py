"""G1: a transaction goes on only if the stored offset is still the one that its batch begins at."""

import pytest

from tests.support.consumer_judge import judge_world, stop_and_judge
from tests.support.coupon_consumer_world import World
from tests.support.coupon_events import some_event
from tests.support.fault_report import FaultReport
from tests.support.judgement import Judgement, Rule
from tests.support.moved_offset import PARTITION, open_offset_mover
from tests.support.seeds import seeded

ROUNDS = 20
SMALL_BATCHES = {"BATCH_RECORDS": "20", "CONSUMER__CHUNK_RECORDS": "20"}


async def _rewind_under_load(world: World, without: str | None) -> tuple[Judgement, int]:
    """Lose coupons and rewind to before them, each time in the middle of a transaction; judge, and count them."""
    lost = 0
    async with world.consumer(without=without, **SMALL_BATCHES) as member:
        await world.produce([some_event() for _ in range(50)], partition=PARTITION)
        await world.wait_some_stored()
        async with open_offset_mover(world, seeded("rewind")) as mover:
            for _ in range(ROUNDS):
                lost += await mover.rewind()
        await world.wait_stored()
        ended, _ = await stop_and_judge(member)
    return ended | await judge_world(world), lost


@pytest.mark.fault("G1", f"{ROUNDS} rewinds, each in the middle of a transaction that began before it")
async def test_rewind_in_the_middle_of_a_transaction_is_obeyed(world: World, fault_report: FaultReport) -> None:
    """The transaction is refused, and what the operator rewinds for, coupons that were lost, is stored again."""
    judgement, lost = await _rewind_under_load(world, None)
    fault_report.judge(judgement)
    fault_report.measure(coupons_that_came_again=str(lost))


@pytest.mark.fault("G1", f"without the guard: {ROUNDS} rewinds in the middle of a transaction")
async def test_without_the_offset_guard_a_rewind_is_overrun(world: World, fault_report: FaultReport) -> None:
    """The transaction takes the offset forward over everything that the operator wanted back."""
    judgement, _ = await _rewind_under_load(world, "offset")
    fault_report.notice(judgement, Rule.NOTHING_LOST)
