"""Seeds of chance: a test's parameter `seeds` with a thousand of them, in parts that each stay within a test's time."""

import secrets
from random import Random

import pytest

thousand_seeds = pytest.mark.parametrize(
    "seeds",
    [range(100), *(pytest.param(range(start, start + 300), marks=pytest.mark.thorough) for start in (100, 400, 700))],
    ids=str,
)
"""A quick run takes the first hundred."""


def seeded(what: str) -> Random:
    """Return a source of chance whose seed is shown when the test fails."""
    seed = secrets.randbits(32)
    print(f"{what} seed {seed}")  # noqa: T201 - shown when the test fails
    return Random(seed)
