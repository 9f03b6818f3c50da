"""Load one file from its first look to its last ledger entry."""

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final

from etl.errors import FileBusyError, FileRefusedError
from etl.feeder import Feeder
from etl.header import Header
from etl.ledger import Gap, gaps_of
from etl.metrics import LoadMetrics
from etl.processor import Processor, Target
from etl.progress import Counters, Monitor
from etl.rejects import RejectFile, reject_path
from etl.report import FileReport, Outcome
from etl.retry import keep_trying
from etl.settings import EtlSettings, LoadOptions
from etl.share import Share
from etl.source import open_file
from etl.store import EtlStore
from patterns import Context, ContextCancelled
from runtime.logs import get_logger

_GOES_ON: Final = "stopped by a signal; the same command goes on"

_log = get_logger("etl")


class FileLoad:
    """Loads files by the same settings and options; for one task.

    Args:
        store: None in a dry run, which reads and checks all, and writes nothing.
        metrics: are told of each file.
        reach: called at the crash points.
    """

    def __init__(
        self,
        store: EtlStore | None,
        settings: EtlSettings,
        options: LoadOptions,
        metrics: LoadMetrics,
        reach: Callable[[str], None],
    ) -> None:
        self._store = store
        self._settings = settings
        self._retry = settings.retry
        self._options = options
        self._metrics = metrics
        self._reach = reach
        self._own_name = uuid.uuid4().hex if options.is_shared else None

    async def run(self, ctx: Context, report: FileReport) -> None:
        """Load a file, or as much of it as is in hand when the context ends, and fill in its report.

        Whatever keeps this file from being loaded is in the report; a cancel rolls back what is in hand.
        """
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            async with open_file(report.name, self._settings, ctx.raise_if_done) as source:
                report.content_sha256, report.content_bytes = source.content_sha256.hex(), source.content_bytes
                feeder = Feeder(source, self._settings, self._options)
                header, rows = await feeder.read_header()
                if self._store is None:
                    await self._check(ctx, feeder, header, rows, report)
                else:
                    await self._load(ctx, self._store, feeder, header, rows, report)
                await asyncio.to_thread(source.check_unchanged)
        except (FileRefusedError, FileBusyError) as error:
            report.outcome, report.detail = Outcome.REFUSED, str(error)
        except ContextCancelled:
            report.outcome, report.detail = Outcome.STOPPED, _GOES_ON
        except Exception as error:  # noqa: BLE001 - told in the log, the report and the exit status
            report.outcome = Outcome.STOPPED if ctx.is_done else Outcome.FAILED
            report.detail = str(error) or type(error).__name__
            _log.error("File failed", file=report.name, exc_info=error)
        if self._store is not None and report.content_sha256 and not report.rows:
            try:
                await self._count(self._store, report)
            except Exception as error:  # noqa: BLE001 - why the file is not loaded is told already, and others follow
                _log.warning("What is loaded of a file is not known", file=report.name, error=str(error))
        if report.conflicting:
            _log.warning("Rows differ from what is there under their code", file=report.name, rows=report.conflicting)
        report.seconds = round(loop.time() - began, 3)
        _log.info("File done", file=report.name, outcome=report.outcome.value, rows=report.rows, detail=report.detail)

    async def _check(self, ctx: Context, feeder: Feeder, header: Header, rows: Gap, report: FileReport) -> None:
        """Read and check all rows; those that are good count as skipped, for nothing is loaded."""

        async def check(processor: Processor) -> None:
            await processor.process(ctx, feeder.blocks([rows]))

        processor = await self._process(header, None, report, [rows], check)
        report.rejected = processor.rejected_count
        report.skipped = processor.skipped_count
        report.outcome = self._outcome(processor, report, is_whole=not ctx.is_done)
        report.detail = report.detail or "a dry run: nothing was loaded"

    async def _load(
        self, ctx: Context, store: EtlStore, feeder: Feeder, header: Header, rows: Gap, report: FileReport
    ) -> None:
        options = self._options
        async with AsyncExitStack() as stack:

            async def hold() -> None:
                await stack.enter_async_context(store.hold_file(feeder.content_sha256))

            if not options.is_shared:
                await keep_trying(ctx, self._retry, hold)
            opening = feeder.content_sha256, report.content_bytes, report.name, options.duplicates
            file = await keep_trying(ctx, self._retry, store.open_file, *opening)
            gaps = gaps_of(rows, file.done)

            async def load(processor: Processor) -> None:
                if options.is_shared:
                    await Share(store, feeder, file, rows, self._settings, options).load(ctx, processor)
                else:
                    await processor.process(ctx, feeder.blocks(gaps))

            path = self._reject_path(feeder.content_sha256)
            with await asyncio.to_thread(RejectFile, path, file.done) as rejects:
                processor = await self._process(header, Target(store, file, rejects), report, gaps, load)
            self._reach("before-finish")
            is_whole = await keep_trying(ctx, self._retry, store.finish_file, file, rows.byte_start)
            await keep_trying(ctx, self._retry, self._count, store, report)
        report.outcome = self._outcome(processor, report, is_whole=is_whole)

    async def _count(self, store: EtlStore, report: FileReport) -> None:
        """Fill in what the ledger has of the file, by all tries."""
        content_sha256 = bytes.fromhex(report.content_sha256)
        known = await store.status(content_sha256)
        if known is None:
            return
        report.inserted, report.skipped, report.rejected = known.inserted, known.skipped, known.rejected
        report.conflicting = known.conflicting
        path = self._reject_path(content_sha256)
        report.reject_file = str(path) if known.rejected and await asyncio.to_thread(path.exists) else None

    def _reject_path(self, content_sha256: bytes) -> Path:
        return reject_path(self._options.rejects_directory, content_sha256, self._own_name)

    async def _process(
        self,
        header: Header,
        target: Target | None,
        report: FileReport,
        gaps: Sequence[Gap],
        load: Callable[[Processor], Awaitable[None]],
    ) -> Processor:
        counters = Counters()
        processor = Processor(header, target, counters, self._settings, self._options, self._reach)
        # How much of the gaps is left to this process, nobody knows who shares them.
        bytes_total = 0 if self._options.is_shared else sum(gap.byte_end - gap.byte_start for gap in gaps)
        self._metrics.follow(counters, bytes_total)
        monitor = Monitor(report.name, counters, bytes_total, processor.in_hand, self._options.progress)
        report.reasons = processor.reasons
        try:
            async with monitor.watching():
                await load(processor)
        finally:
            report.own_rows = processor.processed_count
        return processor

    def _outcome(self, processor: Processor, report: FileReport, *, is_whole: bool) -> Outcome:
        report.failed_batches = processor.failed_count
        if processor.failures:
            report.detail = f"{processor.failed_count} batches failed; the first: {processor.failures[0]}"
            return Outcome.FAILED
        if not is_whole:
            report.detail = _GOES_ON
            return Outcome.STOPPED
        return Outcome.LOADED_WITH_REJECTS if report.rejected else Outcome.LOADED
