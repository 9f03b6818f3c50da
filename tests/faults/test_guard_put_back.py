"""G8: a value whose receiver is cancelled in the very tick of their match is put back, and goes to the next one."""

import asyncio
from typing import Final
from unittest import mock

import pytest

from patterns import Channel, EndOfChannel, receive, select
from patterns._core import Core
from patterns._waiter import Place
from patterns.bubble import wait_idle
from tests.support.fault_report import FaultReport
from tests.support.judgement import Judgement, Rule, judge
from tests.support.ledger import Unit, judge_units
from tests.support.shuffling_loop import ShufflingLoop, run_shuffled

SEEDS: Final = range(1_000)
CAPACITIES: Final = (0, 1, 4)
VALUES: Final = 6


async def _deliver(capacity: int) -> list[int]:
    """Send values to receivers of which one is cancelled in each tick, take what is left, and return what arrived."""
    channel: Channel[int] = Channel(capacity)
    never: Channel[int] = Channel()
    loop = asyncio.get_running_loop()
    assert isinstance(loop, ShufflingLoop)
    arrived: list[int] = []

    async def take() -> None:
        arrived.append(await channel.receive())

    async def select_one() -> None:
        case = receive(channel)
        await select(case, receive(never))
        arrived.append(case.value)

    async def produce() -> None:
        for value in range(VALUES):
            await channel.send(value)
        channel.close()

    producing = asyncio.create_task(produce())
    receivers = [asyncio.create_task(take()) for _ in range(3)]
    for number in range(VALUES):
        await asyncio.sleep(0)
        loop.random.choice(receivers).cancel()
        receivers.append(asyncio.create_task(select_one() if number % 2 else take()))
    for task in receivers:
        task.cancel()
    await wait_idle()
    try:
        while True:
            arrived.append(await channel.receive())
    except EndOfChannel:
        await producing
    return arrived


def _judge_deliveries(capacity: int) -> Judgement:
    """Deliver with each seed, and compare what was sent with what arrived, and in which order."""
    sent: list[Unit] = []
    arrived: list[Unit] = []
    disorder: list[str] = []
    for seed, values in zip(SEEDS, run_shuffled(_deliver, capacity, seeds=SEEDS), strict=True):
        sent += [(f"seed {seed}, value {value}", str(value)) for value in range(VALUES)]
        arrived += [(f"seed {seed}, value {value}", str(value)) for value in values]
        if values != sorted(values):
            disorder.append(f"seed {seed}: {values}")
    return judge_units(sent, sent, arrived) | judge(Rule.RIGHT_CONTENT, disorder)


@pytest.mark.fault("G8", f"receivers cancelled in the tick of their value, {len(SEEDS):,} seeds for each capacity")
def test_value_of_a_receiver_that_was_cancelled_goes_to_the_next_one(fault_report: FaultReport) -> None:
    """Each value arrives once and in order, with waits and selects, and with any capacity."""
    fault_report.judge(*(_judge_deliveries(capacity) for capacity in CAPACITIES))


@pytest.mark.fault("G8", f"without the put-back: {len(SEEDS):,} seeds for each capacity")
def test_without_the_put_back_values_are_lost_with_each_capacity(fault_report: FaultReport) -> None:
    """A value that belongs to its receiver from the match on goes with it."""

    def keep(core: Core[int], place: Place) -> None:
        if place.is_receiver:
            core.take_promised()

    with mock.patch.object(Core, "undo", keep):
        judgements = [_judge_deliveries(capacity) for capacity in CAPACITIES]
    for judgement in judgements:
        fault_report.notice(judgement, Rule.NOTHING_LOST)
        assert not judgement.failed(Rule.NOTHING_DOUBLED, Rule.NOTHING_INVENTED), judgement
