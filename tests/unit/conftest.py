"""What holds for every unit test: nothing may be left running or open, and no event loop may be blocked."""

import gc

from tests.support.leftovers import _no_leftover_tasks, no_leftover_tasks, no_leftovers

__all__ = ["_no_leftover_tasks", "no_leftover_tasks", "no_leftovers"]


def pytest_collection_finish() -> None:
    """Take everything loaded so far out of the collector's sight: it then needs little time after each test."""
    gc.collect()
    gc.freeze()
