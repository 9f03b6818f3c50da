"""Watch from a thread whether an event loop still turns, and say where it stands when it does not."""

import asyncio
import sys
import threading
import time
import traceback
from dataclasses import dataclass
from typing import Final

from runtime.logs import get_logger

_PERIOD_SECONDS: Final = 0.25

log = get_logger(__name__)


@dataclass(frozen=True)
class WatchdogStatistics:
    """Show a loop's lag: how long a callback waited for its turn, last and at most, and how often beyond the limit."""

    lag_seconds: float
    lag_seconds_max: float
    blocked: int


class LoopWatchdog:
    """Ask the loop for a sign of life four times a second, from a thread, so that a blocked loop is seen while it is.

    When none comes for ``blocked_seconds``, one warning has the stack of the loop's thread at that moment. Go needs no
    such thing for goroutines, which are pre-empted; its counterpart is the scheduler's latency histogram.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, *, blocked_seconds: float = 1.0) -> None:
        if blocked_seconds <= 0:
            raise ValueError("blocked_seconds must be above 0")
        self._loop = loop
        self._blocked_seconds = blocked_seconds
        self._loop_thread = threading.get_ident()
        self._answered = threading.Event()
        self._stopped = threading.Event()
        self._lag = 0.0
        self._lag_max = 0.0
        self._blocked = 0
        self._thread = threading.Thread(target=self._run, name="loop-watchdog", daemon=True)

    def start(self) -> None:
        """Begin to watch; to be called in the loop's thread."""
        self._thread.start()

    def stop(self) -> None:
        """Stop watching; returns at once."""
        self._stopped.set()
        self._answered.set()

    def join(self) -> None:
        """Wait, at most a second, until the thread has ended."""
        self._thread.join(1.0)

    def statistics(self) -> WatchdogStatistics:
        """Return the lag so far; while the loop is blocked, ``lag_seconds`` grows."""
        return WatchdogStatistics(self._lag, self._lag_max, self._blocked)

    def _run(self) -> None:
        while not self._stopped.wait(_PERIOD_SECONDS):
            self._answered.clear()
            asked_at = time.monotonic()
            try:
                self._loop.call_soon_threadsafe(self._answered.set)
            except RuntimeError:  # the loop is closed
                return
            is_told = False
            while not self._stopped.is_set() and not self._answered.wait(_PERIOD_SECONDS):
                self._note(time.monotonic() - asked_at)
                if self._lag >= self._blocked_seconds and not is_told:
                    is_told = True
                    self._tell()
            self._note(time.monotonic() - asked_at)
            if is_told:
                log.warning("The event loop turns again", blocked_seconds=round(self._lag, 3))

    def _note(self, lag: float) -> None:
        self._lag = lag
        self._lag_max = max(self._lag_max, lag)

    def _tell(self) -> None:
        self._blocked += 1
        frame = sys._current_frames().get(self._loop_thread)  # noqa: SLF001 - the documented way to see another thread
        stack = "".join(traceback.format_stack(frame)) if frame is not None else ""
        log.warning("The event loop is blocked", blocked_seconds=round(self._lag, 3), stack=stack)
