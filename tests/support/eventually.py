"""Wait for something that another task, thread or process is about to make true."""

import asyncio
import inspect
from collections.abc import Callable


async def eventually(is_true: Callable[[], object], *, seconds: float = 10.0, pause_seconds: float = 0.01) -> None:
    """Look again and again until it is true; what has to be asked for may be a coroutine function.

    Raises:
        TimeoutError: it was not, for so long.
    """
    async with asyncio.timeout(seconds):
        while True:
            found = is_true()
            if await found if inspect.isawaitable(found) else found:
                return
            await asyncio.sleep(pause_seconds)
