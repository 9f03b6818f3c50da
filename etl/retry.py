"""Wait for Postgres while it is away, its disk is full, or others keep it busy."""

import asyncio
import math
from collections.abc import Awaitable, Callable
from typing import TypeVar, TypeVarTuple

from etl.settings import RetrySettings
from patterns import Context, receive, select
from runtime.backoff import Backoff
from runtime.errors import DependencyUnavailable
from runtime.logs import get_logger

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

_log = get_logger("etl")


async def keep_trying(ctx: Context, settings: RetrySettings, call: Callable[[*Ts], Awaitable[T]], *args: *Ts) -> T:
    """Return what a call returns; it is made again, with back-off, while Postgres is unavailable.

    Args:
        ctx: its end cuts a wait short, and the call is made a last time.
        settings: the waits, and how long after the first failure there is another try.
        call: may have been done though it failed, so doing it again must be the same as once.
        args: those of the call.

    Raises:
        DependencyUnavailable: The last try's, after `give_up_seconds`, or when the context has ended.
    """
    loop = asyncio.get_running_loop()
    backoff = Backoff(settings.first_seconds, settings.most_seconds)
    give_up_at = math.inf
    while True:
        try:
            return await call(*args)
        except DependencyUnavailable as error:
            now, seconds = loop.time(), backoff.fail()
            give_up_at = min(give_up_at, now + settings.give_up_seconds)
            if ctx.is_done or now + seconds > give_up_at:
                raise
            _log.warning("Waiting for Postgres", reason=str(error), wait_seconds=round(seconds, 3))
            await select(receive(ctx.done), timeout_seconds=seconds)
