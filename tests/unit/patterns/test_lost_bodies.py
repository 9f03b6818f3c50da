"""What becomes of groups, pools and tickers when the collector takes the task that waits in their block."""

import asyncio
import gc
import sys
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import AbstractContextManager, aclosing, nullcontext
from typing import Any

import pytest

from patterns._waiter import matching
from patterns.bubble import bubble, wait_idle
from patterns.channel import Channel
from patterns.context import Context, background
from patterns.error_group import ErrorGroup
from patterns.leak import leaked_tasks
from patterns.ticker import Ticker
from patterns.wait_group import WaitGroup
from patterns.worker_pool import WorkerPool

FOREVER = 1_000_000.0
locks = pytest.mark.parametrize("lock", [nullcontext(), matching], ids=["free", "held"])


async def wait_in_vain() -> None:
    """Wait for what nobody can give."""
    await Channel[int]().receive()


async def in_empty_group(ctx: Context) -> None:
    """Be the body of a group in which nothing runs."""
    async with ErrorGroup(ctx):
        await wait_in_vain()
    await wait_in_vain()


async def in_group(ctx: Context) -> None:
    """Be the body of a group whose function waits in vain too."""
    async with ErrorGroup(ctx) as group:
        await group.go(wait_in_vain)
        await wait_in_vain()


async def in_pool(_: Context) -> None:
    """Be the body of a pool whose workers wait for jobs."""

    async def work(_: int) -> None:
        pass

    async with WorkerPool(work, 2) as pool:
        await pool.submit(1)
        await wait_in_vain()


async def in_idle_pool(_: Context) -> None:
    """Be the body of a pool that has not begun."""

    async def work(_: int) -> None:
        pass

    async with WorkerPool(work, 2):
        await wait_in_vain()
    await wait_in_vain()


async def at_wait_group(_: Context) -> None:
    """Wait for work that nobody can finish."""
    group = WaitGroup()
    group.add()
    await group.wait()


@locks
@pytest.mark.parametrize("body", [in_empty_group, in_group, in_pool, in_idle_pool, at_wait_group])
def test_lost_task_goes_without_a_word_and_with_all_it_had(
    lock: AbstractContextManager[None],
    body: Callable[[Context], Coroutine[Any, Any, None]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The collector waits for no lock, no coroutine tries to await, and neither task nor context is left."""
    unraisable: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", unraisable.append)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        told: list[str] = []
        loop.set_exception_handler(lambda _, fault: told.append(str(fault["message"])))
        ctx = background().with_cancel()
        asyncio.create_task(body(ctx))  # noqa: RUF006 - it is to be lost
        await wait_idle()
        count = len(leaked_tasks())
        with lock:
            gc.collect()
        await wait_idle()
        assert told == ["Task was destroyed but it is pending!"] * count
        assert leaked_tasks() == []
        assert ctx.statistics().children == 0

    bubble(main)
    assert unraisable == []


@locks
def test_lost_task_stops_its_ticker(lock: AbstractContextManager[None]) -> None:
    """At once, or, when the lock is held, in the loop's next round."""

    async def main() -> None:
        ticker = Ticker(10)

        async def body() -> None:
            with ticker:
                await wait_in_vain()

        coroutine = body()
        coroutine.send(None)
        with lock:
            coroutine.close()
        await asyncio.sleep(0)
        assert ticker.statistics().period_seconds is None

    bubble(main)


@locks
def test_lost_wait_of_a_group_is_forgotten(lock: AbstractContextManager[None]) -> None:
    """A wait that was told of the end, and never comes back, keeps nobody from the next round."""

    async def main() -> None:
        group = WaitGroup()
        group.add()
        waits = [group.wait() for _ in range(2)]
        for wait in waits:
            wait.send(None)
        with lock:
            waits[0].close()
        await asyncio.sleep(0)
        assert group.statistics().waiting == 1
        group.done()
        with lock:
            waits[1].close()
        await asyncio.sleep(0)
        group.add()
        assert group.statistics().waiting == 0

    bubble(main)


async def from_group(ended: list[str]) -> AsyncGenerator[int, None]:
    """Yield within a group."""
    async with ErrorGroup() as group:
        await group.go(clean_up_slowly, ended)
        yield 1


async def from_pool(ended: list[str]) -> AsyncGenerator[int, None]:
    """Yield within a pool."""
    async with WorkerPool(clean_up_slowly, 2) as pool:
        await pool.submit(ended)
        yield 1


async def clean_up_slowly(ended: list[str]) -> None:
    """Run for ever, and when cancelled take five seconds to end."""
    try:
        await asyncio.sleep(FOREVER)
    finally:
        await asyncio.sleep(5)
        ended.append("clean")


@pytest.mark.parametrize("generate", [from_group, from_pool])
def test_generator_that_is_closed_ends_what_it_has_begun(
    generate: Callable[[list[str]], AsyncGenerator[int, None]],
) -> None:
    """Its block is left by GeneratorExit too, but its task runs: it waits for the clean-up."""

    async def main() -> None:
        ended: list[str] = []
        async with aclosing(generate(ended)) as generator:
            async for _ in generator:
                await asyncio.sleep(1)
                break
        assert ended == ["clean"]
        assert asyncio.get_running_loop().time() == 6

    bubble(main)


def test_pool_that_another_task_leaves_normally_is_not_lost() -> None:
    """It lets its jobs end, as for the task that entered it."""

    async def main() -> None:
        ended: list[int] = []

        async def work(seconds: int) -> None:
            await asyncio.sleep(seconds)
            ended.append(seconds)

        pool = WorkerPool(work, 2)
        await asyncio.create_task(pool.__aenter__())
        await pool.submit(5)
        await pool.__aexit__(None, None, None)
        assert ended == [5]

    bubble(main)
