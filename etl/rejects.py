"""The rejected rows of one file, on disk before the batch they came from counts.

One JSON object a line: the row's line in the file, why it was rejected, and its bytes as they were, in base 64. Of
several processes that load a file together each has a reject file of its own, for its life alone.
"""

import base64
import fcntl
import os
import threading
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from io import FileIO
from operator import itemgetter
from pathlib import Path
from typing import Any, Final, Self

import orjson

from etl.coupon_batch import Reject
from etl.disk import make_directory, replace_file, sync_directory, write_whole
from etl.errors import FileBusyError
from etl.ledger import DoneRange

_SUFFIX: Final = ".rejects.jsonl"
_NAME_DIGITS: Final = 16


def reject_path(directory: Path, content_sha256: bytes, process: str | None = None) -> Path:
    """Return where the rejects of a content are, whatever its file is called; of one process that shares its load."""
    own = "" if process is None else f".{process}"
    return directory / f"{content_sha256.hex()[:_NAME_DIGITS]}{own}{_SUFFIX}"


def read_all_rejects(directory: Path, content_sha256: bytes) -> list[Reject]:
    """Return the rejects of a content in the order of their lines, each line once, whoever rejected it how often.

    Where a crash cut off the last line of a file, that one is left out.

    Raises:
        ValueError: A file that is named like one is no reject file.
    """
    paths = directory.glob(f"{content_sha256.hex()[:_NAME_DIGITS]}.*{_SUFFIX[1:]}")
    rows = {row.line: row for path in sorted(paths) for _, row in _read(path)}
    return [rows[line] for line in sorted(rows)]


def _read(path: Path) -> Iterator[tuple[bytes, Reject]]:
    """Yield the whole lines of a reject file, and the row that each tells of; there may be very many."""
    with path.open("rb") as file:
        for line in file:
            if not line.endswith(b"\n"):
                return
            try:
                found: dict[str, Any] = orjson.loads(line)  # Any: it is looked at field by field
                row = Reject(found["line"], base64.b64decode(found["raw"], validate=True), found["reason"])
            except (orjson.JSONDecodeError, KeyError, TypeError, ValueError):
                raise ValueError(f"{path} is no reject file") from None
            yield line, row


def _counted(path: Path, done: Sequence[DoneRange]) -> Iterator[bytes]:
    """Yield the lines of a reject file whose rows are in some ranges, each row once."""
    ranges = sorted((one.line_start, one.line_end) for one in done)
    seen = set()
    for line, row in _read(path):
        before = bisect_right(ranges, row.line, key=itemgetter(0))
        if before and row.line < ranges[before - 1][1] and row.line not in seen:
            seen.add(row.line)
            yield line


class RejectFile:
    """Appends the rejects of batches; each batch's are on disk when `write` returns. Safe for several threads.

    Opening it drops what a try wrote whose batch did not count after all, so that every row is there once. No two
    processes of one machine have it open: one would put a new file in the place of that to which the other one writes.
    It blocks, so an event loop calls it through a thread.

    Args:
        path: `reject_path` gives it.
        done: the ranges that count.

    Raises:
        FileBusyError: Another process has it.
        OSError: It cannot be cleaned.
        ValueError: It is no reject file.
    """

    def __init__(self, path: Path, done: Sequence[DoneRange]) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._file: FileIO | None = None
        self._end = 0
        if path.exists():
            self._clean(done)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()

    def write(self, rejects: Sequence[Reject]) -> None:
        """Append the rejects of one batch and wait until they are on disk.

        Raises:
            FileBusyError: Another process has the file, so the batch must not count.
            OSError: They may not be on disk, so the batch must not count.
        """
        lines = _lines(rejects)
        with self._lock:
            try:
                file = self._opened()
                file.truncate(self._end)  # behind half a line, of a write that failed, a line would be a part of it
                write_whole(file, lines)
                os.fsync(file.fileno())
            except OSError as error:
                raise OSError(error.errno, f"the rejects cannot be kept: {error.strerror}", str(self._path)) from error
            self._end += len(lines)

    def _clean(self, done: Sequence[DoneRange]) -> None:
        with _open_alone(self._path):
            self._end = sum(map(len, _counted(self._path, done)))
            if self._end != self._path.stat().st_size:
                replace_file(self._path, _counted(self._path, done))
        self._file = _open_alone(self._path)

    def _opened(self) -> FileIO:
        if self._file is None:
            make_directory(self._path.parent)
            file = _open_alone(self._path)
            if file.seek(0, os.SEEK_END):  # somebody else has written it since there was none
                file.close()
                raise FileBusyError
            self._file = file
        return self._file


def _open_alone(path: Path) -> FileIO:
    """Open a file to append to, for as long as no other process has it so; its name is on disk then."""
    with ExitStack() as stack:
        file = stack.enter_context(path.open("ab", buffering=0))
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise FileBusyError from None
        if not (path.exists() and os.path.samestat(path.stat(), os.fstat(file.fileno()))):
            raise FileBusyError  # somebody has just put another one in its place
        sync_directory(path.parent)
        stack.pop_all()
    return file


def _lines(rejects: Iterable[Reject]) -> bytearray:
    lines = bytearray()
    for one in rejects:
        # At once: each result of orjson occupies 4 KiB, however short it is.
        lines += orjson.dumps(
            {"line": one.line, "reason": one.reason, "raw": base64.b64encode(one.raw).decode()},
            option=orjson.OPT_APPEND_NEWLINE,
        )
    return lines
