"""The state of a channel and its rules, without any waiting: every method needs the lock of ``_waiter`` to be held.

A receiver that is served while it waits is *promised* a value: the value stays in the buffer until the receiver
resumes and takes the oldest one. Newcomers see only what nobody was promised. So a receiver that is cancelled after
it was served loses nothing and disturbs no order: its promise goes to the next in line, or the value simply is for
all again. (Go copies the value into the waiting goroutine, which is safe there because nothing can cancel it.)

Invariants, between any two operations:

- ``promised <= len(buffer)``;
- receivers wait only while every value in the buffer is promised;
- senders wait only while the buffer is full, or, at capacity 0, while no receiver waits;
- a buffer shorter than ``limit`` takes a value, one longer than ``floor`` gives one, with nothing else to be looked at;
- at capacity 0 the buffer holds values that are matched with a receiver, each with its sender in ``givers``, and
  values
  whose sender has gone on (``send_nowait``, or a send cancelled after the match) and whose receiver was cancelled.
"""

from __future__ import annotations

import sys
from collections import OrderedDict, deque
from enum import Enum
from typing import Final, Generic, TypeVar

from patterns._waiter import Place, Signal, Waiter
from patterns.errors import ChannelClosedError

T = TypeVar("T")


class Nothing(Enum):
    """What ``take`` returns when there is no value: no value of the caller's can be mistaken for it."""

    HERE = "nothing here"


NOTHING: Final = Nothing.HERE


class Core(Generic[T]):
    """One channel's buffer and queues."""

    __slots__ = (
        "__weakref__",
        "buffer",
        "capacity",
        "floor",
        "givers",
        "is_closed",
        "limit",
        "promised",
        "receivers",
        "senders",
    )

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.is_closed = False
        self.buffer: deque[T] = deque()
        self.promised = 0
        self.givers: deque[Place | None] = deque()
        self.senders: OrderedDict[Place, T] = OrderedDict()
        self.receivers: OrderedDict[Place, None] = OrderedDict()
        self._settle()

    def length(self) -> int:
        """Count the values that a newcomer could take from the buffer."""
        return len(self.buffer) - self.promised

    # Receiving.

    def take(self) -> T | Nothing:
        """Take the oldest value that nobody was promised."""
        if len(self.buffer) > self.promised:
            return self._pop()
        while self.senders:
            place, value = next(iter(self.senders.items()))
            if self._serve(place):
                return value
        return NOTHING

    def take_promised(self) -> T:
        """Take the oldest value, for a receiver whose place was served."""
        self.promised -= 1
        self._settle()
        return self._pop()

    def queue_receiver(self, waiter: Waiter) -> Place:
        """Let a receiver wait."""
        place = waiter.place_at(self, is_receiver=True)
        self.receivers[place] = None
        self._settle()
        return place

    # Sending.

    def give(self, value: T) -> bool:
        """Hand a value to the first receiver, or to the buffer, without waiting; False if neither takes it.

        Raises:
            ChannelClosedError: the channel is closed.
        """
        if self.is_closed:
            raise ChannelClosedError("send on a closed channel")
        if self._promise_to_next():
            self._push(value, None)
        elif len(self.buffer) - self.promised < self.capacity:
            self.buffer.append(value)
        else:
            return False
        return True

    def meet(self, waiter: Waiter, value: T) -> Place | None:
        """At capacity 0: match a sender with the first receiver, if there is one; the sender waits until it resumes.

        Raises:
            ChannelClosedError: the channel is closed.
        """
        if self.is_closed:
            raise ChannelClosedError("send on a closed channel")
        if not self._promise_to_next():
            return None
        place = waiter.place_at(self)
        waiter.outcome = Signal.MATCHED
        self._push(value, place)
        return place

    def queue_sender(self, waiter: Waiter, value: T) -> Place:
        """Let a sender wait."""
        place = waiter.place_at(self)
        self.senders[place] = value
        self._settle()
        return place

    # Closing and cancelling.

    def close(self) -> None:
        """Close, and let everyone who waits look again.

        Raises:
            ChannelClosedError: the channel is closed already.
        """
        if self.is_closed:
            raise ChannelClosedError("close of a closed channel")
        self.is_closed = True
        while self.receivers or self.senders:
            # A select may wait in several places here: it leaves them all, and must be woken once only.
            next(iter(self.receivers or self.senders)).waiter.end(Signal.LOOK_AGAIN)
        self._settle()

    def leave(self, place: Place) -> None:
        """Take a place out of its queue, if it is still there."""
        if place.is_receiver:
            self.receivers.pop(place, None)
        else:
            self.senders.pop(place, None)
        self._settle()

    def undo(self, place: Place) -> None:
        """Pass the promise of a cancelled receiver on; what a cancelled sender has sent stays sent."""
        if not place.is_receiver:
            return
        self.promised -= 1
        if not self._promise_to_next() and not self.capacity:
            self._unmatch()
        self._settle()

    # The steps.

    def _settle(self) -> None:
        """Tell the ready operations, which look at the buffer's length only, what is left to them."""
        has_room = not self.receivers and not self.is_closed
        self.limit = self.capacity + self.promised if has_room and self.capacity else 0
        self.floor = self.promised if not self.senders and self.capacity else sys.maxsize

    def _serve(self, place: Place) -> bool:
        waiter = place.waiter
        if waiter.is_gone():
            waiter.leave()
            return False
        return waiter.end(place)

    def _promise_to_next(self) -> bool:
        while self.receivers:
            if self._serve(next(iter(self.receivers))):
                self.promised += 1
                self._settle()
                return True
        return False

    def _push(self, value: T, giver: Place | None) -> None:
        self.buffer.append(value)
        if not self.capacity:
            self.givers.append(giver)

    def _pop(self) -> T:
        value = self.buffer.popleft()
        if self.capacity:
            if self.senders:
                self._refill()
            return value
        giver = self.givers.popleft()
        if giver is not None and giver.waiter.outcome is Signal.MATCHED:
            giver.waiter.end(giver)
        return value

    def _refill(self) -> None:
        while self.senders and len(self.buffer) - self.promised < self.capacity:
            place, value = next(iter(self.senders.items()))
            if self._serve(place):
                self.buffer.append(value)

    def _unmatch(self) -> None:
        """Send the sender of the first value that is promised to nobody back to the head of the queue.

        A sender that was itself cancelled after the match has sent: its value stays.
        """
        index = self.promised
        giver = self.givers[index]
        if giver is None or giver.waiter.outcome is not Signal.MATCHED or giver.waiter.is_gone():
            return
        value = self.buffer[index]
        del self.buffer[index], self.givers[index]
        if giver.waiter.looks_again or self.is_closed:
            giver.waiter.end(Signal.LOOK_AGAIN)
            return
        giver.waiter.outcome = None
        self.senders[giver] = value
        self.senders.move_to_end(giver, last=False)
