"""The body of an ``async with`` whose task is lost: the collector closes it, and it can wait for nothing."""

from __future__ import annotations

import asyncio
from typing import Any


def is_lost(body: asyncio.Task[Any] | None, error: BaseException | None) -> bool:
    """Say whether a block is being left because its task is lost, and so can neither await nor wait for a lock.

    Whatever holds its task is lost with it. Not lost is an asynchronous generator that its own task closes: it sees
    ``GeneratorExit`` as well, but may wait.
    """
    if not isinstance(error, GeneratorExit):
        return False
    loop = asyncio._get_running_loop()  # noqa: SLF001 - the public one raises where no loop runs
    return loop is None or asyncio.current_task(loop) is not body
