"""Channels between a thread and tasks whose steps are shuffled and which are cancelled: nothing is lost or doubled."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from patterns import Channel, ContextCancelled, Outcome, background, receive, select
from tests.support.seeds import thousand_seeds
from tests.support.shuffling_loop import ShufflingRealLoop, run_shuffled

VALUES = list(range(6))


def dice() -> ShufflingRealLoop:
    """The running loop, whose random numbers come from the seed."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, ShufflingRealLoop)
    return loop


@thousand_seeds
@pytest.mark.parametrize("capacity", [0, 2])
def test_values_of_a_thread_reach_tasks_that_are_being_cancelled(capacity: int, seeds: range) -> None:
    """A thread sends, tasks that are cancelled receive and select: all values arrive in order, with 1,000 seeds."""

    async def main() -> None:
        channel: Channel[int] = Channel(capacity)
        received: list[int] = []

        async def take() -> None:
            received.append(await channel.receive())

        async def choose() -> None:
            chosen = await select(receive(None), receive(channel))
            assert not isinstance(chosen, Outcome)
            received.append(chosen.value)

        def send_all() -> None:
            for value in VALUES:
                channel.sync.send(value)

        sending = dice().run_in_executor(pool, send_all)
        while len(received) < len(VALUES):
            takers = [asyncio.create_task(dice().random.choice([take, choose])()) for _ in range(2)]
            await asyncio.sleep(0)
            dice().random.choice(takers).cancel()
            await asyncio.sleep(0)
            for taker in takers:
                taker.cancel()
            await asyncio.wait(takers)
        await sending
        assert received == VALUES

    with ThreadPoolExecutor(1) as pool:
        run_shuffled(main, seeds=seeds, loop_class=ShufflingRealLoop)


@thousand_seeds
@pytest.mark.parametrize("capacity", [0, 2])
def test_values_of_tasks_that_are_being_cancelled_reach_a_thread(capacity: int, seeds: range) -> None:
    """Tasks send, some are cancelled, a thread receives: what was sent arrives once, nothing else, with 1,000 seeds."""

    async def main() -> None:
        channel: Channel[int] = Channel(capacity)
        sent: set[int] = set()

        async def give(value: int) -> None:
            await channel.send(value)
            sent.add(value)

        receiving = dice().run_in_executor(pool, lambda: list(channel.sync))
        givers = [asyncio.create_task(give(value)) for value in VALUES]
        for _ in range(3):
            await asyncio.sleep(0)
            dice().random.choice(givers).cancel()
        await asyncio.wait(givers)
        channel.close()
        received = await receiving
        assert sent <= set(received) <= set(VALUES)
        assert len(received) == len(set(received))

    with ThreadPoolExecutor(1) as pool:
        run_shuffled(main, seeds=seeds, loop_class=ShufflingRealLoop)


@thousand_seeds
@pytest.mark.parametrize("thread_sends", [True, False])
def test_thread_whose_context_ends_has_sent_or_received_or_has_not(thread_sends: bool, seeds: range) -> None:
    """A blocked thread and the end of its context meet: its value has moved, or its error says no, with 1,000 seeds."""

    async def main() -> None:
        channel: Channel[int] = Channel()
        ctx = background().with_cancel()
        operation: Callable[[], object] = (
            (lambda: channel.sync.send(1, ctx=ctx)) if thread_sends else (lambda: channel.sync.receive(ctx=ctx))
        )
        blocked = dice().run_in_executor(pool, operation)
        other = asyncio.create_task(channel.receive() if thread_sends else channel.send(1))

        async def end() -> None:
            for _ in range(dice().random.randrange(4)):
                await asyncio.sleep(0)
            ctx.cancel()

        ending = asyncio.create_task(end())
        try:
            await blocked
        except ContextCancelled:
            assert not other.done()
            other.cancel()
        await asyncio.wait([other, ending])
        assert channel.statistics().waiting_senders == channel.statistics().waiting_receivers == len(channel) == 0

    with ThreadPoolExecutor(1) as pool:
        run_shuffled(main, seeds=seeds, loop_class=ShufflingRealLoop)
