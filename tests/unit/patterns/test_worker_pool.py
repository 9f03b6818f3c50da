"""WorkerPool."""

import asyncio
from collections import Counter

import pytest

from patterns.bubble import bubble, wait_idle
from patterns.errors import ChannelClosedError
from patterns.worker_pool import JobResult, WorkerPool, WorkerPoolStatistics
from tests.support.shuffling_loop import run_shuffled


async def square_after(number: int) -> int:
    """Take `number` seconds; fail for 3."""
    await asyncio.sleep(number)
    if number == 3:
        raise ValueError("three")
    return number * number


async def read_all(pool: WorkerPool[int, int]) -> list[JobResult[int, int]]:
    """Read results until there are no more."""
    return [result async for result in pool]


def test_results_and_errors_come_out_for_every_job() -> None:
    """Each job gives one result that carries it, in the order of ending; an error does not end its worker."""

    async def main() -> None:
        async with WorkerPool(square_after, 2) as pool:
            for number in (4, 3, 1, 2):
                await pool.submit(number)
            pool.close()
            results = await read_all(pool)
        assert [result.job for result in results] == [3, 4, 1, 2]
        assert [result.value for result in results] == [None, 16, 1, 4]
        assert str(results[0].error) == "three"
        assert [result.error for result in results[1:]] == [None] * 3
        assert pool.statistics() == WorkerPoolStatistics(
            workers=0, queued=0, running=0, succeeded=3, failed=1, unread=0
        )

    bubble(main)


def test_unwrap_gives_the_value_or_raises_the_error() -> None:
    """A result is read as a call would have been."""
    assert JobResult(1, value=0).unwrap() == 0
    with pytest.raises(ValueError, match="bad"):
        JobResult[int, int](1, error=ValueError("bad")).unwrap()


def test_at_most_the_given_number_of_jobs_run_at_once() -> None:
    """In 100 interleavings of 30 jobs on 4 workers never more than four run, and four do."""

    async def main() -> int:
        running = most = 0

        async def work(_: int) -> int:
            nonlocal running, most
            running += 1
            most = max(most, running)
            await asyncio.sleep(0)
            running -= 1
            return 0

        async with WorkerPool(work, 4, capacity=30) as pool:
            for number in range(30):
                await pool.submit(number)
            pool.close()
            assert len(await read_all(pool)) == 30
        return most

    assert set(run_shuffled(main)) == {4}


def test_full_queue_makes_submit_wait() -> None:
    """With one worker and a queue of two, the fourth submit waits until the first job has ended."""

    async def main() -> float:
        async with WorkerPool(square_after, 1, capacity=2) as pool:
            for _ in range(3):
                await pool.submit(5)
                await wait_idle()
            assert pool.statistics() == WorkerPoolStatistics(
                workers=1, queued=2, running=1, succeeded=0, failed=0, unread=0
            )
            await pool.submit(5)
            return asyncio.get_running_loop().time()

    assert bubble(main) == 5


def test_unread_results_make_the_workers_wait() -> None:
    """Nobody reads: two workers and a capacity of one stop after three results, and go on when somebody does."""

    async def main() -> None:
        async with WorkerPool(square_after, 2, capacity=1) as pool:
            feeder = asyncio.create_task(feed(pool))
            await asyncio.sleep(100)
            assert pool.statistics() == WorkerPoolStatistics(
                workers=2, queued=1, running=0, succeeded=3, failed=0, unread=3
            )
            assert not feeder.done()
            assert len(await read_all(pool)) == 10
            await feeder

    async def feed(pool: WorkerPool[int, int]) -> None:
        for _ in range(10):
            await pool.submit(1)
        pool.close()

    bubble(main)


def test_capacity_of_zero_hands_jobs_over_directly() -> None:
    """Without a queue a submit lasts until a worker has the job."""

    async def main() -> float:
        async with WorkerPool(square_after, 1, capacity=0) as pool:
            reader = asyncio.create_task(read_all(pool))
            await pool.submit(5)
            await pool.submit(1)
            time = asyncio.get_running_loop().time()
            pool.close()
            await reader
            return time

    assert bubble(main) == 5


