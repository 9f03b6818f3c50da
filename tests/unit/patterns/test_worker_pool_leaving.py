"""WorkerPool: how its block is left."""

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

import pytest

from patterns.bubble import bubble, wait_idle
from patterns.worker_pool import WorkerPool, WorkerPoolStatistics


async def square_after(number: int) -> int:
    """Take `number` seconds; fail for 3."""
    await asyncio.sleep(number)
    if number == 3:
        raise ValueError("three")
    return number * number


def cleaning_up(seconds: float, cleaned: list[int]) -> Callable[[int], Coroutine[Any, Any, int]]:
    """Return work that lasts long and, when it is cut short, cleans up for some seconds and notes its job."""

    async def work(number: int) -> int:
        try:
            await asyncio.sleep(100)
        finally:
            await asyncio.sleep(seconds)
            cleaned.append(number)
        return number

    return work


def test_leaving_the_block_finishes_the_jobs_and_raises_unread_errors() -> None:
    """Whoever reads no results still learns of the failures, after all jobs have ended."""

    async def main() -> None:
        with pytest.raises(ExceptionGroup, match="2 jobs") as caught:  # noqa: PT012  # the block is what is tested
            async with WorkerPool(square_after, 2, capacity=9) as pool:
                for number in (1, 3, 5, 3):
                    await pool.submit(number)
        assert [str(error) for error in caught.value.exceptions] == ["three", "three"]
        assert asyncio.get_running_loop().time() == 6
        assert pool.statistics().succeeded == 2

    bubble(main)


def test_leaving_the_block_by_an_error_cancels_the_jobs() -> None:
    """An error in the body ends the pool at once, waits for the jobs' clean-up, and goes on."""

    async def main() -> None:
        cleaned: list[int] = []
        work = cleaning_up(1, cleaned)

        with pytest.raises(LookupError, match="body"):  # noqa: PT012  # the block is what is tested
            async with WorkerPool(work, 2) as pool:
                for number in range(4):
                    await pool.submit(number)
                await asyncio.sleep(1)
                raise LookupError("body")
        assert sorted(cleaned) == [0, 1]
        assert asyncio.get_running_loop().time() == 2
        assert pool.statistics() == WorkerPoolStatistics(
            workers=0, queued=0, running=0, succeeded=0, failed=4, unread=4
        )

    bubble(main)


@pytest.mark.parametrize("is_cancelled", [False, True])
def test_job_that_swallows_its_cancel_is_the_last_of_its_worker(is_cancelled: bool) -> None:
    """When the block is left by an error or a cancel, a job that then ends with a value has it; no other is begun."""

    async def end_early(number: int) -> int:
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(100)
        return number

    async def work(number: int) -> int:
        return await (asyncio.create_task(end_early(number)) if number == 1 else end_early(number))

    async def main() -> None:
        pool = WorkerPool(work, 2, capacity=3)

        async def own() -> None:
            async with pool:
                for number in range(5):
                    await pool.submit(number)
                    await wait_idle()
                await asyncio.sleep(1)
                raise LookupError("body")

        task = asyncio.create_task(own())
        await asyncio.sleep(0.5)
        if is_cancelled:
            task.cancel()
        await asyncio.wait({task})
        assert task.cancelled() is is_cancelled
        assert [type(result.error) async for result in pool] == [type(None)] * 2 + [asyncio.CancelledError] * 3
        assert pool.statistics().workers == 0

    bubble(main)


@pytest.mark.parametrize("cancels", [1, 2])
def test_cancel_while_leaving_ends_the_jobs_and_is_raised(cancels: int) -> None:
    """A cancel that comes when the pool waits for its jobs, or even for their clean-up, is not swallowed."""

    async def main() -> None:
        cleaned: list[int] = []
        work = cleaning_up(5, cleaned)

        async def own() -> None:
            async with WorkerPool(work, 1) as pool:
                await pool.submit(1)
                await asyncio.sleep(1)

        task = asyncio.create_task(own())
        for _ in range(cancels):
            await asyncio.sleep(2)
            task.cancel()
        await asyncio.wait({task})
        assert task.cancelled()
        assert cleaned == [1]
        assert asyncio.get_running_loop().time() == 7

    bubble(main)


def test_cancel_during_the_clean_up_after_an_error_has_the_last_word() -> None:
    """A cancel that comes when an error of the body already ends the jobs is raised, with that error behind it."""

    async def main() -> None:
        cleaned: list[int] = []
        work = cleaning_up(5, cleaned)

        async def own() -> None:
            async with WorkerPool(work, 1) as pool:
                await pool.submit(1)
                await asyncio.sleep(1)
                raise LookupError("body")

        task = asyncio.create_task(own())
        await asyncio.sleep(2)
        task.cancel()
        await asyncio.wait({task})
        assert task.cancelled()
        assert cleaned == [1]

    bubble(main)
