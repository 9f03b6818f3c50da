"""A test's parameter `seeds`: a thousand of them, in parts that each stay within the time limit of a test."""

import pytest

thousand_seeds = pytest.mark.parametrize(
    "seeds", [range(start, start + 200) for start in range(0, 1_000, 200)], ids=str
)
