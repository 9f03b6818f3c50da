"""A fixed number of workers on one bounded queue of jobs: Go's worker pool, whose workers range over a channel.

In the usual Go pool a worker that dies takes its job with it, and when all have died whoever feeds them blocks for
ever. Here every accepted job has a result, also the job of a worker that was cancelled, and a pool without workers
accepts nothing.
"""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Generic, Self, TypeVar, cast

from patterns._lost_body import is_lost
from patterns.channel import Channel
from patterns.errors import EndOfChannel

J = TypeVar("J")
R = TypeVar("R")


@dataclass(frozen=True)
class JobResult(Generic[J, R]):
    """A job with what its function returned or raised."""

    job: J
    value: R | None = None
    error: BaseException | None = None

    def unwrap(self) -> R:
        """Return the value, or raise the error."""
        if self.error is not None:
            raise self.error
        return cast("R", self.value)


@dataclass(frozen=True, slots=True)
class WorkerPoolStatistics:
    """The workers alive, the jobs queued, running, succeeded and failed, and the results that nobody has read yet."""

    workers: int
    queued: int
    running: int
    succeeded: int
    failed: int
    unread: int


class WorkerPool(Generic[J, R]):
    """Run fn(job) for each submitted job, at most `workers` at once; read the results with `async for result in pool`.

    Every accepted job has exactly one result, in the order in which they end. A function that raises, or is cancelled
    by something it awaits, is a result with an error; its worker goes on. Back-pressure: `submit` waits while
    `capacity` jobs are queued, and no more than `workers + capacity` jobs run or have a result that nobody has read.
    So whoever has more jobs than that must let somebody read while they are submitted.

    Leaving `async with` normally closes the pool, lets the accepted jobs end, and raises the errors that nobody read in
    one ExceptionGroup. Leaving it by an error or a cancel cancels the jobs and waits for their end, also for that of a
    job that goes on; jobs in the queue are not begun, and come out as cancelled.

    Should workers be cancelled from outside, their jobs have CancelledError as their result; with the last worker the
    queued jobs get the same, and the pool closes.

    Args:
        fn: The asynchronous function for a job.
        workers: How many to start, once, with the first job; 1 or more.
        capacity: How many jobs may wait in the queue, and results to be read; twice the number of workers if left out.
    """

    def __init__(self, fn: Callable[[J], Coroutine[Any, Any, R]], workers: int, capacity: int | None = None) -> None:
        if workers < 1:
            raise ValueError(f"workers must be 1 or more, not {workers}")
        queue = 2 * workers if capacity is None else capacity
        self._fn = fn
        self._size = workers
        self._jobs: Channel[J] = Channel(queue)
        # A worker holds a place for its result before it takes a job, so handing over the result cannot wait or fail.
        # When the last worker is gone, what is queued then needs room as well.
        self._places: Channel[None] = Channel(workers + 2 * queue)
        self._results: Channel[JobResult[J, R]] = Channel(workers + 2 * queue)
        for _ in range(workers + queue):
            self._places.send_nowait(None)
        self._workers: set[asyncio.Task[None]] = set()
        self._body: asyncio.Task[Any] | None = None  # while the body of `async with` runs
        self._is_started = False
        self._is_cut_off = False
        self._running = 0
        self._succeeded = 0
        self._failed = 0

    async def submit(self, job: J) -> None:
        """Queue a job; wait while the queue is full.

        A submit that is cancelled in the very tick in which its job was taken raises CancelledError, and the job is
        done.

        Raises:
            ChannelClosedError: The pool is closed, or was closed meanwhile; the job is not accepted.
        """
        self._start()
        await self._jobs.send(job)

    def close(self) -> None:
        """Accept no more jobs. Those accepted are still done; the results end after the last one. Idempotent."""
        if not self._jobs.is_closed:
            self._jobs.close()
            if not self._is_started:
                self._results.close()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> JobResult[J, R]:
        try:
            result = await self._results.receive()
        except EndOfChannel:
            raise StopAsyncIteration from None
        self._places.send_nowait(None)
        return result

    async def __aenter__(self) -> Self:
        self._body = asyncio.current_task()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        body, self._body = self._body, None
        if is_lost(body, error):  # and its workers with it: the pool holds its body
            return
        self.close()
        unread: list[BaseException] = []
        try:
            if error is None:
                unread.extend([result.error async for result in self if result.error is not None])
        finally:
            self._cut_off()
            await _wait_for_all(self._workers)
        if unread:
            raise BaseExceptionGroup(f"{len(unread)} jobs of a worker pool failed", unread)

    def statistics(self) -> WorkerPoolStatistics:
        """Return the pool's counts."""
        return WorkerPoolStatistics(
            workers=len(self._workers),
            queued=len(self._jobs),
            running=self._running,
            succeeded=self._succeeded,
            failed=self._failed,
            unread=len(self._results),
        )

    def _start(self) -> None:
        if self._is_started or self._jobs.is_closed:
            return
        self._is_started = True
        for number in range(1, self._size + 1):
            worker = asyncio.create_task(self._work(), name=f"worker {number} of {self._size}")
            self._workers.add(worker)
            worker.add_done_callback(self._bury)

    def _cut_off(self) -> None:
        """Let no worker take another job, not even one whose job swallows this cancel."""
        self._is_cut_off = True
        for worker in self._workers:
            worker.cancel()

    async def _work(self) -> None:
        while True:
            await self._places.receive()
            try:
                job = await self._jobs.receive()
            except EndOfChannel:
                return
            await self._perform(job)
            if self._is_cut_off:
                return

    async def _perform(self, job: J) -> None:
        self._running += 1
        try:
            value = await self._fn(job)
        except BaseException as error:
            self._fail(job, error)
            worker = asyncio.current_task()
            is_own_cancel = isinstance(error, asyncio.CancelledError) and not (worker and worker.cancelling())
            if not isinstance(error, Exception) and not is_own_cancel:
                raise
        else:
            self._succeeded += 1
            self._results.send_nowait(JobResult(job, value))
        finally:
            self._running -= 1

    def _fail(self, job: J, error: BaseException) -> None:
        self._failed += 1
        self._results.send_nowait(JobResult(job, error=error))

    def _bury(self, worker: asyncio.Task[None]) -> None:
        """Forget a worker that has ended; after the last one, give the queued jobs their result and end the results."""
        self._workers.discard(worker)
        if self._workers:
            return
        self.close()
        while len(self._jobs):
            self._fail(self._jobs.receive_nowait(), asyncio.CancelledError("no worker is left"))
        self._results.close()


async def _wait_for_all(tasks: set[asyncio.Task[None]]) -> None:
    """Wait until the set is empty, whatever happens; then raise the cancel that came meanwhile."""
    cancelled = None
    while tasks:
        try:
            await asyncio.wait(tasks)
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        raise cancelled
