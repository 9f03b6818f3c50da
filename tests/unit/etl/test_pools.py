"""The three pools: what each makes of a batch that failed, and what all of them promise."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from functools import partial
from typing import Final

import pytest

from etl.block import Block
from etl.errors import WorkerLostError
from etl.pools import BatchJob, Work, count_failures, keep_first_error, stop_together
from tests.support.eventually import eventually

WORKERS: Final = 3
JOBS: Final = 40

Pool = Callable[[AsyncIterator[BatchJob], Work, int], Coroutine[object, object, None]]


def ignore(_error: Exception, _job: BatchJob) -> None:
    """Go on, whatever failed."""


POOLS: Final[dict[str, Pool]] = {
    "reject": partial(count_failures, judge=ignore),
    "finish": keep_first_error,
    "stop": stop_together,
}
each_pool = pytest.mark.parametrize("pool", POOLS.values(), ids=POOLS.keys())


class Feeder:
    """Yields jobs, and counts how many were taken; may fail before one."""

    def __init__(self, jobs: int = JOBS, fails_at: int = JOBS + 1) -> None:
        self.taken = 0
        self._jobs = jobs
        self._fails_at = fails_at

    async def __aiter__(self) -> AsyncIterator[BatchJob]:
        for number in range(1, self._jobs + 1):
            if number == self._fails_at:
                raise ValueError("the file changed")
            await asyncio.sleep(0)
            self.taken = number
            yield BatchJob(number, Block(b"x\n", 2 * number, number))


class Bench:
    """Does jobs at a gate that the test opens; `fail` may raise for one of them."""

    def __init__(self, *, is_open: bool = False, fail: Callable[[int], None] = lambda _: None) -> None:
        self.gate = asyncio.Event()
        self.begun: list[int] = []
        self.done: list[int] = []
        self.cut: list[int] = []
        self._fail = fail
        if is_open:
            self.gate.set()

    async def work(self, job: BatchJob) -> None:
        """Do one job."""
        self.begun.append(job.number)
        try:
            self._fail(job.number)
            await self.gate.wait()
            await asyncio.sleep(0)
        except asyncio.CancelledError:
            self.cut.append(job.number)
            raise
        self.done.append(job.number)


def failing(*numbers: int) -> Callable[[int], None]:
    """Fail at some jobs."""

    def fail(number: int) -> None:
        if number in numbers:
            raise OSError(number, "no room")

    return fail


@each_pool
async def test_all_jobs_are_done_once(pool: Pool) -> None:
    """Every job that the feeder gives is done, once."""
    bench = Bench(is_open=True)
    await asyncio.wait_for(pool(aiter(Feeder()), bench.work, WORKERS), 5)
    assert sorted(bench.done) == list(range(1, JOBS + 1))


@each_pool
async def test_workers_bound_what_is_in_hand_and_the_channel_what_waits(pool: Pool) -> None:
    """While nothing gets done, as many jobs are begun as there are workers, and twice as many wait beside the next."""
    feeder, bench = Feeder(), Bench()
    load = asyncio.create_task(pool(aiter(feeder), bench.work, WORKERS))
    await eventually(lambda: feeder.taken >= 3 * WORKERS + 1)
    for _ in range(50):
        await asyncio.sleep(0)
    assert (len(bench.begun), feeder.taken) == (WORKERS, 3 * WORKERS + 1)
    bench.gate.set()
    await asyncio.wait_for(load, 5)
    assert len(bench.done) == JOBS


@each_pool
async def test_cancel_reaches_the_workers_and_waits_for_them(pool: Pool) -> None:
    """When the load is cancelled every job in hand is, too, and has ended before the load has."""
    bench = Bench()
    load = asyncio.create_task(pool(aiter(Feeder()), bench.work, WORKERS))
    await eventually(lambda: len(bench.begun) == WORKERS)
    load.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(load, 5)
    assert sorted(bench.cut) == sorted(bench.begun)
    assert not bench.done


@each_pool
async def test_pool_whose_workers_are_cancelled_says_so_at_once(pool: Pool) -> None:
    """No feeder is left in front of a channel that nobody reads."""

    async def die(_job: BatchJob) -> None:
        worker = asyncio.current_task()
        assert worker is not None
        worker.cancel()
        await asyncio.sleep(0)

    with pytest.raises(WorkerLostError, match="a worker was lost with the batch of line"):
        await asyncio.wait_for(pool(aiter(Feeder()), die, WORKERS), 5)


async def idle(
    pool: Pool, bench: Bench, resume: asyncio.Event
) -> tuple[asyncio.Task[object], list[asyncio.Task[object]]]:
    """Start a pool whose feeder pauses behind two jobs; return it, and its workers, when all of them wait for a job."""

    async def pausing() -> AsyncIterator[BatchJob]:
        async for job in Feeder():
            if job.number == 3:
                await resume.wait()
            yield job

    load = asyncio.create_task(pool(pausing(), bench.work, WORKERS))
    await eventually(lambda: len(bench.done) == 2)
    for _ in range(50):
        await asyncio.sleep(0)
    workers = [task for task in asyncio.all_tasks() if task.get_name().startswith("worker ")]
    assert len(workers) == WORKERS
    return load, workers


@each_pool
async def test_pool_whose_workers_are_cancelled_between_two_jobs_says_so_at_once(pool: Pool) -> None:
    """Workers that waited for a job are missed as well: not as if all were done, and no feeder is left."""
    bench, resume = Bench(is_open=True), asyncio.Event()
    load, workers = await idle(pool, bench, resume)
    for worker in workers:
        worker.cancel()
    await asyncio.wait(workers, timeout=5)
    resume.set()
    with pytest.raises(WorkerLostError, match="a worker was lost between two batches"):
        await asyncio.wait_for(load, 5)
    assert sorted(bench.done) == [1, 2]


@each_pool
async def test_cancel_reaches_workers_that_wait_for_a_job(pool: Pool) -> None:
    """A load that is cancelled while its file brings nothing ends as it does in the middle of a job."""
    load, workers = await idle(pool, Bench(is_open=True), asyncio.Event())
    load.cancel()
    await asyncio.wait({load}, timeout=5)
    assert load.cancelled()
    assert all(worker.done() for worker in workers)


class DyingError(BaseException):
    """Ends a worker as nothing that is caught does."""


@each_pool
async def test_pool_whose_workers_die_says_so_at_once(pool: Pool) -> None:
    """What is no Exception ends a worker too, and its feeder is not left in front of a full channel."""

    async def die(_: BatchJob) -> None:
        await asyncio.sleep(0)
        raise DyingError

    with pytest.raises(DyingError):
        await asyncio.wait_for(pool(aiter(Feeder()), die, WORKERS), 5)


@each_pool
async def test_error_of_the_feeder_ends_the_load(pool: Pool) -> None:
    """What the file's reader raises is the load's error."""
    bench = Bench(is_open=True)
    with pytest.raises(ValueError, match="the file changed"):
        await asyncio.wait_for(pool(aiter(Feeder(fails_at=20)), bench.work, WORKERS), 5)
    assert max(bench.begun) < 20


async def test_reject_counts_each_failure_and_does_all_others() -> None:
    """Each failed job is told with its error, and costs itself alone."""
    told: list[tuple[int, str]] = []
    bench = Bench(is_open=True, fail=failing(2, 3, 17))
    await count_failures(aiter(Feeder()), bench.work, WORKERS, lambda error, job: told.append((job.number, str(error))))
    assert sorted(told) == [(number, f"[Errno {number}] no room") for number in (2, 3, 17)]
    assert sorted(bench.done) == [number for number in range(1, JOBS + 1) if number not in {2, 3, 17}]


async def test_reject_ends_with_what_its_judge_raises() -> None:
    """A failure that is judged to concern all others cancels those in hand."""

    def judge(error: Exception, _job: BatchJob) -> None:
        raise error

    bench = Bench(fail=failing(3))
    with pytest.raises(OSError, match="no room"):
        await asyncio.wait_for(count_failures(aiter(Feeder()), bench.work, WORKERS, judge), 5)
    assert bench.begun == [1, 2, 3]
    assert sorted(bench.cut) == [1, 2]


async def test_finish_keeps_the_first_error_and_what_is_in_hand() -> None:
    """The jobs in hand at the first failure are done, those that wait are not begun, and no later failure is told."""
    feeder, bench, is_full = Feeder(), Bench(), asyncio.Event()

    async def work(job: BatchJob) -> None:
        if job.number == 2:
            await is_full.wait()
            raise OSError(2, "no room")
        await bench.work(job)
        if job.number == 3:
            raise OSError(3, "no room either")

    load = asyncio.create_task(keep_first_error(aiter(feeder), work, WORKERS))
    await eventually(lambda: feeder.taken == 3 * WORKERS + 1)
    is_full.set()
    for _ in range(50):
        await asyncio.sleep(0)
    assert not load.done()
    bench.gate.set()
    with pytest.raises(OSError, match="no room") as caught:
        await asyncio.wait_for(load, 5)
    assert caught.value.errno == 2
    assert (bench.begun, sorted(bench.done), bench.cut) == ([1, 3], [1, 3], [])


async def test_stop_cancels_what_is_in_hand_at_the_first_error() -> None:
    """The first failure ends the others where they are, without waiting for what they wait for."""
    feeder, bench = Feeder(), Bench(fail=failing(3))
    with pytest.raises(OSError, match="no room"):
        await asyncio.wait_for(stop_together(aiter(feeder), bench.work, WORKERS), 5)
    assert (bench.begun, sorted(bench.cut), bench.done) == ([1, 2, 3], [1, 2], [])
    assert feeder.taken < JOBS
