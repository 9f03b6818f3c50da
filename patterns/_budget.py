"""A task's budget of ready operations.

Go pre-empts a goroutine that never waits. asyncio does not: a task whose every operation is ready at once would keep
the loop for ever and never see its own cancellation. So each operation that did not suspend is counted, and after
``LIMIT`` of them in a row the next one yields to the loop once, before it has done anything.

The count is kept per thread and starts anew whenever an operation suspends, which is cheaper than asking for the
current task: no task ever gets more than ``LIMIT`` ready operations in a row, and it may get fewer after its
predecessors.
"""

from __future__ import annotations

import asyncio
import threading
from typing import Final

LIMIT: Final = 128


class _Budget(threading.local):
    spent = 0


budget: Final = _Budget()


async def pay() -> None:
    """Yield to the loop and start a new budget."""
    budget.spent = 0
    await asyncio.sleep(0)
