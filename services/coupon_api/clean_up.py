"""Remove idempotency keys that nobody will ask for again."""

import random
from datetime import timedelta

from patterns import Context, after, receive, select
from runtime.errors import DependencyUnavailable
from runtime.logs import get_logger
from services.coupon_api.settings import CleanUpSettings
from services.coupon_api.store import CouponStore

_log = get_logger("coupon_api.clean_up")


async def remove_old_keys(ctx: Context, store: CouponStore, settings: CleanUpSettings) -> None:
    """Remove old keys every period, a bounded number a run, until the context ends; then return.

    The first run comes after a random part of the period, so replicas that start together do not work together; if they
    meet all the same, each key still goes once. A database that is away is left alone until the next period. A run that
    is cancelled has removed what its finished statements removed.
    """
    delay = settings.period_seconds * random.random()  # noqa: S311 - spreads load, guards nothing
    while True:
        stop = receive(ctx.done)
        if await select(stop, receive(after(delay))) is stop:
            return
        delay = settings.period_seconds
        try:
            removed = await _run(ctx, store, settings)
        except DependencyUnavailable as error:
            _log.warning("Old idempotency keys were not removed", reason=str(error))
        else:
            _log.info("Removed old idempotency keys", keys=removed)


async def _run(ctx: Context, store: CouponStore, settings: CleanUpSettings) -> int:
    removed = 0
    while removed < settings.rows_per_run and not ctx.is_done:
        limit = min(settings.rows_per_statement, settings.rows_per_run - removed)
        count = await store.delete_old_keys(timedelta(seconds=settings.keep_seconds), limit)
        removed += count
        if count < limit:
            break
    return removed
