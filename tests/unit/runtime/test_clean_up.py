"""The clean-up removes what is old, a bounded number at a time, survives a database that is away, and ends on time."""

import asyncio
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from random import Random

import asyncpg
import pytest
from prometheus_client import CollectorRegistry

from patterns import background
from patterns.bubble import bubble
from runtime.clean_up import Cleaner, CleanUpMetrics, CleanUpSettings, Kept
from runtime.errors import DependencyUnavailable

SETTINGS = CleanUpSettings(period_seconds=100.0, rows_per_statement=10, rows_per_run=25)
HOUR = timedelta(hours=1)


def _metrics(registry: CollectorRegistry | None = None) -> CleanUpMetrics:
    return CleanUpMetrics(registry or CollectorRegistry())


class AtOnce(Random):
    """Lets the first run begin at once."""

    def random(self) -> float:
        """Return the least there is."""
        return 0.0


class Shelf:
    """So many old things; it notes how it was asked, and may be away, or do something of its own, when it is."""

    def __init__(
        self,
        old: int,
        *,
        failures: int = 0,
        failure: Exception | None = None,
        when_asked: Callable[[], object] = lambda: None,
    ) -> None:
        self.old = old
        self.failures = failures
        self.failure = failure or DependencyUnavailable("postgres", "away")
        self.when_asked = when_asked
        self.asked: list[tuple[timedelta, int]] = []

    async def delete(self, older_than: timedelta, limit: int) -> int:
        """Remove up to the limit, or fail while failures are left."""
        self.asked.append((older_than, limit))
        self.when_asked()
        if self.failures:
            self.failures -= 1
            raise self.failure
        await asyncio.sleep(0)
        removed = min(limit, self.old)
        self.old -= removed
        return removed

    @property
    def limits(self) -> list[int]:
        """How much it was asked to remove, each time."""
        return [limit for _, limit in self.asked]


async def _clean(seconds: float, *shelves: Shelf, seed: int | None = None) -> None:
    kinds = [Kept("things", shelf.delete, 3_600.0) for shelf in shelves]
    with background().with_timeout(seconds) as ctx:
        await Cleaner(SETTINGS, *kinds, metrics=_metrics(), rng=AtOnce() if seed is None else Random(seed)).run(ctx)


@pytest.mark.parametrize(
    ("old", "left", "limits"),
    [
        (0, 0, [10, 10]),
        (12, 0, [10, 10, 10]),
        (25, 0, [10, 10, 5, 10]),
        (100, 50, [10, 10, 5, 10, 10, 5]),
    ],
)
def test_two_runs_remove_a_bounded_number_in_bounded_statements(old: int, left: int, limits: list[int]) -> None:
    """A run takes no more than its bound, in statements no larger than theirs, and ends with one that finds too few."""
    shelf = Shelf(old)
    bubble(_clean, 150, shelf)
    assert shelf.limits == limits
    assert shelf.old == left
    assert {age for age, _ in shelf.asked} == {HOUR}


def test_each_kind_has_its_bound_and_its_age() -> None:
    """Every kind is cleaned up in every run, each by its own age."""

    async def scene() -> None:
        keys, rows = Shelf(100), Shelf(12)
        kinds = (Kept("keys", keys.delete, 3_600.0), Kept("rows", rows.delete, 60.0))
        with background().with_timeout(50) as ctx:
            await Cleaner(SETTINGS, *kinds, metrics=_metrics(), rng=AtOnce()).run(ctx)
        assert keys.asked == [(HOUR, 10), (HOUR, 10), (HOUR, 5)]
        assert rows.asked == [(timedelta(minutes=1), 10)] * 2

    bubble(scene)


@pytest.mark.parametrize("seed", range(20))
def test_first_run_comes_within_a_period_and_the_next_a_period_later(seed: int) -> None:
    """Where in the period it begins is random: replicas that start together do not work together."""
    first = Random(seed).random() * SETTINGS.period_seconds
    before, once, twice = Shelf(9), Shelf(9), Shelf(9)
    for seconds, shelf in ((first - 0.001, before), (first + 99.999, once), (first + 100.001, twice)):
        bubble(partial(_clean, seconds, shelf, seed=seed))
    assert [len(shelf.asked) for shelf in (before, once, twice)] == [0, 1, 2]


