"""The pool of workers in three variants, which differ in what a batch that failed means for the others.

| `--on-error` | Go | a batch that failed |
|---|---|---|
| `reject` | a wait group, and a counter of failures | is counted, and the others are loaded |
| `finish` | a wait group, and the first error under a mutex | ends the load behind the batches in hand |
| `stop` | an error group | ends the load now, and what is in hand is rolled back |

Each takes the batches as they come, has at most `num_workers` in hand, and lets 2 x `num_workers` wait in its channel.
Cancelling any of them cancels its workers, and returns when they have ended. No variant leaves its feeder in front of a
channel that nobody reads, and none takes jobs for done whose workers are gone.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from etl.block import Block
from etl.errors import WorkerLostError
from patterns import (
    Channel,
    ChannelClosedError,
    Context,
    ErrorGroup,
    Mutex,
    WaitGroup,
    WorkerPool,
    background,
)


@dataclass(frozen=True, slots=True)
class BatchJob:
    """A batch that waits for a worker."""

    number: int
    block: Block


Work = Callable[[BatchJob], Coroutine[Any, Any, None]]


async def count_failures(
    jobs: AsyncIterator[BatchJob], work: Work, num_workers: int, judge: Callable[[Exception, BatchJob], None]
) -> None:
    """Do all jobs, whatever becomes of each.

    `WorkerPool` is the wait group, the channel and its closing in one, and gives each error back with its job. `judge`
    is told of each failure; what it raises ends the load as in `stop_together`.

    Raises:
        WorkerLostError: A worker was cancelled with a job in hand, or all of them while there were jobs; Go's pool
            would go on with the others, and with none for ever.
    """
    async with ErrorGroup() as group, WorkerPool(work, num_workers, 2 * num_workers) as pool:
        are_all_accepted = False

        async def feed() -> None:
            nonlocal are_all_accepted
            try:
                async for job in jobs:
                    await pool.submit(job)
            except ChannelClosedError:
                return  # no worker is left, and so the results end
            are_all_accepted = True
            pool.close()

        await group.go(feed)
        async for result in pool:
            if isinstance(result.error, asyncio.CancelledError):
                raise WorkerLostError(result.job.block.first_line)
            if isinstance(result.error, Exception):
                judge(result.error, result.job)
            elif result.error is not None:
                raise result.error
        if not are_all_accepted:
            raise WorkerLostError


async def keep_first_error(jobs: AsyncIterator[BatchJob], work: Work, num_workers: int) -> None:
    """Do the jobs up to the first that fails, and finish what is in hand then; raise that error.

    A wait group ends nobody, so a context of its own tells the workers of a cancel.
    """
    job_channel: Channel[BatchJob] = Channel(2 * num_workers)
    first = _FirstError(job_channel)
    wait_group = WaitGroup()

    async def work_unless_failed(job: BatchJob) -> None:
        if first.error is None:
            await work(job)

    async def worker(ctx: Context, worker_id: int) -> None:
        _name_worker(worker_id, num_workers)
        try:
            await ctx.run(_do_all(ctx, job_channel, work_unless_failed))
        except BaseException as error:  # noqa: BLE001 - raised when all have ended
            await first.keep(error)

    with background().with_cancel() as ctx:
        for worker_id in range(1, num_workers + 1):
            wait_group.go(worker, ctx, worker_id)
        try:
            try:
                await _feed(jobs, job_channel)
            except Exception as error:  # noqa: BLE001 - the file's, which is kept as one of a batch
                await first.keep(error)
            await wait_group.wait()
        except BaseException:
            ctx.cancel()
            await wait_group.wait()
            raise
    if first.error is not None:
        raise first.error


class _FirstError:
    """The first error of several workers; with it their channel is closed.

    Between tasks of one event loop the mutex has nothing to guard, for no `await` stands between the look at the error
    and its change. It is here for the reader of Go, whose workers run in parallel.
    """

    def __init__(self, job_channel: Channel[BatchJob]) -> None:
        self._job_channel = job_channel
        self._mutex = Mutex()
        self.error: BaseException | None = None

    async def keep(self, error: BaseException) -> None:
        async with self._mutex:
            if self.error is not None:
                return
            self.error = error
        if not self._job_channel.is_closed:
            self._job_channel.close()


async def stop_together(jobs: AsyncIterator[BatchJob], work: Work, num_workers: int) -> None:
    """Do the jobs up to the first that fails, and cancel the others, which roll back; raise that error.

    The feeder is the group's body, and so cancelled with the workers.
    """
    job_channel: Channel[BatchJob] = Channel(2 * num_workers)
    async with ErrorGroup() as group:

        async def worker(worker_id: int) -> None:
            _name_worker(worker_id, num_workers)
            await _do_all(group.ctx, job_channel, work)

        for worker_id in range(1, num_workers + 1):
            await group.go(worker, worker_id)
        await _feed(jobs, job_channel)


async def _feed(jobs: AsyncIterator[BatchJob], job_channel: Channel[BatchJob]) -> None:
    """Send the jobs and close the channel, unless somebody has closed it meanwhile."""
    try:
        async for job in jobs:
            await job_channel.send(job)
    except ChannelClosedError:
        return
    job_channel.close()


async def _do_all(ctx: Context, job_channel: Channel[BatchJob], work: Work) -> None:
    """Do the jobs of a channel up to its end.

    Nobody cancels one worker alone, but whoever does ends it, also while it waits for a job; and neither a wait group
    nor an error group takes that for a failure.

    Raises:
        WorkerLostError: It was cancelled, and the context that ends with the pool has not ended.
    """
    line = None
    try:
        async for job in job_channel:
            line = job.block.first_line
            await work(job)
            line = None
    except asyncio.CancelledError:
        if ctx.is_done:
            raise
        raise WorkerLostError(line) from None


def _name_worker(worker_id: int, num_workers: int) -> None:
    task = asyncio.current_task()
    if task is not None:
        task.set_name(f"worker {worker_id} of {num_workers}")
