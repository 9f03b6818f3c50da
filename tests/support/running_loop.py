"""What a test asks of the running loop: its time, and how a task ended."""

import asyncio


def now() -> float:
    """Return the time of the running loop."""
    return asyncio.get_running_loop().time()


async def outcome_of(task: asyncio.Task[object]) -> object:
    """Return what a task returned, or the type of what it raised."""
    (result,) = await asyncio.gather(task, return_exceptions=True)
    return type(result) if isinstance(result, BaseException) else result
