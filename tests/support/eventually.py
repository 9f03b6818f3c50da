"""Wait for something that another task, thread or process is about to make true."""

import asyncio
from collections.abc import Callable


async def eventually(is_true: Callable[[], object], *, seconds: float = 10.0) -> None:
    """Look again and again until it is true.

    Raises:
        TimeoutError: it was not, for so long.
    """
    async with asyncio.timeout(seconds):
        while not is_true():  # noqa: ASYNC110 - what is looked at knows no event
            await asyncio.sleep(0.01)
