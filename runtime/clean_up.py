"""Remove what was kept long enough: a bounded number of rows, now and then."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta

import asyncpg
from prometheus_client import CollectorRegistry, Counter
from pydantic import Field

from patterns import Context, ContextError
from runtime.errors import DependencyUnavailable
from runtime.logs import get_logger
from runtime.settings import Seconds, Section

_log = get_logger(__name__)

Delete = Callable[[timedelta, int], Awaitable[int]]
"""Removes at most so many rows above an age, in one transaction, and returns how many went."""


class CleanUpSettings(Section):
    """Bound the job: every `period_seconds` it removes at most `rows_per_run`, `rows_per_statement` at a time.

    How long each kind of row is kept is a field of the service's own class.
    """

    period_seconds: Seconds = 600.0
    rows_per_statement: int = Field(default=1_000, ge=1, le=100_000)
    rows_per_run: int = Field(default=100_000, ge=1, le=10_000_000)

    def conflicts(self) -> Iterator[str]:
        """Yield a run too small for one statement."""
        if self.rows_per_statement > self.rows_per_run:
            yield "rows_per_statement is greater than rows_per_run"


@dataclass(frozen=True, slots=True)
class Kept:
    """One kind of row: its name in the log, what deletes it, and the age above which it may go."""

    name: str
    delete: Delete
    keep_seconds: float


class CleanUpMetrics:
    """What a process's clean-up did, by the kind of row."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.runs = Counter(
            "lp_clean_up_runs", "Clean-ups of one kind of row: done, or failed.", ["of", "outcome"], registry=registry
        )
        self.rows = Counter("lp_clean_up_rows", "Old rows removed.", ["of"], registry=registry)

    def begin(self, kind: str) -> None:
        """Show zeros for a kind: a counter that first appears with its first event hides that event."""
        self.rows.labels(kind)
        for outcome in ("done", "failed"):
            self.runs.labels(kind, outcome)


class Cleaner:
    """The job of one process; any number of processes may run it, each row goes once.

    Args:
        settings: its bounds.
        kinds: what it removes, in this order.
        metrics: what it tells about itself.
        rng: where the time of the first run comes from; seed it in tests.
    """

    def __init__(
        self, settings: CleanUpSettings, *kinds: Kept, metrics: CleanUpMetrics, rng: random.Random | None = None
    ) -> None:
        self._settings = settings
        self._kinds = kinds
        self._metrics = metrics
        for kept in kinds:
            metrics.begin(kept.name)
        self._random = rng or random.Random()  # noqa: S311 - spreads load, guards nothing

    async def run(self, ctx: Context) -> None:
        """Remove what is old once a period, until the context ends; then return.

        The first run comes after a random part of the period, so replicas that start together do not work together. A
        kind whose database is away, or refuses its statement (a table may be missing, or a right), is left alone until
        the next period, and counted as failed. The context's end interrupts the statement at hand: what finished
        statements removed is gone, the rest stays for another run.
        """
        delay = self._settings.period_seconds * self._random.random()
        with suppress(ContextError):
            while True:
                await ctx.run(asyncio.sleep(delay))
                delay = self._settings.period_seconds
                for kept in self._kinds:
                    try:
                        removed = await ctx.run(self._remove_old(kept))
                    except (DependencyUnavailable, asyncpg.PostgresError) as error:
                        self._metrics.runs.labels(kept.name, "failed").inc()
                        reason = f"{type(error).__name__}: {error}"
                        _log.warning("Old rows were not removed", of=kept.name, reason=reason)
                    else:
                        self._metrics.runs.labels(kept.name, "done").inc()
                        _log.info("Removed old rows", of=kept.name, removed=removed)

    async def _remove_old(self, kept: Kept) -> int:
        """Remove one statement's worth after another, so that no lock is held for long."""
        settings = self._settings
        older_than = timedelta(seconds=kept.keep_seconds)
        removed = 0
        while removed < settings.rows_per_run:
            limit = min(settings.rows_per_statement, settings.rows_per_run - removed)
            count = await kept.delete(older_than, limit)
            removed += count
            self._metrics.rows.labels(kept.name).inc(count)
            if count < limit:
                break
        return removed
