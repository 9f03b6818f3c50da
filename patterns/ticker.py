"""Ticker and after: the passing of time as a channel.

How Go differs: since Go 1.23 its timer channels are unbuffered in effect, with no stale tick after ``Stop`` or
``Reset``; so are these. Go takes back a timer nobody can reach any more, even a ticker; here that is so for
``after``, while a ``Ticker`` runs until ``stop``.
"""

from __future__ import annotations

import math
import weakref
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Self

from patterns._core import Core
from patterns._timer import Clock, Timer, current_clock
from patterns._waiter import Place, matching, when_free
from patterns.channel import ReceiveChannel


@dataclass(frozen=True, slots=True)
class TickerStatistics:
    """A ticker at one instant; its period is None when it is stopped."""

    period_seconds: float | None
    sent: int
    dropped: int


class _Ticks(Core[float]):
    """Ticks are dropped where other values are kept: when nobody takes them, and when their receiver is cancelled."""

    __slots__ = ()

    def undo(self, place: Place) -> None:  # noqa: ARG002 - nobody sends, so all places are receivers
        self.promised -= 1
        self.forget()
        self._settle()

    def forget(self) -> None:
        """Drop a tick that nobody was promised."""
        while len(self.buffer) > self.promised:
            self.buffer.pop()


class _Beat:
    """One run of a ticker, from its start or reset to its stop or next reset."""

    __slots__ = ("clock", "next_at", "period_seconds", "timer")

    def __init__(self, clock: Clock, period_seconds: float) -> None:
        self.clock = clock
        self.period_seconds = period_seconds
        self.next_at = clock.now() + period_seconds
        self.timer: Timer | None = None

    def advance(self) -> None:
        """Move to the next time that is yet to come."""
        behind = self.clock.now() - self.next_at
        self.next_at += self.period_seconds * (1 + max(0, behind // self.period_seconds))


class Ticker:
    """Send the time on ``channel`` once every period, until ``stop``.

    A tick is dropped when the one before it has not been received; a ticker that falls behind skips ticks and keeps
    its beat. After ``stop`` or ``reset`` returns, no tick of before can be received; but whoever waited and was served
    before that may resume with its tick after it, as in Go. The time is that of the event loop in which the ticker was
    made or last reset, or ``time.monotonic()`` in a thread. Safe to use from any thread; ``with`` stops it.

    Raises:
        ValueError: the period is not positive.
    """

    __slots__ = ("_beat", "_core", "_dropped", "_sent")

    def __init__(self, period_seconds: float) -> None:
        self._core = _Ticks(1)
        self._sent = 0
        self._dropped = 0
        self._beat: _Beat | None = None
        self.reset(period_seconds)

    @property
    def channel(self) -> ReceiveChannel[float]:
        """Where the ticks arrive; it is never closed, as in Go."""
        return ReceiveChannel(self._core)

    def stop(self) -> None:
        """Send no more ticks, and take back one that was not received; ``reset`` starts again."""
        self._replace(None)

    def reset(self, period_seconds: float) -> None:
        """Start anew: the next tick comes one period from now.

        Raises:
            ValueError: the period is not positive.
        """
        if not period_seconds > 0:
            raise ValueError(f"period_seconds must be more than 0, not {period_seconds}")
        self._replace(_Beat(current_clock(), period_seconds))

    def statistics(self) -> TickerStatistics:
        """Look at the ticker without touching it."""
        with matching:
            period_seconds = None if self._beat is None else self._beat.period_seconds
            return TickerStatistics(period_seconds, self._sent, self._dropped)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if exc_type is GeneratorExit:
            when_free(self.stop)
        else:
            self.stop()

    def _replace(self, beat: _Beat | None) -> None:
        with matching:
            old, self._beat = self._beat, beat
            self._core.forget()
            if beat is not None:
                self._wind(beat)
        if old is not None and old.timer is not None:
            old.timer.stop()

    def _wind(self, beat: _Beat) -> None:
        beat.timer = beat.clock.call_at(beat.next_at, partial(self._tick, beat))

    def _tick(self, beat: _Beat) -> None:
        with matching:
            if self._beat is not beat:
                return
            if self._core.give(beat.clock.now()):
                self._sent += 1
            else:
                self._dropped += 1
            beat.advance()
            self._wind(beat)


def after(seconds: float) -> ReceiveChannel[float]:
    """Make a channel that gets the time once, after some seconds: a timeout that several selects can share.

    It has no ``stop``: when nobody can receive from it any more its timer goes too.

    Raises:
        ValueError: the number of seconds is NaN.
    """
    if math.isnan(seconds):
        raise ValueError("seconds must be a number, not nan")
    clock = current_clock()
    core: Core[float] = Core(1)
    _Bell(core, clock, clock.now() + seconds)
    return ReceiveChannel(core)


class _Bell:
    """Send the time into a channel that it does not keep alive."""

    __slots__ = ("_clock", "_core", "_timer")

    def __init__(self, core: Core[float], clock: Clock, when: float) -> None:
        self._clock = clock
        self._core = weakref.ref(core, lambda _: self._timer.stop())
        self._timer = clock.call_at(when, self.ring)  # which may ring at once, in the timer thread

    def ring(self) -> None:
        core = self._core()
        if core is not None:
            with matching:
                core.give(self._clock.now())
