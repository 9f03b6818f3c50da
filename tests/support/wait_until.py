"""Wait for something that has to be asked for, such as a row that another process is going to store."""

import asyncio
from collections.abc import Awaitable, Callable


async def wait_until(condition: Callable[[], Awaitable[bool]], *, seconds: float = 40.0) -> None:
    """Return when the condition holds.

    Raises:
        TimeoutError: It did not, for so long.
    """
    async with asyncio.timeout(seconds):
        while True:
            if await condition():
                return
            await asyncio.sleep(0.05)
