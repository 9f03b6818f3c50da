"""A task's budget of ready operations.

Go pre-empts a goroutine that never waits. asyncio does not: a task whose every operation is ready at once would keep
the loop for ever and never see its own cancellation. So each operation that did not suspend is counted, and after
``LIMIT`` of them in a row the next one first yields to the loop, before it has done anything.

A budget lies in a context variable, the cheapest thing that a task has of its own. A task inherits its maker's, which
is harmless: they share a count, and yield a little early. Only another thread that inherited it must not fill it up,
for its maker may be in the middle of a row; such a thread gets one of its own when it first would.
"""

from __future__ import annotations

import asyncio
from contextvars import ContextVar
from threading import get_ident
from typing import Final

LIMIT: Final = 128


class Budget:
    """How many ready operations are ``left`` before the next yield."""

    __slots__ = ("left", "thread")

    def __init__(self, left: int, thread: int) -> None:
        self.left = left
        self.thread = thread


_NONE_YET: Final = Budget(0, 0)
_budget: Final = ContextVar("budget", default=_NONE_YET)

current_budget: Final = _budget.get


def begin_budget() -> Budget:
    """Begin a new row: the task has just been suspended."""
    budget = _budget.get()
    if budget.thread == get_ident():
        budget.left = LIMIT
    else:
        budget = Budget(LIMIT, get_ident())
        _budget.set(budget)
    return budget


async def renew_budget() -> Budget:
    """Begin a new row after one that is used up, by yielding to the loop; a task that had no budget yet need not."""
    if _budget.get().thread == get_ident():
        await asyncio.sleep(0)
    return begin_budget()


async def pay() -> None:
    """Count one operation that may be ready; yield first if there were too many in a row."""
    budget = _budget.get()
    if not budget.left:
        budget = await renew_budget()
    budget.left -= 1
