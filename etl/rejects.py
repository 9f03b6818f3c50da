"""The rejected rows of one file, on disk before the batch they came from counts.

One JSON object a line: the row's line in the file, why it was rejected, and its bytes as they were, in base 64.
"""

import base64
import os
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Any, Final, Self

import orjson

from etl.coupon_batch import Reject
from etl.disk import replace_file, sync_directory, write_whole
from etl.ledger import DoneRange

_SUFFIX: Final = ".rejects.jsonl"
_NAME_DIGITS: Final = 16


@dataclass(frozen=True, slots=True)
class RejectedRow:
    """One row that was not loaded; `raw` has no line end."""

    line: int
    reason: str
    raw: bytes


def reject_path(directory: Path, content_sha256: bytes) -> Path:
    """Return where the rejects of a content are, whatever its file is called."""
    return directory / f"{content_sha256.hex()[:_NAME_DIGITS]}{_SUFFIX}"


def read_rejects(path: Path) -> Iterator[RejectedRow]:
    """Yield the rows of a reject file in the order of their lines; a last line that was cut off by a crash is left out.

    Raises:
        FileNotFoundError: There is none.
        ValueError: It is no reject file.
    """
    return iter(sorted(_read(path), key=lambda row: row.line))


def _read(path: Path) -> list[RejectedRow]:
    rows = []
    for line in path.read_bytes().split(b"\n")[:-1]:
        try:
            found: dict[str, Any] = orjson.loads(line)  # Any: it is looked at field by field
            rows.append(RejectedRow(found["line"], found["reason"], base64.b64decode(found["raw"], validate=True)))
        except (orjson.JSONDecodeError, KeyError, TypeError, ValueError):
            raise ValueError(f"{path} is no reject file") from None
    return rows


class RejectFile:
    """Appends the rejects of batches; each batch's are on disk when `write` returns. Safe for several threads.

    Opening it drops what a try wrote whose batch did not count after all, so that every row is there once. It blocks,
    so an event loop calls it through a thread.

    Args:
        path: `reject_path` gives it.
        done: the ranges that count.
    """

    def __init__(self, path: Path, done: Sequence[DoneRange]) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._file: FileIO | None = None
        if path.exists():
            kept = [row for row in _read(path) if any(one.line_start <= row.line < one.line_end for one in done)]
            replace_file(path, _lines(kept))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()

    def write(self, rejects: Sequence[Reject]) -> None:
        """Append the rejects of one batch and wait until they are on disk.

        Raises:
            OSError: They may not be, so the batch must not count.
        """
        with self._lock:
            file = self._opened()
            begin = file.seek(0, os.SEEK_END)
            try:
                write_whole(file, _lines(RejectedRow(one.line, one.reason, one.raw) for one in rejects))
                os.fsync(file.fileno())
            except OSError:
                os.ftruncate(file.fileno(), begin)  # what follows half a line would be read as part of it
                raise

    def _opened(self) -> FileIO:
        if self._file is None:
            is_new = not self._path.exists()
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._path.open("ab", buffering=0)
            if is_new:
                sync_directory(self._path.parent)
        return self._file


def _lines(rows: Iterable[RejectedRow]) -> bytes:
    return b"".join(
        orjson.dumps(
            {"line": row.line, "reason": row.reason, "raw": base64.b64encode(row.raw).decode()},
            option=orjson.OPT_APPEND_NEWLINE,
        )
        for row in rows
    )
