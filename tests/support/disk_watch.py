"""What a process has waited for until it was on disk, and a disk that fails at one of it."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


class DiskWatch:
    """Knows what was synced; a path that is named in `failing` cannot be."""

    def __init__(self) -> None:
        self.failing: Path | None = None
        self._synced: list[os.stat_result] = []

    def has(self, path: Path) -> bool:
        """Tell whether a file or directory was synced."""
        return any(os.path.samestat(path.stat(), one) for one in self._synced)

    def sync(self, number: int) -> None:
        """Stand in for `os.fsync`."""
        status = os.fstat(number)
        if self.failing is not None and os.path.samestat(self.failing.stat(), status):
            raise OSError(5, "Input/output error")
        self._synced.append(status)


@contextmanager
def watch_disk() -> Iterator[DiskWatch]:
    """Watch what is synced in a block."""
    watch = DiskWatch()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", watch.sync)
        yield watch
