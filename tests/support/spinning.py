"""Wait for what another thread does, without a guess at how long it takes."""

import time
from collections.abc import Callable


def spin_until(condition: Callable[[], bool]) -> None:
    """Give the processor away until the condition holds; a test that waits in vain ends by its own time limit."""
    while not condition():
        time.sleep(0)
