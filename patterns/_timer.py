"""Timers: in a task they belong to the running event loop and its clock, in a thread to one thread that all share."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Final


class Timer(ABC):
    """A call that is due at some time, once."""

    @abstractmethod
    def stop(self) -> None:
        """Drop the call if it has not begun; from any thread, at any time."""


class Clock(ABC):
    """The time of one event loop, or of all threads, in seconds; its zero means nothing."""

    @abstractmethod
    def now(self) -> float:
        """Tell the time."""

    @abstractmethod
    def call_at(self, when: float, function: Callable[[], object]) -> Timer:
        """Call a function, which must be short and must not raise."""


def current_clock() -> Clock:
    """The clock of the running event loop; that of the threads where none runs."""
    loop = asyncio._get_running_loop()  # noqa: SLF001 - the public one raises where no loop runs
    return THREAD_CLOCK if loop is None else LoopClock(loop)


class LoopTimer(Timer):
    """A timer of an event loop."""

    __slots__ = ("_handle", "_loop")

    def __init__(self, loop: asyncio.AbstractEventLoop, handle: asyncio.TimerHandle) -> None:
        self._loop = loop
        self._handle = handle

    def stop(self) -> None:
        if asyncio._get_running_loop() is self._loop:  # noqa: SLF001 - as above
            self._handle.cancel()
            return
        try:
            self._loop.call_soon_threadsafe(self._handle.cancel)
        except RuntimeError:  # the loop is closed, and its timers with it
            return


class LoopClock(Clock):
    """The clock of an event loop, virtual if the loop's is."""

    __slots__ = ("_loop",)

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop

    def now(self) -> float:
        return self._loop.time()

    def call_at(self, when: float, function: Callable[[], object]) -> Timer:
        return LoopTimer(self._loop, self._loop.call_at(when, function))


class ThreadTimer(Timer):
    """A timer of the timer thread; ``function`` is None once it was called or dropped."""

    __slots__ = ("function",)

    def __init__(self, function: Callable[[], object]) -> None:
        self.function: Callable[[], object] | None = function

    def stop(self) -> None:
        self.function = None
        THREAD_CLOCK.forget_stopped()


class ThreadClock(Clock):
    """``time.monotonic`` and one thread that serves every timer set outside an event loop.

    The thread lives as long as a timer is pending.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition(threading.RLock())
        self._pending: list[tuple[float, int, ThreadTimer]] = []
        self._order = itertools.count()
        self._thread: threading.Thread | None = None

    def now(self) -> float:
        return time.monotonic()

    def call_at(self, when: float, function: Callable[[], object]) -> Timer:
        timer = ThreadTimer(function)
        with self._changed:
            heapq.heappush(self._pending, (when, next(self._order), timer))
            if self._thread is None:
                self._thread = threading.Thread(target=self._serve, name="patterns-timers", daemon=True)
                self._thread.start()
            self._changed.notify()
        return timer

    def forget_stopped(self) -> None:
        """Let the thread look whether it is still needed."""
        with self._changed:
            self._changed.notify()

    def _serve(self) -> None:
        while (function := self._wait_for_next()) is not None:
            function()

    def _wait_for_next(self) -> Callable[[], object] | None:
        with self._changed:
            while self._pending:
                when, _, timer = self._pending[0]
                seconds = when - time.monotonic()
                if timer.function is None or seconds <= 0:
                    heapq.heappop(self._pending)
                    function, timer.function = timer.function, None
                    if function is not None:
                        return function
                else:
                    self._changed.wait(min(seconds, threading.TIMEOUT_MAX))
            self._thread = None
            return None


THREAD_CLOCK: Final = ThreadClock()
