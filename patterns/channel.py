"""Channel: values from one task or thread to another, in order, with a bound.

How Go differs: nothing can cancel a waiting goroutine, so Go has no rule for that and these channels have one; a send
on a closed channel panics there and raises here; a receive from a closed channel yields the zero value there and
raises ``EndOfChannel`` here.
"""

from __future__ import annotations

import operator
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Generic, TypeVar

from patterns._budget import current_budget, renew_budget
from patterns._core import NOTHING, Core
from patterns._waiter import Place, Signal, TaskWaiter, acquire, matching, release
from patterns.errors import EndOfChannel, WouldBlock
from patterns.sync_channel import SyncChannel, SyncReceiveChannel

T = TypeVar("T")

DRAINED = "the channel is closed and drained"


@dataclass(frozen=True, slots=True)
class ChannelStatistics:
    """A channel at one instant: its bound, what a receiver could take from its buffer, and who waits."""

    capacity: int
    length: int
    waiting_senders: int
    waiting_receivers: int
    is_closed: bool


class ReceiveChannel(Generic[T]):
    """The receiving end of a channel (Go: ``<-chan T``), as ``Context.done`` and ``Ticker.channel`` are."""

    __slots__ = ("__weakref__", "_core")

    def __init__(self, core: Core[T]) -> None:
        self._core = core

    async def receive(self) -> T:
        """Take the oldest value; wait for one if there is none.

        Waiting receivers are served first come, first served. A receive that is cancelled has not happened: a value
        it was promised in the same tick goes to the next receiver, in its old place in the order.

        Raises:
            EndOfChannel: the channel is closed and every value has been taken.
        """
        core = self._core
        while True:
            budget = current_budget()
            waiter = None
            acquire()
            try:
                if budget.left:
                    budget.left -= 1
                    if len(core.buffer) > core.floor:
                        return core.buffer.popleft()
                    if (value := core.take()) is not NOTHING:
                        return value
                    if core.is_closed:
                        raise EndOfChannel(DRAINED)
                    waiter = TaskWaiter()
                    core.queue_receiver(waiter)
            finally:
                release(None)
            if waiter is None:
                await renew_budget()
                continue
            await waiter.wait()
            if isinstance(waiter.outcome, Place):
                with matching:
                    return core.take_promised()

    def receive_nowait(self) -> T:
        """Take the oldest value; callable from any thread.

        Raises:
            WouldBlock: there is none.
            EndOfChannel: the channel is closed and every value has been taken.
        """
        with matching:
            value = self._core.take()
            if value is not NOTHING:
                return value
            if self._core.is_closed:
                raise EndOfChannel(DRAINED)
        raise WouldBlock("no value is ready")

    @property
    def capacity(self) -> int:
        """How many values the channel holds while no one receives; 0 is a rendezvous."""
        return self._core.capacity

    @property
    def is_closed(self) -> bool:
        """Whether ``close`` was called; values may still be there to be received."""
        return self._core.is_closed

    @property
    def sync(self) -> SyncReceiveChannel[T]:
        """The same channel for threads, whose operations block."""
        return SyncReceiveChannel(self._core)

    def statistics(self) -> ChannelStatistics:
        """Look at the channel without touching it."""
        core = self._core
        with matching:
            return ChannelStatistics(
                capacity=core.capacity,
                length=core.length(),
                waiting_senders=len(core.senders),
                waiting_receivers=len(core.receivers),
                is_closed=core.is_closed,
            )

    def __len__(self) -> int:
        with matching:
            return self._core.length()

    def __bool__(self) -> bool:
        return True

    def __aiter__(self) -> AsyncIterator[T]:
        return self

    async def __anext__(self) -> T:
        try:
            return await self.receive()
        except EndOfChannel:
            raise StopAsyncIteration from None


class Channel(ReceiveChannel[T]):
    """A first in, first out channel between any number of tasks, of any event loops, and threads.

    Capacity n: a send waits only while n values are waiting; at capacity 0, a rendezvous, a send completes when its
    receiver has resumed with the value. Any value may travel, ``None`` too.

    Closing says that no more values come: sends raise from then on, also those that wait; receivers first drain the
    buffer. As in Go it is the sender's to do, once, and never needed just to free the channel.

    Not for ``__del__`` methods, the ``finally`` of a task that is lost (the collector runs it) or handlers of
    ``signal.signal``, which run in the middle of anything; a handler of ``loop.add_signal_handler`` may use
    ``send_nowait``.

    Raises:
        ValueError: the capacity is negative.
    """

    __slots__ = ()

    def __init__(self, capacity: int = 0) -> None:
        if operator.index(capacity) < 0:
            raise ValueError(f"capacity must be 0 or more, not {capacity}")
        super().__init__(Core(capacity))

    async def send(self, value: T) -> None:
        """Send a value; wait while the buffer is full, or, at capacity 0, until a receiver has it.

        A send that is cancelled before it was matched has not happened. If it was matched in the same tick the value
        is delivered and ``CancelledError`` is raised all the same; to know which, do not cancel the task but select
        on the send and on ``receive(ctx.done)``.

        Raises:
            ChannelClosedError: the channel is closed, or was closed while this send waited.
        """
        core = self._core
        while True:
            budget = current_budget()
            waiter = None
            acquire()
            try:
                if budget.left:
                    budget.left -= 1
                    if len(core.buffer) < core.limit:
                        core.buffer.append(value)
                        return
                    if core.capacity and core.give(value):
                        return
                    waiter = TaskWaiter()
                    if core.capacity or not core.meet(waiter, value):
                        core.queue_sender(waiter, value)
            finally:
                release(None)
            if waiter is None:
                await renew_budget()
                continue
            await waiter.wait()
            if waiter.outcome is not Signal.LOOK_AGAIN:
                return

    def send_nowait(self, value: T) -> None:
        """Send a value without waiting, to a receiver that waits or into the buffer; callable from any thread.

        Should that receiver be cancelled before it resumes, the value is there for the next one.

        Raises:
            WouldBlock: no receiver waits and the buffer is full.
            ChannelClosedError: the channel is closed.
        """
        with matching:
            if self._core.give(value):
                return
        raise WouldBlock("no receiver waits and the buffer is full")

    def close(self) -> None:
        """Close the channel; callable from any thread.

        Raises:
            ChannelClosedError: it is closed already.
        """
        with matching:
            self._core.close()

    @property
    def sync(self) -> SyncChannel[T]:
        """The same channel for threads, whose operations block."""
        return SyncChannel(self._core)
