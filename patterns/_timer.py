"""Timers: in a task they belong to the running event loop and its clock, in a thread to one thread that all share."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import sys
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Final

from patterns._loop import call_in_loop


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
        else:
            call_in_loop(self._loop, self._handle.cancel)


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
        THREAD_CLOCK.drop(self)


class ThreadClock(Clock):
    """``time.monotonic`` and one thread that serves every timer set outside an event loop.

    The thread lives as long as a timer is pending. The collector may set and stop timers in the middle of anything
    here: so the heap is changed in single steps, and only the thread takes from it.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition(threading.RLock())
        self._pending: list[tuple[float, int, ThreadTimer]] = []
        self._order = itertools.count()
        self._stopped = 0  # of the pending ones
        self._thread: threading.Thread | None = None

    def now(self) -> float:
        return time.monotonic()

    def call_at(self, when: float, function: Callable[[], object]) -> Timer:
        timer = ThreadTimer(function)
        with self._changed:
            if self._thread is None:
                thread = threading.Thread(target=self._serve, name="patterns-timers", daemon=True)
                thread.start()
                self._thread = thread
            heapq.heappush(self._pending, (when, next(self._order), timer))
            self._changed.notify()
        return timer

    def drop(self, timer: ThreadTimer) -> None:
        """Forget the timer's function, and let the thread look whether it is still needed."""
        with self._changed:
            if timer.function is not None:
                timer.function = None
                self._stopped += 1
                self._changed.notify()

    def _serve(self) -> None:
        while (function := self._wait_for_next()) is not None:
            try:
                function()
            except BaseException:  # noqa: BLE001 - reported like any thread's; the timers of others go on
                threading.excepthook(threading.ExceptHookArgs((*sys.exc_info(), threading.current_thread())))
            del function  # and with it a context that nobody else knows any more

    def _wait_for_next(self) -> Callable[[], object] | None:
        with self._changed:
            while self._pending:
                entry = heapq.heappop(self._pending)
                when, _, timer = entry
                function, seconds = timer.function, when - time.monotonic()
                if function is None:
                    self._stopped -= 1
                elif seconds <= 0:
                    timer.function = None
                    return function
                else:
                    heapq.heappush(self._pending, entry)
                    self._forget_stopped()
                    self._changed.wait(min(seconds, threading.TIMEOUT_MAX))
            self._thread = None
            return None

    def _forget_stopped(self) -> None:
        """Keep no more stopped timers than others; asyncio does the same."""
        if 2 * self._stopped > len(self._pending):
            entries, self._pending, self._stopped = self._pending, [], 0
            for entry in entries:
                if entry[2].function is not None:
                    heapq.heappush(self._pending, entry)


THREAD_CLOCK: Final = ThreadClock()
