"""Find tasks that were started and forgotten, and say where each one waits and who started it.

Go has goleak, which compares stacks at the end of a test, and since 1.27 a leak profile, which asks the collector which
goroutines wait for something that nothing runnable can reach. `leaked_tasks` is the first, `collect_unreachable` the
second. asyncio itself keeps only weak references to tasks, so here such a task does not merely leak: it is destroyed
some day, in the middle of its work.
"""

import asyncio
import gc
import os
import sys
import weakref
from collections.abc import Coroutine, Generator, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import CoroutineType, FrameType, GeneratorType
from typing import Any

from patterns.errors import LeakError

_LIBRARY = (f"{Path(__file__).parent}{os.sep}", f"{Path(asyncio.__file__).parent}{os.sep}", "<frozen")
_created: "weakref.WeakKeyDictionary[asyncio.Task[Any], str]" = weakref.WeakKeyDictionary()


@dataclass(frozen=True, slots=True)
class TaskSite:
    """One unfinished task: its name, where it waits and where it was created.

    `waits_at` is the innermost line of the task outside patterns and asyncio, followed by the operation it is in.
    `created_at` is known for tasks made while `record_creation` was in force, and "an unknown place" otherwise.
    """

    name: str
    waits_at: str
    created_at: str

    def __str__(self) -> str:
        return f"task {self.name!r} waits at {self.waits_at}, created at {self.created_at}"


def record_creation(loop: asyncio.AbstractEventLoop) -> None:
    """Note, for each task the loop makes from now on, the line that made it. Replaces the loop's task factory."""

    def factory(
        loop: asyncio.AbstractEventLoop,
        coro: "Coroutine[Any, Any, Any] | Generator[Any, None, Any]",
        **options: Any,  # noqa: ANN401  # whatever this version of asyncio passes
    ) -> "asyncio.Task[Any]":
        task: asyncio.Task[Any] = asyncio.Task(coro, loop=loop, **options)
        _created[task] = _call_site(sys._getframe(1))  # noqa: SLF001  # the documented way to a cheap caller
        return task

    loop.set_task_factory(factory)


def describe_task(task: "asyncio.Task[Any]") -> TaskSite:
    """Say where a task waits and where it was created."""
    return TaskSite(task.get_name(), _wait_site(task), _created.get(task, "an unknown place"))


def leaked_tasks(ignore: Iterable["asyncio.Task[Any]"] = ()) -> list[TaskSite]:
    """Return the tasks of the running loop that are not finished, without the current one and those to ignore.

    Call it where nothing should be left running: at the end of a test, or when a service has stopped. It does not wait;
    a task that has been cancelled but not yet run to its end counts as left.
    """
    excluded = {asyncio.current_task(), *ignore}
    return _sites(task for task in asyncio.all_tasks() if task not in excluded)


def check_leaks(ignore: Iterable["asyncio.Task[Any]"] = ()) -> None:
    """Do nothing if no task is left over.

    Raises:
        LeakError: Names each left-over task with its wait site and its creation site.
    """
    if sites := leaked_tasks(ignore):
        raise LeakError("\n  ".join([f"{len(sites)} tasks leaked:", *map(str, sites)]))


def collect_unreachable() -> list[TaskSite]:
    """Let the collector take the tasks that nothing can ever wake, and say which they were.

    A task that waits on a channel (or a future, an event, a lock) which only that task, or others equally stuck, can
    reach is part of a dead cycle. The collector destroys it, as it would have sooner or later, and the loop's exception
    handler hears of each one. A task whose handle is still held by live code is not found, nor is one whose channel
    hangs from a global (Go's profile has that second blind spot too).
    """
    current = asyncio.current_task()
    watched = [(weakref.ref(task), describe_task(task)) for task in asyncio.all_tasks() if task is not current]
    gc.collect()
    return sorted((site for reference, site in watched if reference() is None), key=str)


def _sites(tasks: Iterable["asyncio.Task[Any]"]) -> list[TaskSite]:
    return sorted(map(describe_task, tasks), key=str)


def _wait_site(task: "asyncio.Task[Any]") -> str:
    frames = list(_frames(task.get_coro()))
    if not frames:
        return "its end"
    own = [at for at, frame in enumerate(frames) if not _is_library(frame)] or [0]
    site = _line(frames[own[-1]])
    return f"{site} ({frames[own[-1] + 1].f_code.co_qualname})" if own[-1] + 1 < len(frames) else site


def _frames(awaited: object) -> Iterator[FrameType]:
    """Walk from a coroutine to what it awaits, outermost frame first; an asynchronous generator hides its inside."""
    while awaited is not None:
        frame: FrameType | None = None
        if isinstance(awaited, CoroutineType):
            frame, awaited = awaited.cr_frame, awaited.cr_await
        elif isinstance(awaited, GeneratorType):
            frame, awaited = awaited.gi_frame, awaited.gi_yieldfrom
        else:
            return
        if frame is not None:
            yield frame


def _call_site(frame: FrameType | None) -> str:
    while frame is not None and _is_library(frame):
        frame = frame.f_back
    return "an unknown place" if frame is None else _line(frame)


def _is_library(frame: FrameType) -> bool:
    return frame.f_code.co_filename.startswith(_LIBRARY)


def _line(frame: FrameType) -> str:
    return f"{frame.f_code.co_filename}:{frame.f_lineno} in {frame.f_code.co_qualname}"
