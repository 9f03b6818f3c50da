"""Wait for a server that a process needs, as long as a context allows and no longer."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Final

from patterns.context import Context
from patterns.errors import DeadlineExceeded
from runtime.backoff import Backoff
from runtime.errors import DependencyUnavailable

_FIRST_SECONDS: Final = 0.1
_MOST_SECONDS: Final = 1.0


async def wait_for_dependency(
    ctx: Context,
    ask: Callable[[], Awaitable[object]],
    *,
    dependency: str,
    timeout_seconds: float | None = None,
    rng: random.Random | None = None,
) -> None:
    """Return when ``ask()`` does; ask again and again, ever more slowly, until the context or the time ends.

    Of the context's deadline and ``timeout_seconds`` the earlier one wins. (The Go original had the same two, and
    waited for the later.) Whatever ``ask`` raises besides ``DependencyUnavailable`` ends the wait at once.

    Raises:
        DependencyUnavailable: the time ran out; the message has the last error.
        ContextCancelled: the context was cancelled, as by a signal.
    """
    scope = ctx.with_cancel() if timeout_seconds is None else ctx.with_timeout(timeout_seconds)
    loop = asyncio.get_running_loop()
    started_at = loop.time()
    last_error: DependencyUnavailable | None = None
    backoff = Backoff(_FIRST_SECONDS, _MOST_SECONDS, rng=rng)
    with scope as waiting:
        try:
            while True:
                try:
                    await waiting.run(ask())
                except DependencyUnavailable as error:
                    last_error = error
                else:
                    return
                await waiting.run(asyncio.sleep(backoff.fail()))
        except DeadlineExceeded:
            waited = loop.time() - started_at
            last = last_error.detail if last_error is not None else "none, no answer at all"
            detail = f"no connection within {waited:.1f} s; last error: {last}"
            raise DependencyUnavailable(dependency, detail) from last_error
