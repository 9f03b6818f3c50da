"""Remove what was kept long enough: published outbox rows and idempotency keys."""

from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Protocol

from patterns import Context, receive, select
from runtime.errors import DependencyUnavailable
from runtime.logs import get_logger
from services.reward_store.settings import CleanUpSettings

Delete = Callable[[timedelta, int], Awaitable[int]]

_log = get_logger(__name__)


class OldKeys(Protocol):
    """Where idempotency keys are kept."""

    async def delete_old_keys(self, older_than: timedelta, limit: int) -> int:
        """Remove at most `limit` keys above an age and return how many went."""


class PublishedRows(Protocol):
    """Where published outbox rows are kept."""

    async def delete_published(self, older_than: timedelta, limit: int) -> int:
        """Remove at most `limit` rows that were published longer ago than that, and return how many went."""


class Cleaner:
    """A bounded job that runs now and then; any number of instances may run it, they remove different rows or none."""

    def __init__(self, keys: OldKeys, rows: PublishedRows, settings: CleanUpSettings) -> None:
        self._settings = settings
        self._jobs: tuple[tuple[str, Delete, timedelta], ...] = (
            ("idempotency keys", keys.delete_old_keys, timedelta(seconds=settings.keep_keys_seconds)),
            ("outbox rows", rows.delete_published, timedelta(seconds=settings.keep_outbox_seconds)),
        )

    async def run(self, ctx: Context) -> None:
        """Clean up once a period until the context ends; a database that cannot do it now is asked again next time."""
        while not ctx.is_done:
            await select(receive(ctx.done), timeout_seconds=self._settings.period_seconds)
            for name, delete, older_than in self._jobs:
                try:
                    removed = await self._clean(ctx, delete, older_than)
                except DependencyUnavailable as error:
                    _log.warning("Clean-up failed", of=name, error=str(error))
                else:
                    _log.info("Cleaned up", of=name, removed=removed)

    async def _clean(self, ctx: Context, delete: Delete, older_than: timedelta) -> int:
        """Remove one statement's worth after another, so that no lock is held for long; stop when the context ends."""
        settings = self._settings
        removed = 0
        while not ctx.is_done and removed < settings.rows_per_run:
            limit = min(settings.rows_per_statement, settings.rows_per_run - removed)
            count = await delete(older_than, limit)
            removed += count
            if count < limit:
                break
        return removed
