"""Calls into an event loop that may be closed by now."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


def call_in_loop(loop: asyncio.AbstractEventLoop, function: Callable[[], object]) -> bool:
    """Call a function soon in an event loop, from any thread; False if the loop is closed, and all in it with it.

    Raises:
        RuntimeError: the loop is a bubble, and this is not its thread.
    """
    try:
        loop.call_soon_threadsafe(function)
    except RuntimeError:
        if not loop.is_closed():
            raise
        return False
    return True
