"""A disk of a few megabytes, to be filled up and freed: a file system in memory, which only root may mount."""

import contextlib
import ctypes
import errno
import os
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from sandbox.servers.account import unprivileged_account

_DETACH: Final = 2
_PIECE: Final = b"\0" * 4096


@dataclass(frozen=True, slots=True)
class SmallDisk:
    """See `open_small_disk`."""

    path: Path

    def fill(self) -> None:
        """Take all the space that is left."""
        with self._ballast.open("ab", buffering=0) as file:
            try:
                while True:
                    file.write(_PIECE)
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise

    def free(self) -> None:
        """Give back what was taken."""
        self._ballast.unlink()

    def make_directory(self, name: str) -> Path:
        """Make a directory that belongs to the account which servers run under."""
        directory = self.path / name
        directory.mkdir(mode=0o700)
        if (account := unprivileged_account()) is not None:
            account.own(directory)
        return directory

    def used_bytes(self) -> int:
        """Return how much is in use, the ballast included."""
        found = os.statvfs(self.path)
        return (found.f_blocks - found.f_bfree) * found.f_frsize

    @property
    def _ballast(self) -> Path:
        return self.path / "ballast"


@contextlib.contextmanager
def open_small_disk(megabytes: int) -> Iterator[SmallDisk]:
    """Mount one at a fresh place that every account can reach; leaving unmounts it, whoever still uses it.

    Skips the test where that is not allowed.
    """
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("only root on Linux can mount a small disk")
    place = Path(tempfile.mkdtemp(prefix="small-disk-"))
    place.chmod(0o755)
    libc = ctypes.CDLL(None, use_errno=True)
    try:
        if libc.mount(b"tmpfs", os.fsencode(place), b"tmpfs", 0, f"size={megabytes}m,mode=1777".encode()):
            pytest.skip(f"a small disk cannot be mounted here: {os.strerror(ctypes.get_errno())}")
        try:
            yield SmallDisk(place)
        finally:
            libc.umount2(os.fsencode(place), _DETACH)
    finally:
        place.rmdir()
