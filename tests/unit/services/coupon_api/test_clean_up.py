"""The clean-up removes old keys a bounded number at a time, and ends with its context."""

from datetime import timedelta

import pytest

from patterns import Context, background
from patterns.bubble import bubble
from runtime.errors import DependencyUnavailable
from services.coupon_api.clean_up import remove_old_keys
from services.coupon_api.settings import CleanUpSettings
from tests.support.fake_coupon_api_store import FakeCouponStore

SETTINGS = CleanUpSettings(keep_seconds=3_600.0, period_seconds=100.0, rows_per_statement=10, rows_per_run=25)


class CountedStore(FakeCouponStore):
    """A store with a number of old keys, which ends the context after a number of calls."""

    def __init__(self, ctx: Context, *, old: int, calls: int, failures: int = 0) -> None:
        super().__init__()
        self.ctx = ctx
        self.old = old
        self.failures = failures
        self.calls_left = calls
        self.limits: list[int] = []
        self.ages: set[timedelta] = set()

    async def delete_old_keys(self, older_than: timedelta, limit: int) -> int:
        """Remove up to the limit, or fail while failures are left."""
        self.calls_left -= 1
        if self.calls_left == 0:
            self.ctx.cancel()
        self.limits.append(limit)
        self.ages.add(older_than)
        if self.failures:
            self.failures -= 1
            raise DependencyUnavailable("postgres", "away")
        removed = min(limit, self.old)
        self.old -= removed
        return removed


async def _clean(old: int, calls: int, failures: int = 0) -> CountedStore:
    with background().with_cancel() as ctx:
        store = CountedStore(ctx, old=old, calls=calls, failures=failures)
        await remove_old_keys(ctx, store, SETTINGS)
        return store


def test_run_removes_at_most_its_rows_in_bounded_statements() -> None:
    """Of a hundred old keys the first run takes 10, 10 and 5; the next goes on a period later."""
    store = bubble(_clean, 100, 6)

    assert store.limits == [10, 10, 5, 10, 10, 5]
    assert store.old == 50
    assert store.ages == {timedelta(hours=1)}


def test_run_ends_with_the_first_statement_that_finds_too_few() -> None:
    """Twelve old keys need two statements, and then one a period to see that none is left."""
    store = bubble(_clean, 12, 4)

    assert store.limits == [10, 10, 10, 10]
    assert store.old == 0


def test_database_that_is_away_is_asked_again_a_period_later() -> None:
    """Two failures end nothing: the third period removes the keys."""
    store = bubble(_clean, 4, 3, 2)

    assert store.old == 0


def test_context_that_ends_during_a_run_ends_it_between_two_statements() -> None:
    """A stop does not wait for a long run: the statement at hand is the last."""
    store = bubble(_clean, 1_000, 2)

    assert store.limits == [10, 10]


def test_context_that_has_ended_lets_nothing_begin() -> None:
    """A job whose context is over touches no row."""

    async def clean() -> CountedStore:
        with background().with_cancel() as ctx:
            ctx.cancel()
            store = CountedStore(ctx, old=1, calls=9)
            await remove_old_keys(ctx, store, SETTINGS)
            return store

    assert bubble(clean).limits == []


def test_fault_that_is_no_missing_database_comes_out() -> None:
    """A mistake in a statement is not retried for ever in silence."""

    class Broken(CountedStore):
        async def delete_old_keys(self, older_than: timedelta, limit: int) -> int:
            raise LookupError(older_than, limit)

    async def clean() -> None:
        with background().with_cancel() as ctx:
            await remove_old_keys(ctx, Broken(ctx, old=1, calls=9), SETTINGS)

    with pytest.raises(LookupError):
        bubble(clean)
