"""G2: a batch is stored only under the assignment, and from the position, that it was read under."""

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


async def _rewind_and_undo_under_load(world: World, without: str | None) -> Judgement:
    """Move the offset away and back in the middle of a transaction, while later batches wait behind that one."""
    async with world.consumer(without=without, **SMALL_BATCHES) as member:
        await world.produce([some_event() for _ in range(50)], partition=PARTITION)
        await world.wait_some_stored()
        async with open_offset_mover(world, seeded("rewind")) as mover:
            for _ in range(ROUNDS):
                await mover.rewind_and_undo()
        await world.wait_stored()
        ended, _ = await stop_and_judge(member)
    return ended | await judge_world(world)


@pytest.mark.fault("G2", f"{ROUNDS} rewinds that are undone at once, each in the middle of a transaction")
async def test_batches_read_before_a_refused_one_are_dropped_with_it(world: World, fault_report: FaultReport) -> None:
    """One transaction is refused; those behind it would fit the offset again, and would leave its records out."""
    fault_report.judge(await _rewind_and_undo_under_load(world, None))


@pytest.mark.fault("G2", f"without the guard: {ROUNDS} rewinds that are undone at once")
async def test_without_the_generation_guard_the_refused_records_are_left_out(
    world: World, fault_report: FaultReport
) -> None:
    """The batch behind the refused one begins, as the offset says, where that one began, and steps over its records."""
    fault_report.notice(await _rewind_and_undo_under_load(world, "generation"), Rule.NOTHING_LOST)