def test_closed_pool_accepts_nothing_and_finishes_what_it_accepted() -> None:
    """After close submit raises, also one that waits, and each accepted job still has its result."""

    async def main() -> None:
        async with WorkerPool(square_after, 1, capacity=1) as pool:
            await pool.submit(5)
            await wait_idle()
            await pool.submit(1)
            waiting = asyncio.create_task(pool.submit(2))
            await wait_idle()
            pool.close()
            pool.close()
            with pytest.raises(ChannelClosedError):
                await pool.submit(4)
            with pytest.raises(ChannelClosedError):
                await waiting
            assert [result.job for result in await read_all(pool)] == [5, 1]

    bubble(main)


def test_pool_closed_before_any_job_has_no_results() -> None:
    """Reading a pool that was closed unused ends at once, and it accepts nothing."""

    async def main() -> None:
        pool = WorkerPool(square_after, 2)
        pool.close()
        assert await read_all(pool) == []
        with pytest.raises(ChannelClosedError):
            await pool.submit(1)

    bubble(main)


def workers_of(pool: WorkerPool[int, int]) -> list[asyncio.Task[None]]:
    """Return the pool's tasks, for a test that attacks them."""
    return list(pool._workers)


def test_cancelled_worker_gives_its_job_a_result_and_others_go_on() -> None:
    """A worker that is cancelled from outside reports its job as cancelled; the rest of the pool does the rest."""

    async def main() -> None:
        async with WorkerPool(square_after, 2, capacity=9) as pool:
            for number in (5, 6, 1, 2):
                await pool.submit(number)
            await wait_idle()
            workers_of(pool)[0].cancel()
            await wait_idle()
            pool.close()
            results = await read_all(pool)
            assert Counter(result.job for result in results) == Counter([5, 6, 1, 2])
            assert [type(result.error) for result in results if result.error] == [asyncio.CancelledError]

    bubble(main)


def test_pool_without_workers_answers_for_the_queue_and_closes() -> None:
    """When the last worker was cancelled the queued jobs come out as cancelled, and whoever feeds is told, not hung."""

    async def main() -> None:
        pool = WorkerPool(square_after, 2, capacity=3)
        for _ in range(5):
            await pool.submit(50)
            await wait_idle()
        feeder = asyncio.create_task(pool.submit(50))
        await wait_idle()
        for worker in workers_of(pool):
            worker.cancel()
        results = await read_all(pool)
        assert [type(result.error) for result in results] == [asyncio.CancelledError] * 5
        with pytest.raises(ChannelClosedError):
            await feeder

    bubble(main)


def test_workers_cancelled_before_they_began_do_not_hang_the_pool() -> None:
    """Even workers that never ran a step leave no accepted job without a result."""

    async def main() -> None:
        pool = WorkerPool(square_after, 2)
        await pool.submit(1)
        for worker in workers_of(pool):
            worker.cancel()
        assert [type(result.error) for result in await read_all(pool)] == [asyncio.CancelledError]

    bubble(main)


def test_function_that_is_cancelled_by_what_it_awaits_fails_alone() -> None:
    """A CancelledError that nobody aimed at the worker is the job's error, and the worker goes on."""

    async def main() -> None:
        async def work(number: int) -> int:
            if number == 0:
                other = asyncio.get_running_loop().create_future()
                other.cancel()
                await other
            return number

        async with WorkerPool(work, 1) as pool:
            await pool.submit(0)
            await pool.submit(1)
            pool.close()
            first, second = await read_all(pool)
        assert isinstance(first.error, asyncio.CancelledError)
        assert second.unwrap() == 1

    bubble(main)


def test_exit_of_the_process_in_a_job_is_not_held_up() -> None:
    """SystemExit in a job is its result and still ends the program."""

    async def leave(_: int) -> int:
        raise SystemExit(3)

    results: list[JobResult[int, int]] = []

    async def main() -> None:
        pool = WorkerPool(leave, 1)
        await pool.submit(1)
        try:
            await asyncio.sleep(10)
        finally:
            results.extend(await read_all(pool))

    with pytest.raises(SystemExit):
        bubble(main)
    assert [type(result.error) for result in results] == [SystemExit]


@pytest.mark.parametrize(("workers", "capacity", "name"), [(0, None, "workers"), (1, -1, "capacity")])
def test_wrong_argument_is_named(workers: int, capacity: int | None, name: str) -> None:
    """Too few workers and a negative capacity are refused."""
    with pytest.raises(ValueError, match=name):
        WorkerPool(square_after, workers, capacity)
