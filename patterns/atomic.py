"""A counter that stays exact when threads share it, as Go's atomic.Int64.

Go uses one CPU instruction; here a lock is held for two or three bytecodes. Among tasks of one event loop no atomic is
needed at all: nothing else runs between two awaits. And Go's Int64 wraps around, while this integer has no upper end.
"""

import threading
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class AtomicCounterStatistics:
    """What an AtomicCounter holds at one moment."""

    value: int


class AtomicCounter:
    """Count exactly under any number of threads and tasks.

    Every method is one indivisible step, and all steps of one counter have a single order that every thread agrees on.
    No method waits for anything but the other methods' few bytecodes, so none is async and none can be cancelled.
    """

    __slots__ = ("_lock", "_value")

    def __init__(self, initial: int = 0) -> None:
        self._lock = threading.Lock()
        self._value = initial

    def add(self, n: int = 1) -> int:
        """Add n, which may be negative, and return the new value."""
        with self._lock:
            self._value += n
            return self._value

    def load(self) -> int:
        """Return the value."""
        with self._lock:
            return self._value

    def swap(self, new: int) -> int:
        """Store a new value and return the one it replaces."""
        with self._lock:
            old, self._value = self._value, new
            return old

    def compare_and_swap(self, old: int, new: int) -> bool:
        """Store the new value if the present one equals old; return whether it did."""
        with self._lock:
            if self._value != old:
                return False
            self._value = new
            return True

    def statistics(self) -> AtomicCounterStatistics:
        """Return the value as a record."""
        return AtomicCounterStatistics(value=self.load())
