"""End the process by force when an ordered stop does not end by itself, whatever keeps the event loop from it."""

import os
import queue
import threading
import time
from collections.abc import Callable
from typing import Final

from runtime.logs import flush_logs, get_logger

EXIT_FAILED: Final = 1

_WORDS_SECONDS: Final = 1.0

log = get_logger(__name__)


class HardStop:
    """A time bomb in a thread of its own: a blocked loop or a task that eats its cancel cannot hold it up.

    ``arm`` may be called from a signal handler at any instruction, and any number of times: the earliest moment counts.
    Once armed it stays so until ``disarm``, through the end of the loop and the interpreter's wait for other threads.
    """

    def __init__(self, end: Callable[[int], object] = os._exit) -> None:
        self.describe: Callable[[], list[str]] = list
        """Says what is cut off, in a thread of its own; what it has not said after a second is left unsaid."""
        self._end = end
        # SimpleQueue.put is reentrant, as the library promises: a handler may interrupt another one inside it.
        self._moments: queue.SimpleQueue[float | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="hard-stop", daemon=True)
        self._thread.start()

    def arm(self, seconds: float) -> None:
        """End the process in so many seconds, unless it was to end earlier anyway."""
        self._moments.put(time.monotonic() + seconds)

    def disarm(self) -> None:
        """Never end the process; for good."""
        self._moments.put(None)
        self._thread.join(1.0)

    def _run(self) -> None:
        moment: float | None = None
        while moment is None or moment > time.monotonic():
            wait_seconds = None if moment is None else max(0.0, moment - time.monotonic())
            try:
                told = self._moments.get(timeout=wait_seconds)
            except queue.Empty:
                break
            if told is None:
                return
            moment = told if moment is None else min(moment, told)
        try:
            words = threading.Thread(target=self._say_last_words, name="hard-stop-words", daemon=True)
            words.start()
            words.join(_WORDS_SECONDS)
        finally:  # whatever the last words come to, the process ends
            self._end(EXIT_FAILED)

    def _say_last_words(self) -> None:
        """Say what is cut off: in a thread of its own, which a lock that is never freed may hold up."""
        try:
            log.error("Stopped by force", reason="the process did not end by itself in time", cut_off=self.describe())
        except Exception:
            log.exception("Stopped by force")
        flush_logs()
