"""Load one file with a pool of workers: the twin of the original's processor.go.

In Go the workers range over `job_channel` and a wait group ends with the last of them; `etl/pools.py` has that pool in
three variants. What differs: a batch that failed comes out with its error, and a feeder is never left blocked in front
of workers that are gone.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Final, Protocol

from etl.block import Block
from etl.copy_format import CopyRows, copy_rows
from etl.coupon_batch import CouponBatch, Reject, read_batch
from etl.errors import DuplicateRowError, FileBusyError, RangeTakenError, RowRejectedError, TooManyRejectsError
from etl.header import Header
from etl.ledger import BatchRange, LedgerFile
from etl.pools import BatchJob, count_failures, keep_first_error, stop_together
from etl.progress import Counters
from etl.rejects import RejectFile
from etl.retry import keep_trying
from etl.settings import EtlSettings, LoadOptions, OnError
from etl.store import BatchCounts
from patterns import Context
from runtime.errors import DependencyUnavailable
from runtime.logs import get_logger

_REASONS_MAX: Final = 100

_log = get_logger("etl")


class BatchStore(Protocol):
    """What loads a batch: rows and ledger entry together, or neither."""

    async def load_batch(self, file: LedgerFile, where: BatchRange, rows: CopyRows, *, rejected: int) -> BatchCounts:
        """Load a batch, or tell what became of it when it was loaded before."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where the rows of a file go: good ones to the store and its ledger's entry, bad ones to the reject file."""

    store: BatchStore
    file: LedgerFile
    rejects: RejectFile


@dataclass(frozen=True, slots=True)
class BatchOutcome:
    """What became of the rows of a batch: each is one of these. In a dry run the good ones are skipped."""

    inserted: int
    skipped: int
    rejected: int


