"""What holds for every unit test: nothing may be left running or open, and no event loop may be blocked."""

import gc

import pytest

from tests.support.leftovers import _no_leftover_tasks, no_leftover_tasks, no_leftovers

__all__ = ["_no_leftover_tasks", "no_leftover_tasks", "no_leftovers"]


@pytest.fixture(scope="module", autouse=True)
def _short_collections() -> None:
    """Take what outlives a module out of the collector's sight: each test ends with a collection, of all that is in it.

    What is garbage by now reports itself first; what is left is code, and what pytest noted of the tests so far.
    """
    gc.collect()
    gc.freeze()
