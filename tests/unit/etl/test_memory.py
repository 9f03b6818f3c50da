"""The C library's arenas, as its own report shows them."""

import ctypes
import subprocess
import sys

import pytest

_ALLOCATE = """
import ctypes, threading

def work():
    kept.append(bytearray(100_000))
    together.wait()

%s
kept, together = [], threading.Barrier(4)
threads = [threading.Thread(target=work) for _ in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
libc = ctypes.CDLL(None)
libc.fdopen.restype = ctypes.c_void_p
libc.malloc_info(0, ctypes.c_void_p(libc.fdopen(1, b"w")))
libc.fflush(None)
"""
_SHARE = "from etl.memory import share_one_arena; share_one_arena()"


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_info"), reason="another C library has no arenas")
@pytest.mark.parametrize("is_shared", [True, False])
def test_threads_allocate_from_one_arena(*, is_shared: bool) -> None:
    """Four threads at once have one arena, and several where nobody says so."""
    code = _ALLOCATE % (_SHARE if is_shared else "")
    told = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, timeout=60).stdout
    arenas = told.count(b"<heap nr=")
    assert arenas == 1 if is_shared else arenas > 1
