"""The clean-up removes what is old, a bounded number at a time, and survives a database that is away."""

import asyncio
from datetime import timedelta

from patterns import Context, background
from patterns.bubble import bubble
from runtime.errors import DependencyUnavailable
from services.reward_store.cleaner import Cleaner
from services.reward_store.settings import CleanUpSettings

SETTINGS = CleanUpSettings(
    keep_outbox_seconds=60, keep_keys_seconds=3_600, period_seconds=100, rows_per_statement=10, rows_per_run=25
)


class Shelf:
    """So many old things of each kind; it notes what it was asked for."""

    def __init__(self, *, keys: int, rows: int) -> None:
        self.keys = keys
        self.rows = rows
        self.is_away = False
        self.asked: list[tuple[str, timedelta, int]] = []

    async def delete_old_keys(self, older_than: timedelta, limit: int) -> int:
        """Remove up to the limit."""
        self.asked.append(("keys", older_than, limit))
        if self.is_away:
            raise DependencyUnavailable("postgres", "away")
        removed = min(limit, self.keys)
        self.keys -= removed
        return removed

    async def delete_published(self, older_than: timedelta, limit: int) -> int:
        """Remove up to the limit."""
        self.asked.append(("rows", older_than, limit))
        removed = min(limit, self.rows)
        self.rows -= removed
        return removed


async def _clean(shelf: Shelf, seconds: float) -> Shelf:
    with background().with_timeout(seconds) as ctx:
        await Cleaner(shelf, shelf, SETTINGS).run(ctx)
    return shelf


def test_a_run_removes_a_bounded_number_in_bounded_statements() -> None:
    """Of a hundred old keys one run takes 10, 10 and 5, the next goes on a period later; rows likewise."""
    shelf = bubble(_clean, Shelf(keys=100, rows=12), 250)
    hour, minute = timedelta(hours=1), timedelta(minutes=1)
    first = [("keys", hour, 10), ("keys", hour, 10), ("keys", hour, 5), ("rows", minute, 10), ("rows", minute, 10)]
    second = [("keys", hour, 10), ("keys", hour, 10), ("keys", hour, 5), ("rows", minute, 10)]
    assert shelf.asked == first + second
    assert (shelf.keys, shelf.rows) == (50, 0)


def test_one_kind_that_cannot_be_removed_leaves_the_other_alone() -> None:
    """A failure is told and tried again a period later; the rest of the run goes on."""

    async def scene() -> None:
        shelf = Shelf(keys=5, rows=5)
        shelf.is_away = True
        await _clean(shelf, 150)
        assert (shelf.keys, shelf.rows) == (5, 0)
        shelf.is_away = False
        await _clean(shelf, 150)
        assert shelf.keys == 0

    bubble(scene)


def test_the_end_of_the_context_ends_a_run_between_two_statements() -> None:
    """No further statement begins once a stop was asked for."""

    class EndingShelf(Shelf):
        def __init__(self, ctx: Context) -> None:
            super().__init__(keys=100, rows=100)
            self.ctx = ctx

        async def delete_old_keys(self, older_than: timedelta, limit: int) -> int:
            self.ctx.cancel()
            return await super().delete_old_keys(older_than, limit)

    async def scene() -> None:
        with background().with_cancel() as ctx:
            shelf = EndingShelf(ctx)
            await asyncio.wait_for(Cleaner(shelf, shelf, SETTINGS).run(ctx), 200)
            assert len(shelf.asked) == 1

    bubble(scene)
