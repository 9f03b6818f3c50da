"""How many calls a second are served."""

from __future__ import annotations

from typing import Final

PER_SECOND_MAX: Final = 100_000.0
_ROUNDING_SECONDS = 1e-6  # a clock's time is a large number, and a difference of two of them is not exact


class CallRate:
    """Allow so many calls a second on average, and at most one second's worth of them at once.

    Attributes:
        per_second: None for no limit; it may change at any time.
    """

    def __init__(self, per_second: float | None) -> None:
        self.per_second = per_second
        self._free_at = 0.0

    def allows(self, now: float) -> bool:
        """Say whether a call may be served now, and count it if so; `now` never goes back."""
        if self.per_second is None:
            return True
        interval = 1 / self.per_second
        # How long all calls so far take, one after another; a second of that may be ahead, with this call.
        ahead = max(0.0, self._free_at - now)
        if ahead > max(0.0, 1.0 - interval) + _ROUNDING_SECONDS:
            return False
        self._free_at = now + ahead + interval
        return True


def check_rate(per_second: object) -> None:
    """Check a rate that comes from outside; None is no limit.

    Raises:
        ValueError: it is no number, or out of range.
    """
    if per_second is None:
        return
    if not isinstance(per_second, int | float) or isinstance(per_second, bool) or not 0 < per_second <= PER_SECOND_MAX:
        raise ValueError(f"calls_per_second must be a number above 0 and at most {PER_SECOND_MAX:g}")
