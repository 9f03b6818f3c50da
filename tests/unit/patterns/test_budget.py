"""Any ready operation: a task cannot keep the loop, nor miss its cancellation."""

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import Context, copy_context

import pytest

from patterns import Channel, Mutex, OnceValue, RWMutex, WaitGroup, background, receive, select, send
from patterns._budget import LIMIT, current_budget
from patterns.bubble import bubble

Operation = Callable[[], Awaitable[object]]


async def send_and_receive(channel: Channel[int]) -> None:
    """Two ready operations."""
    await channel.send(1)
    await channel.receive()


async def send_and_iterate(channel: Channel[int]) -> None:
    """Two ready operations, one of them a step of a loop."""
    await channel.send(1)
    async for _ in channel:
        return


async def select_with_default(channel: Channel[int]) -> None:
    """One operation of which only the default is ready."""
    await select(receive(channel), default=True)


async def select_ready(channel: Channel[int]) -> None:
    """Two selects with a ready case each."""
    await select(send(channel, 1), receive(None))
    await select(receive(channel), receive(None))


@pytest.mark.parametrize("step", [send_and_receive, send_and_iterate, select_with_default, select_ready])
def test_loop_of_ready_operations_sees_its_cancel_and_lets_others_run(
    step: Callable[[Channel[int]], Awaitable[None]],
) -> None:
    """It ends within one budget of rounds after the cancel, and another task runs in between."""

    async def main() -> None:
        rounds = 0
        rounds_at_cancel = 0
        channel: Channel[int] = Channel(1)

        async def spin() -> None:
            nonlocal rounds
            while True:
                await step(channel)
                rounds += 1

        async def cancel() -> None:
            nonlocal rounds_at_cancel
            for _ in range(5):
                await asyncio.sleep(0)
            rounds_at_cancel = rounds
            spinning.cancel()

        spinning = asyncio.create_task(spin())
        await cancel()
        with pytest.raises(asyncio.CancelledError):
            await spinning
        assert 0 < rounds_at_cancel <= 6 * LIMIT
        assert rounds <= rounds_at_cancel + LIMIT

    bubble(main)


def sends() -> Operation:
    """A channel with room."""
    channel: Channel[int] = Channel(2 * LIMIT)
    return lambda: channel.send(1)


def receives() -> Operation:
    """A channel with values."""
    channel: Channel[int] = Channel(2 * LIMIT)
    for value in range(2 * LIMIT):
        channel.send_nowait(value)
    return channel.receive


def selects() -> Operation:
    """A select whose case is never ready, so that it does not wait."""
    return lambda: select(receive(None), default=True)


def locks() -> Operation:
    """A mutex that is free."""
    mutex = Mutex()

    async def lock() -> None:
        async with mutex:
            pass

    return lock


def reads() -> Operation:
    """A mutex that nobody writes under."""
    mutex = RWMutex()

    async def read() -> None:
        async with mutex.read():
            pass

    return read


def asks() -> Operation:
    """A value that is there."""
    return OnceValue(lambda: 1).get


def waits() -> Operation:
    """A group that is empty."""
    return WaitGroup().wait


def runs() -> Operation:
    """A context under which something runs that does not wait."""

    async def do_nothing() -> None:
        """Return."""

    return lambda: background().run(do_nothing())


@pytest.mark.parametrize("make", [sends, receives, selects, locks, reads, asks, waits, runs])
def test_the_operation_after_the_last_of_the_budget_yields(make: Callable[[], Operation]) -> None:
    """128 ready operations in a row do not suspend a fresh task; the next one does, for no time, of every kind."""

    async def main() -> None:
        operation = make()
        has_yielded = False

        def note() -> None:
            nonlocal has_yielded
            has_yielded = True

        asyncio.get_running_loop().call_soon(note)
        for _ in range(LIMIT):
            await operation()
        assert not has_yielded
        await operation()
        assert asyncio.get_running_loop().time() == 0
        assert has_yielded

    bubble(main)


def test_wait_begins_a_new_budget() -> None:
    """A task that was suspended may again do 128 ready operations in a row, whatever the task that woke it has left."""

    async def main() -> None:
        channel, other = Channel[int](LIMIT), Channel[int]()
        for value in range(LIMIT - 1):
            await channel.send(value)
        sending = asyncio.create_task(other.send(1), context=Context())  # with a budget of its own
        assert current_budget().left == 1
        await other.receive()
        assert current_budget().left == LIMIT
        await sending

    bubble(main)


def test_thread_does_not_fill_up_the_budget_it_inherited() -> None:
    """A loop in another thread, started with this task's variables, gets a budget of its own."""

    async def spend(count: int) -> int:
        channel: Channel[int] = Channel(count)
        for value in range(count):
            await channel.send(value)
        return id(current_budget())

    async def main() -> None:
        await spend(LIMIT)
        mine = current_budget()
        assert mine.left == 0
        with ThreadPoolExecutor(1) as pool:
            context = copy_context()
            other = pool.submit(context.run, asyncio.run, spend(3)).result()
        assert other != id(mine)
        assert mine.left == 0

    bubble(main)