@pytest.mark.parametrize(
    "failure",
    [
        DependencyUnavailable("postgres", "away"),
        asyncpg.UndefinedTableError('relation "dead_letters" does not exist'),
        asyncpg.InsufficientPrivilegeError("permission denied for table dead_letters"),
    ],
    ids=lambda failure: type(failure).__name__,
)
def test_database_or_table_that_is_away_is_asked_again_a_period_later(failure: Exception) -> None:
    """Two failures end nothing: the third period removes the rows."""
    shelf = Shelf(4, failures=2, failure=failure)
    bubble(_clean, 150, shelf)
    assert shelf.old == 4
    bubble(_clean, 50, shelf)
    assert shelf.old == 0


def test_one_kind_that_cannot_be_removed_leaves_the_others_alone() -> None:
    """A failure is told and tried again a period later; the rest of the run goes on."""
    away, other = Shelf(5, failures=9), Shelf(5)
    bubble(_clean, 50, away, other)
    assert (away.old, other.old) == (5, 0)


def test_runs_and_rows_are_counted_by_kind_and_outcome_from_zero_on() -> None:
    """Before the first run the counters stand at zero; then each kind has its runs done, failed, and its rows."""
    registry = CollectorRegistry()
    away, other = Shelf(5, failures=9), Shelf(12)
    kinds = (Kept("keys", away.delete, 60.0), Kept("rows", other.delete, 60.0))
    cleaner = Cleaner(SETTINGS, *kinds, metrics=_metrics(registry), rng=AtOnce())

    def counted(kind: str) -> tuple[float | None, ...]:
        runs = (
            registry.get_sample_value("lp_clean_up_runs_total", {"of": kind, "outcome": o}) for o in ("done", "failed")
        )
        return (*runs, registry.get_sample_value("lp_clean_up_rows_total", {"of": kind}))

    async def scene() -> None:
        assert (counted("keys"), counted("rows")) == ((0, 0, 0), (0, 0, 0))
        with background().with_timeout(150) as ctx:
            await cleaner.run(ctx)
        assert (counted("keys"), counted("rows")) == ((0, 2, 0), (2, 0, 12))

    bubble(scene)


def test_context_that_ends_during_a_run_lets_no_further_statement_begin() -> None:
    """A stop does not wait for a long run, nor for the kinds that were still to come."""

    async def scene() -> None:
        with background().with_cancel() as ctx:
            long, next_kind = Shelf(1_000, when_asked=ctx.cancel), Shelf(5)
            kinds = [Kept("things", shelf.delete, 60.0) for shelf in (long, next_kind)]
            await asyncio.wait_for(Cleaner(SETTINGS, *kinds, metrics=_metrics(), rng=AtOnce()).run(ctx), 50)
            assert (long.limits, next_kind.limits) == ([10], [])

    bubble(scene)


def test_context_that_ends_interrupts_a_statement_that_hangs() -> None:
    """A stop waits for no server that is frozen."""

    async def hang(older_than: timedelta, limit: int) -> int:
        await asyncio.sleep(1_000)
        raise AssertionError(older_than, limit)

    async def scene() -> None:
        with background().with_timeout(50) as ctx:
            await asyncio.wait_for(
                Cleaner(SETTINGS, Kept("things", hang, 60.0), metrics=_metrics(), rng=AtOnce()).run(ctx), 60
            )

    bubble(scene)


def test_context_that_has_ended_lets_nothing_begin() -> None:
    """A job whose context is over touches no row."""

    async def scene() -> None:
        shelf = Shelf(1)
        with background().with_cancel() as ctx:
            ctx.cancel()
            await Cleaner(SETTINGS, Kept("things", shelf.delete, 60.0), metrics=_metrics(), rng=AtOnce()).run(ctx)
        assert shelf.asked == []

    bubble(scene)


def test_fault_that_is_no_missing_database_comes_out() -> None:
    """A mistake in a statement is not retried for ever in silence."""

    def fail() -> None:
        raise LookupError("a mistake")

    with pytest.raises(LookupError, match="a mistake"):
        bubble(_clean, 50, Shelf(1, when_asked=fail))
