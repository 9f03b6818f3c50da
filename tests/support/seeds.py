"""A test's parameter `seeds`: a thousand of them, of which a quick run takes the first hundred."""

import pytest

thousand_seeds = pytest.mark.parametrize(
    "seeds",
    [range(100), *(pytest.param(range(start, start + 300), marks=pytest.mark.thorough) for start in (100, 400, 700))],
    ids=str,
)
