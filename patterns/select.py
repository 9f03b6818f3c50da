"""select: wait for several sends and receives at once, and let exactly one of them happen.

How Go differs: its cases are syntax and each has its branch; here ``select`` returns the case that happened, to be
compared by ``is``. The timeout is an argument as well as a channel (``after``), and the random choice can be seeded.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from enum import Enum
from functools import partial
from random import Random
from typing import TYPE_CHECKING, TypeVar

from patterns._budget import pay
from patterns._case import Attempt, Case, CaseT, Receive, Send, WaiterT
from patterns._waiter import TaskWaiter, ThreadWaiter, matching

if TYPE_CHECKING:
    from patterns.channel import Channel, ReceiveChannel

T = TypeVar("T")

__all__ = ["Case", "Outcome", "Receive", "Send", "receive", "select", "select_sync", "send"]


class Outcome(Enum):
    """What ``select`` returns when none of its cases happened."""

    DEFAULT = "default"
    TIMEOUT = "timeout"


def receive(channel: ReceiveChannel[T] | None) -> Receive[T]:
    """Make a receive case; one of ``None`` never happens (Go: a nil channel).

    After it was chosen, ``ok`` says whether a value came (it is False when the channel is closed and drained) and
    ``value`` is that value. The next select with it forgets both.
    """
    return Receive(None if channel is None else channel._core)  # noqa: SLF001 - a channel hides its core from users


def send(channel: Channel[T] | None, value: T) -> Send[T]:
    """Make a send case; one to ``None`` never happens (Go: a nil channel)."""
    return Send(None if channel is None else channel._core, value)  # noqa: SLF001 - as above


async def select(
    *cases: CaseT, timeout_seconds: float | None = None, default: bool = False, random: Random | None = None
) -> CaseT | Outcome:
    """Wait until one of the cases can happen, let it happen, and return it; the others have had no effect.

    If several are ready, each is chosen with the same probability, drawn from ``random`` if that is given. If none
    is, ``default`` returns ``Outcome.DEFAULT`` at once, and ``timeout_seconds`` ``Outcome.TIMEOUT`` after that time:
    a ready case beats a timeout of 0. With neither, and only ``None`` for channels, the select waits until it is
    cancelled.

    A receive is ready when its channel is closed and drained (``ok`` is then False), a send when it is closed (it
    then raises). A send to a channel of capacity 0 has happened when its receiver has resumed; if that one is
    cancelled first, the select looks at all its cases again; one with a single case keeps its place instead, as
    ``Channel.send`` does. A select that may not wait cannot know that: it sends as ``send_nowait`` does.

    A select that is cancelled has not happened, but for a send that was matched in the same tick (see
    ``Channel.send``).

    Raises:
        ChannelClosedError: a send case was chosen whose channel is closed.
    """
    await pay()
    loop = asyncio.get_running_loop()
    ends_at = None if timeout_seconds is None else loop.time() + timeout_seconds
    may_wait = not default and (timeout_seconds is None or timeout_seconds > 0)
    while may_wait:
        attempt = Attempt(cases, random, partial(TaskWaiter, looks_again=len(cases) > 1))
        with matching:
            chosen = attempt.look_or_wait()
        if chosen is not None:
            return chosen
        timer = None if ends_at is None else loop.call_at(ends_at, _expire, attempt)
        try:
            await attempt.waiter.wait()
        finally:
            if timer is not None:
                timer.cancel()
        with matching:
            chosen = attempt.finish()
        if chosen is not None:
            return chosen
        may_wait = not attempt.is_expired
    return _poll(cases, random, default=default)


def select_sync(
    *cases: CaseT, timeout_seconds: float | None = None, default: bool = False, random: Random | None = None
) -> CaseT | Outcome:
    """Do what ``select`` does, in a thread, by blocking it.

    Raises:
        ChannelClosedError: a send case was chosen whose channel is closed.
        RuntimeError: it would have to block the thread of a running event loop.
    """
    ends_at = None if timeout_seconds is None else time.monotonic() + timeout_seconds
    may_wait = not default and (timeout_seconds is None or timeout_seconds > 0)
    while may_wait:
        attempt = Attempt(cases, random, partial(ThreadWaiter, looks_again=len(cases) > 1))
        try:
            chosen = _block(attempt, ends_at)
        except BaseException:  # KeyboardInterrupt, for one, comes at any point
            with matching:
                attempt.withdraw()
            raise
        if chosen is not None:
            return chosen
        may_wait = not attempt.is_expired
    return _poll(cases, random, default=default)


def _poll(cases: Sequence[CaseT], random: Random | None, *, default: bool) -> CaseT | Outcome:
    with matching:
        chosen = Attempt(cases, random, TaskWaiter).look()
    if chosen is not None:
        return chosen
    return Outcome.DEFAULT if default else Outcome.TIMEOUT


def _expire(attempt: Attempt[CaseT, WaiterT]) -> None:
    with matching:
        attempt.expire()


def _block(attempt: Attempt[CaseT, ThreadWaiter], ends_at: float | None) -> CaseT | None:
    """Make the attempt; block until a case has happened, or its wait is over."""
    with matching:
        chosen = attempt.look_or_wait()
    if chosen is not None:
        return chosen
    if not attempt.waiter.wait(None if ends_at is None else ends_at - time.monotonic()):
        _expire(attempt)
        attempt.waiter.wait()  # returns at once, unless it was matched before: then the time does not count
    with matching:
        return attempt.finish()
