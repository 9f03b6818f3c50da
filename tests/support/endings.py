"""Functions that end in a way of which a test wants to see what comes of it."""

import asyncio


async def fail(message: str, after_seconds: float = 0.0) -> None:
    """Raise ValueError after some time."""
    await asyncio.sleep(after_seconds)
    raise ValueError(message)


async def linger(seconds: float, log: list[str]) -> None:
    """Wait for ever, and take some time to end when cancelled."""
    try:
        await asyncio.Event().wait()
    finally:
        await asyncio.sleep(seconds)
        log.append("cleaned up")