class Processor:
    """Loads the batches of one file; for one load.

    Args:
        header: the file's columns.
        target: where the rows go; None in a dry run.
        counters: of this try.
        settings: the waits while Postgres is away, and how long a record may be.
        options: `workers` is how many batches are in hand at once. `on_error`: `reject` goes on past bad rows, also
            past a batch that fails for a reason of its own, and the file is then not loaded whole; `finish` and `stop`
            end the load at the first bad row or batch, behind the batches in hand or without them. `max_rejects` counts
            over all tries.
        reach: called at the crash points.
    """

    def __init__(
        self,
        header: Header,
        target: Target | None,
        counters: Counters,
        settings: EtlSettings,
        options: LoadOptions,
        reach: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._header = header
        self._target = target
        self._counters = counters
        self._retry = settings.retry
        self._record_bytes_max = settings.record_bytes_max
        self._num_workers = options.workers
        self._on_error = options.on_error
        self._max_rejects = options.max_rejects
        self._is_shared = options.is_shared
        self._reach = reach
        # Against the limit: those of earlier tries, and of batches that are in hand or loaded.
        self._bad_rows = 0 if target is None else sum(one.rejected for one in target.file.done)
        self._in_hand: dict[str, str] = {}
        self._failures: list[Exception] = []
        self.reasons: Counter[str] = Counter()

    @property
    def processed_count(self) -> int:
        """Rows that became something: loaded, skipped or rejected."""
        return self._counters.processed.load()

    @property
    def skipped_count(self) -> int:
        """Rows whose code was there."""
        return self._counters.skipped.load()

    @property
    def rejected_count(self) -> int:
        """Bad rows among them."""
        return self._counters.rejected.load()

    @property
    def failed_count(self) -> int:
        """Batches that were not loaded, for a reason of their own."""
        return self._counters.failed.load()

    @property
    def failures(self) -> list[Exception]:
        """Why batches were not loaded, the first ones."""
        return self._failures

    def in_hand(self) -> dict[str, str]:
        """Return what each worker has in hand, for whoever shows it."""
        return dict(self._in_hand)

    async def process(self, ctx: Context, blocks: AsyncIterator[Block]) -> None:
        """Load all blocks, or as many as were begun when the context ended; return when none is in hand.

        Cancellation, and whatever ends the load, rolls back what is in hand.

        Raises:
            RowRejectedError: `on_error` is not `reject`, and a row is bad.
            TooManyRejectsError: More rows are bad than may be.
            DuplicateRowError: A code came twice, and the rule is `fail`.
            FileChangedError: The file is not what it was.
            DependencyUnavailable: Postgres was away for longer than `give_up_seconds`.
            WorkerLostError: A worker was cancelled.
            OSError: The rejects cannot be kept.
        """
        jobs, work = self._jobs(ctx, blocks), partial(self._work, ctx)
        match self._on_error:
            case OnError.REJECT:
                await count_failures(jobs, work, self._num_workers, self._judge)
            case OnError.FINISH:
                await keep_first_error(jobs, work, self._num_workers)
            case OnError.STOP:
                await stop_together(jobs, work, self._num_workers)

    async def process_batch(self, ctx: Context, job: BatchJob) -> BatchOutcome:
        """Load one batch and return what became of its rows; in = inserted + skipped + rejected.

        Its bad rows are on disk before it counts. While Postgres is away it is tried again until the context ends.
        Cancellation rolls it back.
        """
        batch = await asyncio.to_thread(read_batch, job.block, self._header, record_bytes_max=self._record_bytes_max)
        if batch.rejects:
            await self._reject(batch.rejects)
        try:
            counts = await self._load(ctx, job, batch)
        except RangeTakenError:
            self._bad_rows -= len(batch.rejects)  # whoever loads the rest of it counts them anew
            raise
        self._reach("after-commit")
        outcome = BatchOutcome(counts.inserted, counts.skipped, len(batch.rejects))
        self.reasons.update(reject.reason for reject in batch.rejects)
        self._counters.processed.add(batch.rows)
        self._counters.skipped.add(outcome.skipped)
        self._counters.rejected.add(outcome.rejected)
        self._counters.bytes_done.add(len(job.block.data))
        _log.debug("Batch done", worker_id=_worker_id(), batch=job.number, **asdict(outcome))
        return outcome

    async def _work(self, ctx: Context, job: BatchJob) -> None:
        if ctx.is_done:
            return
        worker_id = _worker_id()
        self._in_hand[worker_id] = f"line {job.block.first_line:,}"
        try:
            await self.process_batch(ctx, job)
        except RangeTakenError as error:
            if not self._is_shared:
                raise
            _log.info("Batch left to whoever loaded some of it", detail=str(error))
        finally:
            del self._in_hand[worker_id]

    async def _jobs(self, ctx: Context, blocks: AsyncIterator[Block]) -> AsyncIterator[BatchJob]:
        number = 0
        async for block in blocks:
            if ctx.is_done:
                return
            number += 1
            yield BatchJob(number, block)

    def _judge(self, error: Exception, job: BatchJob) -> None:
        """Go on after a batch that failed by itself; what would meet every other batch ends the load."""
        if isinstance(error, _ENDS_ALL):
            raise error
        self._counters.failed.add()
        if len(self._failures) < _REASONS_MAX:
            self._failures.append(error)
        _log.error("Batch failed", line=job.block.first_line, error=repr(error))

    async def _reject(self, rejects: Sequence[Reject]) -> None:
        if self._on_error is not OnError.REJECT:
            raise RowRejectedError(rejects[0].line, rejects[0].reason)
        self._bad_rows += len(rejects)
        if self._max_rejects is not None and self._bad_rows > self._max_rejects:
            raise TooManyRejectsError(self._max_rejects, rejects[-1].line)
        if self._target is not None:
            await asyncio.to_thread(self._target.rejects.write, rejects)
            self._reach("after-rejects")

    async def _load(self, ctx: Context, job: BatchJob, batch: CouponBatch) -> BatchCounts:
        if self._target is None:
            return BatchCounts(inserted=0, skipped=batch.rows - len(batch.rejects))
        store, file, block = self._target.store, self._target.file, job.block
        where = BatchRange(block.byte_start, block.byte_end, block.first_line, block.next_line)
        rows = await asyncio.to_thread(copy_rows, batch, file.source)

        async def load() -> BatchCounts:
            self._reach("before-load")
            return await store.load_batch(file, where, rows, rejected=len(batch.rejects))

        return await keep_trying(ctx, self._retry, load)


_ENDS_ALL: Final = (TooManyRejectsError, DuplicateRowError, DependencyUnavailable, FileBusyError, OSError)


def _worker_id() -> str:
    task = asyncio.current_task()
    return "worker" if task is None else task.get_name()
