"""Say where the process stands: every task with the line it waits at, every thread with its stack."""

import asyncio
import sys
import threading
import traceback
from typing import Final

from patterns.leak import describe_task

_TASKS_MOST: Final = 100


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
