"""Run concurrent code on a clock of its own: time jumps when every task waits, and a deadlock is an error.

Go's testing/synctest does this for goroutines. Differences: the clock is the event loop's and starts at 0, not at
midnight of 2000-01-01; a bubble is one loop without threads; and waiting for a mutex counts as waiting here, which in
Go it does not. Nothing real exists inside: what would open a socket, start a thread or take a signal raises.
"""

import asyncio
import math
import threading
from collections.abc import Callable, Coroutine
from contextvars import Context as ContextVariables
from typing import Any, NoReturn, TypeVar, TypeVarTuple

from patterns.errors import DeadlockError
from patterns.leak import describe_task, record_creation

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class BubbleLoop(asyncio.BaseEventLoop):
    """An event loop whose clock moves only when every task waits, and then straight to the next timer."""

    _scheduled: list[asyncio.TimerHandle]  # asyncio's own heap of timers
    _clock_resolution: float

    def __init__(self) -> None:
        super().__init__()
        self._selector = self  # asyncio asks it for events and lets it wait for the next timer
        self._set_time(0.0)
        self._owner = threading.get_ident()
        self._idle_waiters: list[asyncio.Future[None]] = []
        self._stops_when_idle = False
        record_creation(self)

    def time(self) -> float:
        """Return the bubble's time in seconds since it began."""
        return self._now

    def select(self, timeout: float | None) -> list[object]:
        """Take the place of waiting: asyncio calls this when it would sleep for `timeout` seconds, or for ever if None.

        Raises:
            DeadlockError: Every task waits and no timer is left to wake one; one at infinity never would.
        """
        if timeout == 0:
            return []
        if self._idle_waiters:
            for waiter in self._idle_waiters:
                if not waiter.done():
                    waiter.set_result(None)
            self._idle_waiters.clear()
        elif self._stops_when_idle:
            self.stop()
        elif self._scheduled and self._scheduled[0].when() < math.inf:
            self._set_time(max(self._now, self._scheduled[0].when()))
        else:
            raise DeadlockError(self._describe_waits("every task waits and no timer is set"))
        return []

    def finish(self) -> None:
        """Let the tasks left behind by the main function end by themselves, at the time at which it returned.

        Raises:
            DeadlockError: Some of them still wait, be it for a timer: nobody is left for whom time would go on.
        """
        self._stops_when_idle = True
        self.run_forever()
        self._stops_when_idle = False
        if asyncio.all_tasks(self):
            raise DeadlockError(self._describe_waits("the main function has returned and others still wait"))

    async def wait_idle(self) -> None:
        """Wait until every other task of this loop waits."""
        waiter = self.create_future()
        self._idle_waiters.append(waiter)
        await waiter

    def call_soon_threadsafe(
        self, callback: Callable[[*Ts], object], *args: *Ts, context: ContextVariables | None = None
    ) -> asyncio.Handle:
        """Do what call_soon does; another thread that calls it gets a RuntimeError."""
        if threading.get_ident() != self._owner:
            raise RuntimeError("a thread called into a bubble: its clock could not tell who still works")
        return self.call_soon(callback, *args, context=context)

    def run_in_executor(self, *_: object) -> NoReturn:
        """Refuse: a bubble has no threads."""
        raise RuntimeError("a bubble has no threads: its clock could not tell who still works")

    def _set_time(self, now: float) -> None:
        self._now = now
        # asyncio runs what is due before time() + resolution, thus exactly what is due now; less vanishes in the sum.
        self._clock_resolution = math.ulp(now)

    def _process_events(self, event_list: list[object]) -> None:
        """Do nothing: there are no events but timers."""

    def _describe_waits(self, reason: str) -> str:
        return "\n  ".join([f"{reason}:", *sorted(str(describe_task(task)) for task in asyncio.all_tasks(self))])


def bubble(fn: Callable[[*Ts], Coroutine[Any, Any, T]], *args: *Ts) -> T:
    """Run fn(*args) in a new bubble, as asyncio.run would on a real clock, and return its result.

    Timers cost no real time, so a test of an hour takes a millisecond, and the order of events is the same in every
    run. When the function has returned, tasks it left behind may still finish, but the clock stands still.

    Raises:
        DeadlockError: All tasks wait and no timer is set, or tasks still wait after the function returned. The message
            names each waiting task with its wait site and its creation site. The tasks are then cancelled.
        RuntimeError: Called from a running event loop, or code inside used a thread.
    """
    if asyncio._get_running_loop() is not None:  # noqa: SLF001 - the public one raises where no loop runs
        raise RuntimeError("a bubble cannot run inside a running event loop")
    loop = BubbleLoop()
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        result = runner.run(fn(*args))
        loop.finish()
        return result


async def wait_idle() -> None:
    """Wait until every other task of this bubble waits (Go: synctest.Wait). The clock does not move meanwhile.

    Raises:
        RuntimeError: Called outside a bubble.
    """
    loop = asyncio.get_running_loop()
    if not isinstance(loop, BubbleLoop):
        raise RuntimeError("wait_idle works inside a bubble only")  # noqa: TRY004 - no argument is at fault
    await loop.wait_idle()
