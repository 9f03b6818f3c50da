"""Wire a load: the only place where its parts meet."""

import asyncio
from contextlib import AsyncExitStack
from typing import Final

import pyarrow as pa

from etl.file_load import FileLoad
from etl.metrics import LoadMetrics
from etl.report import EXIT_STATUS, FileReport, Outcome, worst, write_report
from etl.settings import EtlSettings, LoadOptions
from etl.store import EtlStore
from patterns import Channel, Context, ErrorGroup, receive, select
from runtime.background import raise_reported, run_reporting
from runtime.crash_point import CrashPoints
from runtime.logs import get_logger
from runtime.metrics import registry
from runtime.postgres import PostgresPool, expose_pool, open_pool
from runtime.process import EXIT_OK, Process

CRASH_POINTS: Final = ("after-rejects", "before-load", "after-copy", "after-commit", "before-finish")

_log = get_logger("etl")


class Application:
    """One load, from its first wait to its report."""

    def __init__(self, settings: EtlSettings, options: LoadOptions) -> None:
        # One for each worker, one that holds the file's lock, and one for whoever asks the ledger or for stuck
        # statements meanwhile: the feeder and the keeper of a shared file.
        postgres = settings.postgres.model_copy(update={"pool_max": options.workers + 2, "pool_min": 0})
        self._settings = settings.model_copy(update={"postgres": postgres})
        self._options = options
        self._points = CrashPoints(settings.crash, CRASH_POINTS)
        self._metrics = LoadMetrics()

    async def run(self, process: Process) -> None:
        """Load the files until they end or a signal comes; then what is in hand is finished, and the report written.

        Raises:
            DependencyUnavailable: Postgres did not answer in time.
            ContextCancelled: A signal came while it was awaited.
            OSError: The report cannot be written.
        """
        # pyarrow's own keeps what is freed, a fifth of the memory here, and is no faster for columns of this size.
        pa.set_memory_pool(pa.system_memory_pool())
        async with AsyncExitStack() as stack:
            pool = None
            if not self._options.is_dry_run:
                pool = await stack.enter_async_context(open_pool(self._settings.postgres, application_name="etl"))
                expose_pool(pool)
                await pool.wait_for_connection(process.startup)
            registry.register(self._metrics)
            process.health.set_ready()

            load_errors: Channel[BaseException] = Channel(1)
            shutdown = process.shutdown
            ended: Channel[None] = Channel(1)

            async def load(stopping: Context) -> None:
                try:
                    process.exit_status = await self._load_files(stopping, pool)
                finally:
                    ended.close()

            async def wait_ended() -> None:
                await select(receive(ended))

            async with ErrorGroup() as group:  # leaving it by force cancels the load, which rolls back
                await group.go(run_reporting, load_errors, load, process.stop.ctx)
                stop = receive(shutdown)
                if await select(receive(ended), stop) is stop:
                    _log.info("Received shutdown signal", signal=stop.value.name)
                    process.health.set_draining()
                    await process.stop.run(("batches in hand", wait_ended))
                    process.ctx.raise_if_done()  # a stop that was forced did not complete
            raise_reported(load_errors)
            _log.info("Application shutdown completed")

    async def _load_files(self, stopping: Context, pool: PostgresPool | None) -> int:
        """Load one file after the other, whatever becomes of each, and return the exit status."""
        store = None if pool is None else EtlStore(pool, reach=self._points.reach)
        file_load = FileLoad(store, self._settings, self._options, self._metrics, self._points.reach)
        reports = [FileReport(name, Outcome.STOPPED) for name in self._options.files]
        for report in reports:
            if not stopping.is_done:
                await file_load.run(stopping, report)
        if self._options.report is not None:
            await asyncio.to_thread(write_report, self._options.report, reports)
        outcome = worst([each.outcome for each in reports])
        is_accepted = self._options.accepts_rejects and outcome is Outcome.LOADED_WITH_REJECTS
        return EXIT_OK if is_accepted else EXIT_STATUS[outcome]
