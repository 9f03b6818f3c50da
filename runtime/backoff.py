"""Wait longer after each failure in a row, within a cap, and never in step with others."""

import random
from typing import Final

_DOUBLINGS_MAX: Final = 32


class Backoff:
    """Say how long to wait after the next failure; one instance a loop, not shared.

    The n-th failure in a row asks for `first_seconds` times 2 to the n-1, at most `most_seconds`, and of that a random
    part from a half to the whole: instances that failed together do not come back together.

    Args:
        first_seconds: above 0.
        most_seconds: `first_seconds` or more.
        rng: where the random part comes from; seed it in tests.

    Raises:
        ValueError: the times are out of order.
    """

    def __init__(self, first_seconds: float, most_seconds: float, *, rng: random.Random | None = None) -> None:
        if not 0 < first_seconds <= most_seconds:
            raise ValueError("first_seconds must be above 0 and not above most_seconds")
        self._first_seconds = first_seconds
        self._most_seconds = most_seconds
        self._random = rng or random.Random()  # noqa: S311 - spreads retries in time, guards nothing
        self._failures = 0

    @property
    def failures(self) -> int:
        """How many failures there were in a row."""
        return self._failures

    def fail(self) -> float:
        """Count a failure and return the seconds to wait before the next try."""
        doublings = min(self._failures, _DOUBLINGS_MAX)
        self._failures += 1
        return min(self._most_seconds, self._first_seconds * 2.0**doublings) * self._random.uniform(0.5, 1.0)

    def reset(self) -> None:
        """Forget the failures, after a success."""
        self._failures = 0
