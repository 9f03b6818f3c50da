"""How an operation waits, and how exactly one other operation ends its wait.

All matching in this package happens under one lock, held for a few statements and never across a wait: with a single
lock there is no lock order to get wrong, and a select over many channels is decided in one step. Go locks each
channel of a select in address order instead, which buys parallelism that the GIL does not have.

A waiter stands in one queue for each of its cases. Whoever serves it does so under the lock: ``end`` sets the
outcome, takes the waiter out of all its queues and wakes it, so that a second match, a select that runs two cases or
a forgotten entry cannot happen. A waiter whose task is being cancelled, or whose event loop is closed, is passed
over.
"""

from __future__ import annotations

import asyncio
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from enum import Enum
from queue import Empty, SimpleQueue
from typing import Final, Protocol

from patterns._budget import begin_budget
from patterns._loop import call_in_loop
from patterns._timer import THREAD_CLOCK


class TokenLock(SimpleQueue[None]):
    """A lock: a queue of one token, which whoever holds the lock has taken out and puts back.

    It costs half of a ``threading.Lock``, whose ``acquire`` parses keyword arguments, and the lock is what a buffered
    channel's rate hangs on (``make bench``). ``get`` acquires and ``put(None)`` releases.
    """

    __slots__ = ()

    def __init__(self) -> None:
        self.put(None)

    __enter__ = SimpleQueue[None].get

    def __exit__(self, *exception: object) -> None:
        self.put(None)


matching: Final = TokenLock()
"""The one lock. Nothing that could call back into this package runs while it is held."""

acquire: Final = matching.get
release: Final = matching.put


def when_free(action: Callable[[], object]) -> None:
    """Do what needs the lock, from code that runs as a lost task is closed: at once if the lock is free, else soon.

    The collector closes the coroutine of a lost task (``GeneratorExit``) at any moment, even while its own thread holds
    the lock; then to wait for it would be to wait for ever. What is put off runs in the event loop that runs here, or
    else in the timer thread.
    """
    try:
        acquire(block=False)
    except Empty:
        loop = asyncio._get_running_loop()  # noqa: SLF001 - the public one raises where no loop runs
        if loop is None:
            THREAD_CLOCK.call_at(0, action)
        else:
            loop.call_soon_threadsafe(action)
    else:
        release(None)
        action()


class Signal(Enum):
    """What can become of a waiter besides that one of its places is served."""

    MATCHED = "matched: a receiver will take the value, unless it is cancelled first"
    LOOK_AGAIN = "look again: the channel was closed, or a match was undone"
    TIMEOUT = "the time was up"
    WITHDRAWN = "cancelled while waiting"


class Counter(Protocol):
    """Where places are: a channel's core."""

    def leave(self, place: Place) -> None:
        """Take the place out of its queue, if it is still there."""

    def undo(self, place: Place) -> None:
        """Make good for a place that was served and whose waiter did not live to see it."""


class Place:
    """A waiter's place in one queue of one channel."""

    __slots__ = ("counter", "is_receiver", "waiter")

    def __init__(self, waiter: Waiter, counter: Counter, *, is_receiver: bool) -> None:
        self.waiter = waiter
        self.counter = counter
        self.is_receiver = is_receiver


class Waiter(ABC):
    """One waiting send, receive or select. All but ``wait`` needs the lock to be held.

    A sender whose match is undone keeps its place, unless it ``looks_again``: at other cases, or at the time.
    """

    __slots__ = ("looks_again", "outcome", "places")

    def __init__(self, *, looks_again: bool) -> None:
        self.looks_again = looks_again
        self.outcome: Place | Signal | None = None
        self.places: list[Place] = []

    def place_at(self, counter: Counter, *, is_receiver: bool = False) -> Place:
        """Make a place for one case; the counter puts it into a queue."""
        place = Place(self, counter, is_receiver=is_receiver)
        self.places.append(place)
        return place

    def end(self, outcome: Place | Signal) -> bool:
        """Set the outcome, leave all queues and wake; False if nobody is left to be woken."""
        self.outcome = outcome
        self.leave()
        return self._wake()

    def leave(self) -> None:
        """Leave all queues."""
        for place in self.places:
            place.counter.leave(place)

    def withdraw(self) -> None:
        """Undo what can be undone: leave the queues, give back a value not yet seen; what was sent stays sent."""
        if isinstance(self.outcome, Place):
            self.outcome.counter.undo(self.outcome)
        else:
            self.leave()
        self.outcome = Signal.WITHDRAWN

    @abstractmethod
    def is_gone(self) -> bool:
        """Say whether the waiter can no longer be served: its task is being cancelled, or its loop is closed."""

    @abstractmethod
    def _wake(self) -> bool:
        """Resume the waiter; False if that is impossible."""


class TaskWaiter(Waiter):
    """A waiting task: made and awaited in its own event loop, woken from anywhere."""

    __slots__ = ("_future", "_loop")

    def __init__(self, *, looks_again: bool = False) -> None:
        super().__init__(looks_again=looks_again)
        self._loop = asyncio.get_running_loop()
        self._future: asyncio.Future[None] = self._loop.create_future()

    def is_gone(self) -> bool:
        return self._future.done() or self._loop.is_closed()

    async def wait(self) -> None:
        """Wait, without the lock, until ``end`` was called; withdraw when cancelled."""
        try:
            await self._future
        except GeneratorExit:
            when_free(self._give_up)
            raise
        except BaseException:
            self._give_up()
            raise
        begin_budget()

    def _give_up(self) -> None:
        with matching:
            self.withdraw()

    def _wake(self) -> bool:
        if asyncio._get_running_loop() is self._loop:  # noqa: SLF001 - as above
            self._resume()
            return True
        return call_in_loop(self._loop, self._resume)

    def _resume(self) -> None:
        if not self._future.done():
            self._future.set_result(None)


class ThreadWaiter(Waiter):
    """A waiting thread, blocked on a lock of its own."""

    __slots__ = ("_blocked",)

    def __init__(self, *, looks_again: bool) -> None:
        super().__init__(looks_again=looks_again)
        if asyncio._get_running_loop() is not None:  # noqa: SLF001 - as above
            raise RuntimeError("a blocking wait in an event loop's thread stops the loop: await the channel instead")
        self._blocked = threading.Lock()
        self._blocked.acquire()

    def is_gone(self) -> bool:
        return False

    def wait(self, timeout_seconds: float | None = None) -> bool:
        """Block, without the lock, until ``end`` was called; False if the time was up first."""
        limit = -1.0 if timeout_seconds is None else min(max(timeout_seconds, 0.0), threading.TIMEOUT_MAX)
        return self._blocked.acquire(timeout=limit)

    def _wake(self) -> bool:
        self._blocked.release()
        return True
