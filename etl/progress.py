"""Show how far a load is: a bar for each worker and one for the whole on a terminal, a log line elsewhere."""

import asyncio
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn, TimeRemainingColumn

from etl import settings
from patterns import AtomicCounter, Ticker
from runtime.logs import get_logger

LOG_SECONDS = 10.0
_BAR_SECONDS = 0.2

_log = get_logger("etl")


@dataclass(frozen=True, slots=True)
class Counters:
    """What became of the rows of this try, not of earlier ones; for any number of threads."""

    processed: AtomicCounter = field(default_factory=AtomicCounter)
    skipped: AtomicCounter = field(default_factory=AtomicCounter)
    rejected: AtomicCounter = field(default_factory=AtomicCounter)
    failed: AtomicCounter = field(default_factory=AtomicCounter)
    bytes_done: AtomicCounter = field(default_factory=AtomicCounter)


class Monitor:
    """Tells of one file's progress until it is left; nothing that it does can end a load.

    Args:
        name: the file's.
        counters: of this file.
        bytes_total: how much there is to read, or 0 where nobody knows.
        workers: tells which worker is at which line.
        how: a bar needs a terminal, and is a log line without one.
    """

    def __init__(
        self,
        name: str,
        counters: Counters,
        bytes_total: int,
        workers: Callable[[], dict[str, str]],
        how: settings.Progress,
    ) -> None:
        self._name = name
        self._counters = counters
        self._bytes_total = bytes_total
        self._workers = workers
        self._began = asyncio.get_running_loop().time()
        self._is_bar = how is settings.Progress.BAR and sys.stderr.isatty()
        self._is_silent = how is settings.Progress.NONE

    @asynccontextmanager
    async def watching(self) -> AsyncIterator[None]:
        """Tell of the progress while the block runs, and once at its end."""
        if self._is_silent:
            yield
            return
        task = asyncio.create_task(self._show_bars() if self._is_bar else self._log_lines(), name="progress monitor")
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait({task})
            self._log_line()

    def rate(self) -> float:
        """Return how many rows a second became something, since the start."""
        return self._counters.processed.load() / max(1e-9, asyncio.get_running_loop().time() - self._began)

    async def _log_lines(self) -> None:
        with Ticker(LOG_SECONDS) as ticker:
            async for _ in ticker.channel:
                self._log_line()

    def _log_line(self) -> None:
        counters = self._counters
        _log.info(
            f"Progress: {counters.processed.load()} processed, {counters.skipped.load()} skipped,"
            f" {counters.rejected.load()} rejected, {counters.failed.load()} failed",
            file=self._name,
            rows_per_second=round(self.rate()),
        )

    async def _show_bars(self) -> None:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(bar_width=16),
            TaskProgressColumn(),
            TextColumn("{task.fields[detail]}"),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=Console(stderr=True), auto_refresh=False) as bars, Ticker(_BAR_SECONDS) as tick:
            whole = bars.add_task(self._name, total=self._bytes_total or None, detail="")
            lines: dict[str, TaskID] = {}
            try:
                async for _ in tick.channel:
                    in_hand = self._workers()
                    for worker in sorted(in_hand.keys() - lines.keys()):
                        lines[worker] = bars.add_task(worker, total=None, detail="")
                    for worker, line in lines.items():
                        bars.update(line, detail=in_hand.get(worker, ""))
                    self._refresh(bars, whole)
            finally:  # what stays on the screen is the end, and no worker has anything in hand
                for line in lines.values():
                    bars.remove_task(line)
                self._refresh(bars, whole)

    def _refresh(self, bars: Progress, whole: TaskID) -> None:
        done = f"{self._counters.processed.load():,} rows, {self.rate():,.0f} rows/s"
        bars.update(whole, completed=self._counters.bytes_done.load(), detail=done)
        bars.refresh()
