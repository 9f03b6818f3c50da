"""Die, or freeze, at a named point, so that a test can prove what survives a death there.

A random kill seldom lands inside the few microseconds that matter; a named point always does. Nothing is armed unless
the settings say that this is a test, and points are wired in a service's `app.py` alone: the parts themselves take any
plain function that is called when a point is reached.
"""

import os
import signal
import threading
from collections.abc import Iterator
from typing import Final, Literal

from pydantic import Field

from runtime.settings import Section

_SIGNALS: Final = {"kill": signal.SIGKILL, "freeze": signal.SIGSTOP}


class CrashSettings(Section):
    """Name the point, which arrival at it counts (1 is the first), and what happens there; off unless `is_test`."""

    is_test: bool = False
    point: str | None = None
    hit: int = Field(default=1, ge=1)
    action: Literal["kill", "freeze"] = "kill"

    def conflicts(self) -> Iterator[str]:
        """Refuse to arm a process that is not under test."""
        if self.point is not None and not self.is_test:
            yield "point is given, but is_test is not true: a crash point is for tests only"


class CrashPoints:
    """The points of one process, of which the settings arm one or none; usable from tasks and threads.

    Raises:
        ValueError: The settings name a point that is not among `names`.
    """

    def __init__(self, settings: CrashSettings, names: tuple[str, ...]) -> None:
        if settings.point is not None and settings.point not in names:
            raise ValueError(f"crash point must be one of {', '.join(names)}")
        self._names = frozenset(names)
        self._settings = settings
        self._left = settings.hit
        self._lock = threading.Lock()

    def reach(self, name: str) -> None:
        """Send this process SIGKILL (or SIGSTOP) at the armed arrival; do nothing at every other.

        Raises:
            ValueError: No such point: a misspelt one would never fire.
        """
        if name not in self._names:
            raise ValueError(f"unknown crash point {name}")
        if name != self._settings.point:
            return
        with self._lock:
            self._left -= 1
            is_due = self._left == 0
        if is_due:
            os.kill(os.getpid(), _SIGNALS[self._settings.action])
