"""What a lost task leaves behind when its coroutine is closed, perhaps while its own thread holds the one lock."""

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import pytest

from patterns import Channel, Context, background
from patterns._waiter import matching
from patterns.bubble import bubble
from tests.support.spinning import spin_until

Wait = Callable[[Context, Channel[int]], Coroutine[Any, Any, object]]


async def receive_one(_: Context, channel: Channel[int]) -> None:
    """Wait at the channel only."""
    await channel.receive()


async def derive(ctx: Context, channel: Channel[int]) -> None:
    """Wait within a derived context."""
    with ctx.with_cancel():
        await channel.receive()


async def run(ctx: Context, channel: Channel[int]) -> None:
    """Wait in ``ctx.run``."""
    await ctx.run(channel.receive())


waits = pytest.mark.parametrize("wait", [receive_one, derive, run])
locks = pytest.mark.parametrize("lock", [nullcontext(), matching], ids=["free", "held"])


async def begin(wait: Wait) -> tuple[Coroutine[Any, Any, object], Callable[[], bool]]:
    """Let a coroutine wait; return it, and a function that says whether it has left nothing behind."""
    ctx, channel = background().with_cancel(), Channel[int]()

    def is_left() -> bool:
        statistics = ctx.statistics()
        return channel.statistics().waiting_receivers == statistics.children == statistics.after_funcs == 0

    coroutine = wait(ctx, channel)
    coroutine.send(None)
    assert not is_left()
    return coroutine, is_left


@waits
@locks
def test_lost_task_leaves_all_its_places(wait: Wait, lock: AbstractContextManager[None]) -> None:
    """With a free lock it has left at once; with a held one, for which it must not wait, in the loop's next round."""

    async def main() -> None:
        coroutine, is_left = await begin(wait)
        with lock:
            coroutine.close()
        assert is_left() == (lock is not matching)
        await asyncio.sleep(0)
        assert is_left()

    bubble(main)


@waits
def test_task_lost_with_its_loop_leaves_its_places_by_and_by(wait: Wait) -> None:
    """Where no loop runs, the timer thread does what must wait for the lock."""
    coroutine, is_left = asyncio.run(begin(wait))
    with matching:
        coroutine.close()
    spin_until(is_left)


def test_context_that_ends_before_a_lost_run_has_left_interrupts_nobody() -> None:
    """What awaited the run goes on uncancelled, though its place could not yet be taken back."""

    async def main() -> None:
        ctx = background().with_cancel()
        running = ctx.run(Channel[int]().receive())
        running.send(None)
        with matching:
            running.close()
        ctx.cancel()
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    bubble(main)
