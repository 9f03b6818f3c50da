"""Write files so that what was written is there, whole, or the caller hears that it is not."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol


class RawFile(Protocol):
    """A file without a buffer of its own, which may take less than it is given."""

    def write(self, data: memoryview, /) -> int:
        """Write some of the data and return how many bytes."""


def write_whole(file: RawFile, data: bytes | bytearray) -> None:
    """Write all of the data; a disk without room for the rest takes the first part of it without an error.

    Raises:
        OSError: Some of it, or nothing, was written.
    """
    left = memoryview(data)
    while left:
        left = left[file.write(left) :]


def replace_file(path: Path, content: Iterable[bytes], *, own_name: str = "") -> None:
    """Put a file in the place of another, on disk: whoever reads it sees all of it, or what was there before.

    Args:
        path: of both.
        content: of the new one, piece by piece; they may come from the old one.
        own_name: part of the name that the new file has until then. Without one, no two processes may write the path
            at once; with one, a death in the middle leaves that file behind.

    Raises:
        OSError: It cannot be written, and names the path; what was there before still is.
    """
    new = path.with_name(f"{path.name}{own_name}.new")
    try:
        with new.open("wb") as file:
            file.writelines(content)
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)
        sync_directory(path.parent)
    except OSError as error:
        new.unlink(missing_ok=True)  # half of it would take the room that there is not
        raise OSError(error.errno, error.strerror, str(path)) from error


def make_directory(path: Path) -> None:
    """Make a directory and those above it that are not there, and wait until the entry of each is on disk.

    None is made before the one above it is on disk: so what a try that failed, a death or another process has left is
    made sure of as well.

    Raises:
        OSError: It may not be there, or not be on disk.
    """
    if not path.is_dir():
        make_directory(path.parent)
        path.mkdir(exist_ok=True)
    sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    """Wait until a directory's entries are on disk: a new file in it, or one that took another's place."""
    number = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(number)
    finally:
        os.close(number)
