"""The directory of the demo: its logs, secrets and journal, kept after it has ended until the next one begins."""

import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from sandbox.system import ROOT

PLACE = ROOT / ".sandbox" / "demo"
_LOCK = "running"


class DemoRunningError(RuntimeError):
    """A demo is running in this directory already."""


class ForeignPlaceError(RuntimeError):
    """The directory holds things that no demo has left there."""


@contextlib.contextmanager
def hold_place(place: Path) -> Iterator[Path]:
    """Empty the directory and keep it to this process for the length of a block.

    The lock is the kernel's: it ends with this process, however this process ends. Its file stays, and is the mark by
    which the next run knows that what it finds here may go.

    Raises:
        DemoRunningError: another process holds it.
        ForeignPlaceError: it is not empty and no demo was here; nothing was touched.
    """
    place.mkdir(parents=True, exist_ok=True)
    # One look for both: a lock that another run makes after it does not turn a stranger's directory into ours.
    names = {path.name for path in place.iterdir()}
    if names and _LOCK not in names:
        raise ForeignPlaceError(f"{place} is not empty and no demo was there; name a new or an empty directory")
    lock = os.open(place / _LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DemoRunningError(f"a demo is running already; its logs are in {place}") from None
        for leftover in place.iterdir():
            if leftover.is_dir() and not leftover.is_symlink():
                shutil.rmtree(leftover)
            elif leftover.name != _LOCK:
                leftover.unlink()
        yield place
    finally:
        os.close(lock)


def is_held(place: Path) -> bool:
    """Tell whether a demo is running in the directory."""
    try:
        lock = os.open(place / _LOCK, os.O_RDWR)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(lock)
    return False
