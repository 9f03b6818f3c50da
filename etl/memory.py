"""What the C library keeps of the memory that is freed."""

import ctypes
from typing import Final

_ARENA_MAX: Final = -8  # M_ARENA_MAX of malloc.h


def share_one_arena() -> None:
    """Let every thread use again what any other has freed: for the whole process, before it has a second thread.

    glibc has an arena for each of some threads, and each of them keeps holes as large as the buffers of a batch. Where
    there is another C library, its own rules stand.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_ARENA_MAX, 1)
