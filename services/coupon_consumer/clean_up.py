"""Remove old dead letters, a bounded number at a time."""

import asyncio

from patterns import Context, ContextError
from runtime.errors import DependencyUnavailable
from runtime.logs import get_logger
from services.coupon_consumer.dead_letters import DeadLetters
from services.coupon_consumer.settings import DeadLetterSettings

_log = get_logger(__name__)


async def clean_up(ctx: Context, dead_letters: DeadLetters, settings: DeadLetterSettings) -> None:
    """Run every `period_seconds` until the context ends; what a run leaves, the next one takes."""
    try:
        while True:
            await ctx.run(asyncio.sleep(settings.period_seconds))
            try:
                removed = await ctx.run(remove_old(dead_letters, settings))
            except DependencyUnavailable as error:
                _log.warning("Old dead letters not removed", error=str(error))
            else:
                _log.info("Old dead letters removed", removed=removed)
    except ContextError:
        return


async def remove_old(dead_letters: DeadLetters, settings: DeadLetterSettings) -> int:
    """Remove at most `rows_per_run` letters, in statements of at most `rows_per_statement`; return how many."""
    removed = 0
    while removed < settings.rows_per_run:
        limit = min(settings.rows_per_statement, settings.rows_per_run - removed)
        count = await dead_letters.remove_old(settings.keep_seconds, limit=limit)
        removed += count
        if count < limit:
            break
    return removed
