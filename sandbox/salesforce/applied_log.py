"""The append-only log of what was applied: one line of JSON a call, from which everything is known again at a start."""

from __future__ import annotations

import fcntl
import os
from array import array
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import orjson

from sandbox.salesforce.errors import AppliedLogError

PAGE_BYTES_MAX: Final = 4 * 1024 * 1024
_READ_BYTES = 1024 * 1024

Content = dict[str, Any]  # Any: what JSON can hold


@dataclass(frozen=True, slots=True)
class Applied:
    """One record that was created or updated.

    Attributes:
        call: the number of the call that did it, from 1; the numbers have no gaps.
        at: when, in UTC (RFC 3339).
        type: the object.
        id: the record's id.
        external_id: its external id.
        is_created: whether it was new.
        fields: what the call set, as it was sent.
    """

    call: int
    at: str
    type: str
    id: str
    external_id: str
    is_created: bool
    fields: Content


def read_call(call: Content) -> list[Applied]:
    """Return the entries of one call, decoded from the log or from a page of it.

    Raises:
        KeyError, TypeError: it is no call.
    """
    number, at, kind = call["call"], call["at"], call["type"]
    return [
        Applied(number, at, kind, entry["id"], entry["external_id"], entry["created"], entry["fields"])
        for entry in call["records"]
    ]


class AppliedLog:
    """A file that only grows, held by one process at a time.

    A line is with the kernel when `append` returns: it outlives this process, however that ends, though not the
    machine. A last line without its end, which a kill in the middle of a write leaves, is dropped when it is opened.

    Args:
        path: the file; it is made where there is none.
        bytes_max: it does not grow beyond this.

    Raises:
        AppliedLogError: another process holds it, or it cannot be opened.
    """

    def __init__(self, path: Path, bytes_max: int) -> None:
        self._path = path
        self._bytes_max = bytes_max
        try:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise AppliedLogError(f"{path}: {error.strerror}") from error
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self.close()
            raise AppliedLogError(f"{path} is in use by another process") from error
        self._ends = array("Q", [0])  # of each line the byte behind it; the first one stands for what is before them

    def __len__(self) -> int:
        return len(self._ends) - 1

    def replay(self) -> Iterator[Content]:
        """Yield each call in order, and drop a line that was never finished; to be done once, before `append`.

        Raises:
            AppliedLogError: a line that is whole is no JSON, or its number is not the next one.
        """
        with os.fdopen(os.dup(self._file), "rb", buffering=_READ_BYTES) as file:
            for line in file:
                if not line.endswith(b"\n"):
                    os.ftruncate(self._file, self._ends[-1])
                    return
                try:
                    call = orjson.loads(line)
                except ValueError as error:
                    raise AppliedLogError(f"{self._path}: line {len(self) + 1} is no JSON") from error
                if not isinstance(call, dict) or call.get("call") != len(self) + 1:
                    raise AppliedLogError(f"{self._path}: line {len(self) + 1} bears another number")
                self._ends.append(self._ends[-1] + len(line))
                yield call

    def append(self, line: bytes) -> None:
        """Write one line, which ends with the only line end in it; after an error the file is as it was.

        Raises:
            AppliedLogError: it cannot be written whole.
        """
        start = self._ends[-1]
        if start + len(line) > self._bytes_max:
            raise AppliedLogError(f"{self._path} has reached its limit of {self._bytes_max} bytes")
        try:
            written = os.pwrite(self._file, line, start)
        except OSError as error:
            raise AppliedLogError(f"{self._path}: {error.strerror}") from error
        if written != len(line):
            with suppress(OSError):
                os.ftruncate(self._file, start)
            raise AppliedLogError(f"{self._path}: no room for a line of {len(line)} bytes")
        self._ends.append(start + written)

    def page(self, after: int, limit: int) -> list[bytes]:
        """Return the lines behind the call of this number: at most so many, and not many more than 4 MiB of them.

        Args:
            after: a call's number, 0 for the beginning.
            limit: how many lines at most, from 1; where there is one, there is at least one in the page.
        """
        last = min(after + limit, len(self))
        while last > after + 1 and self._ends[last] - self._ends[after] > PAGE_BYTES_MAX:
            last -= 1
        if last <= after:
            return []
        start = self._ends[after]
        return os.pread(self._file, self._ends[last] - start, start).splitlines()

    def close(self) -> None:
        """Let go of the file. Idempotent."""
        file, self._file = self._file, -1
        if file >= 0:
            os.close(file)
