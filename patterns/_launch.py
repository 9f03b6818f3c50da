"""Run a function in a task or a thread of its own."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import threading
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final

from patterns._loop import call_in_loop

_running: Final[set[asyncio.Task[None]]] = set()
"""An event loop keeps only weak references to its tasks."""


def build_launcher(function: Callable[[], object]) -> Callable[[], None]:
    """Build the function, callable from any thread, that starts ``function``.

    It becomes a task of the event loop that runs now, or, if none does, a daemon thread.

    Raises:
        TypeError: an ``async`` function, and no event loop runs.
    """
    loop = asyncio._get_running_loop()  # noqa: SLF001 - the public one raises where no loop runs
    if loop is not None:
        return partial(_start_task, loop, function, contextvars.copy_context())
    if inspect.iscoroutinefunction(function):
        raise TypeError("an async function needs a running event loop")
    return partial(_start_thread, function)


def _start_thread(function: Callable[[], object]) -> None:
    threading.Thread(target=function, name=f"after-{_name(function)}", daemon=True).start()


def _start_task(loop: asyncio.AbstractEventLoop, function: Callable[[], object], context: contextvars.Context) -> None:
    def start() -> None:
        task = loop.create_task(_call(function), name=f"after-{_name(function)}", context=context)
        _running.add(task)
        task.add_done_callback(_finish)

    call_in_loop(loop, start)


async def _call(function: Callable[[], object]) -> None:
    result = function()
    if isinstance(result, Awaitable):
        await result


def _finish(task: asyncio.Task[None]) -> None:
    _running.discard(task)
    if not task.cancelled() and (error := task.exception()) is not None:
        details = {"message": "an after_func failed", "exception": error, "task": task}
        task.get_loop().call_exception_handler(details)


def _name(function: Callable[[], object]) -> str:
    return getattr(function, "__qualname__", type(function).__qualname__)
