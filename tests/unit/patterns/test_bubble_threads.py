"""bubble: no threads inside, and none that calls in."""

import asyncio
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from patterns.bubble import bubble, wait_idle
from patterns.channel import Channel
from patterns.context import Context, background


def test_threads_are_refused() -> None:
    """Neither can a task start a thread through asyncio, nor can a thread call into the bubble."""
    refused: list[str] = []

    def call_in(loop: asyncio.AbstractEventLoop) -> None:
        try:
            loop.call_soon_threadsafe(print)
        except RuntimeError as error:
            refused.append(str(error))

    async def main() -> None:
        with pytest.raises(RuntimeError, match="no threads"):
            await asyncio.to_thread(print)
        thread = threading.Thread(target=call_in, args=(asyncio.get_running_loop(),))
        thread.start()
        thread.join()

    bubble(main)
    assert "called into a bubble" in refused[0]


def raise_in_a_thread(function: Callable[[], object]) -> None:
    """Call a function in a thread that raises for that."""
    with ThreadPoolExecutor(1) as pool, pytest.raises(RuntimeError, match="called into a bubble"):
        pool.submit(function).result()


def test_thread_that_sends_into_a_bubble_raises() -> None:
    """It is told, where it would have woken a task of the bubble."""

    async def main() -> None:
        channel: Channel[int] = Channel()
        receiving = asyncio.create_task(channel.receive())
        await wait_idle()
        raise_in_a_thread(lambda: channel.send_nowait(1))
        receiving.cancel()

    bubble(main)


async def wait_for_the_end(ctx: Context) -> None:
    """Wait in a task."""
    await ctx.wait()


async def run(ctx: Context) -> None:
    """Have the context interrupt the task."""
    await ctx.run(asyncio.Event().wait())


async def call_after(ctx: Context) -> None:
    """Have the context start a task."""
    ctx.after_func(lambda: None)


async def set_timer(ctx: Context) -> None:
    """Have the context stop a timer."""
    ctx.with_timeout(5)


@pytest.mark.parametrize("use", [wait_for_the_end, run, call_after, set_timer])
def test_thread_that_cancels_a_context_of_a_bubble_raises(use: Callable[[Context], Coroutine[Any, Any, None]]) -> None:
    """It is told, whatever of the bubble would have heard of the cancel."""

    async def main() -> None:
        ctx = background().with_cancel()
        task = asyncio.create_task(use(ctx))
        await wait_idle()
        raise_in_a_thread(ctx.cancel)
        task.cancel()

    bubble(main)
