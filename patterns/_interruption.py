"""Cancel the current task when a scope ends, and tell that cancel from any other."""

from __future__ import annotations

import asyncio
from typing import Any

from patterns._loop import call_in_loop
from patterns._scope import Scope
from patterns._waiter import when_free


def count_seen_cancels(task: asyncio.Task[Any]) -> int:
    """Count the cancels of a running task as ``cancelling`` does, but for one that reaches it at its next await only.

    asyncio.run's own handler of SIGINT leaves such a one, and so does any cancel of the task by itself.
    """
    return task.cancelling() - task._must_cancel  # type: ignore[attr-defined,no-any-return]  # noqa: SLF001 - the only one who knows


class Interruption:
    """From its making until ``end``, the end of the scope cancels the task that made it.

    The cancel comes through the loop, never from within ``Context.cancel``: the task may be the one that calls it. It
    is counted, as ``asyncio.timeout`` counts its own, so that ``end`` knows whether someone else has cancelled the
    task as well.

    Raises:
        RuntimeError: it was not made in a task.
    """

    __slots__ = ("_before", "_has_cancelled", "_is_over", "_loop", "_take_back", "_task")

    def __init__(self, scope: Scope) -> None:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a context can only interrupt a task")
        self._task = task
        self._loop = task.get_loop()
        self._before = count_seen_cancels(task)
        self._has_cancelled = False
        self._is_over = False
        self._take_back = scope.add_hook(self._notify)

    def end(self) -> bool:
        """Stop; True if the task was cancelled by the scope, and by nobody else."""
        self._is_over = True
        self._take_back()
        return self._has_cancelled and self._task.uncancel() <= self._before

    def drop(self) -> None:
        """Stop, as the task is lost: its coroutine is being closed."""
        self._is_over = True
        when_free(self._take_back)

    def _notify(self) -> None:
        call_in_loop(self._loop, self._cancel)

    def _cancel(self) -> None:
        if not self._is_over:
            self._has_cancelled = True
            self._task.cancel()
