"""Say where the process stands: every task with the line it waits at, every thread with its stack."""

import asyncio
import queue
import sys
import threading
import traceback
from typing import Final

from patterns.leak import describe_task
from runtime.logs import get_logger

_TASKS_MOST: Final = 100

log = get_logger(__name__)


class StackTeller:
    """Log where every task and thread stands when asked to, from a thread of its own: also while the loop is blocked.

    Begins at once; ``close`` ends it and may be called again.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._asked: queue.SimpleQueue[bool] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="stack-teller", daemon=True)
        self._thread.start()

    def ask(self) -> None:
        """Have one log line written soon; may be called from a signal handler at any instruction."""
        self._asked.put(True)

    def close(self) -> None:
        """Tell nothing more, once what was asked for is written; returns at once."""
        self._asked.put(False)

    def _run(self) -> None:
        while self._asked.get():
            log.warning("Stacks", tasks=describe_tasks(self._loop), threads=describe_threads())


def describe_tasks(loop: asyncio.AbstractEventLoop) -> list[str]:
    """Return a line for each unfinished task of a loop, at most a hundred; usable from another thread."""
    try:
        tasks = sorted(asyncio.all_tasks(loop), key=lambda task: task.get_name())
        lines = [str(describe_task(task)) for task in tasks[:_TASKS_MOST]]
    except RuntimeError:  # the loop's own thread kept changing the set meanwhile
        return ["the tasks could not be listed"]
    return lines + ([f"and {len(tasks) - _TASKS_MOST} more tasks"] if len(tasks) > _TASKS_MOST else [])


def describe_threads() -> dict[str, str]:
    """Return each thread's stack by the thread's name."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    frames = sys._current_frames()  # noqa: SLF001 - the documented way to see other threads
    return {names.get(ident, str(ident)): "".join(traceback.format_stack(frame)) for ident, frame in frames.items()}
