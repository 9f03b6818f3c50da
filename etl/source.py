"""A file as bytes that stay the same: read through once for what it is, then in pieces, each checked against that.

Plain or gzip (known by its first bytes, not by its name), or standard input, which is kept in a file first. All of it
but `open_file` blocks, and releases the interpreter while it reads, unpacks and hashes.
"""

import asyncio
import gzip
import hashlib
import io
import os
import select
import stat
import tempfile
import zlib
from array import array
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from etl.disk import RawFile, write_whole
from etl.errors import FileChangedError, FileRefusedError
from etl.settings import EtlSettings

PIECE_BYTES: Final = 1024 * 1024
STANDARD_INPUT: Final = "-"

_LOOK_SECONDS: Final = 0.2
_GZIP_MAGIC: Final = b"\x1f\x8b"
_GZIP_ERRORS: Final = (EOFError, zlib.error, gzip.BadGzipFile)
_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"
_FOREIGN_MARKS: Final = {
    b"\xff\xfe\0\0": "UTF-32",
    b"\0\0\xfe\xff": "UTF-32",
    b"\xff\xfe": "UTF-16",
    b"\xfe\xff": "UTF-16",
}


@contextmanager
def open_source(
    name: str, *, spool_directory: Path, content_bytes_max: int, check: Callable[[], None] = lambda: None
) -> Iterator["Source"]:
    """Open a file and read it through once.

    Args:
        name: a path, or `-` for standard input.
        spool_directory: where standard input is kept, in a file without a name, until the source is left.
        content_bytes_max: the most bytes, after decompression and of standard input also before it.
        check: called before each piece that is read through, and several times a second while standard input brings
            none: what it raises ends the reading.

    Raises:
        FileRefusedError: There is none, it may not be read, is no regular file, is empty, too large, not in UTF-8 by
            its byte order mark, or gzip that is cut, damaged or followed by something else.
        OSError: Reading it failed, or the spool directory is full.
    """
    is_spooled = name == STANDARD_INPUT
    with _spool(spool_directory, content_bytes_max, check) if is_spooled else _open_regular(name) as file:
        status = os.fstat(file.fileno())
        pieces = _Pieces(file)
        content = _read_through(pieces, content_bytes_max, check)
        yield Source(pieces, content, None if is_spooled else Path(name), status)


@asynccontextmanager
async def open_file(
    name: str, settings: EtlSettings, check: Callable[[], None] = lambda: None
) -> AsyncIterator["Source"]:
    """Open a file, or standard input for `-`, in a thread: it is read through once, until `check` raises."""
    opening = open_source(
        name,
        spool_directory=settings.spool_directory,
        content_bytes_max=settings.content_bytes_max,
        check=check,
    )
    source = await asyncio.to_thread(opening.__enter__)
    try:
        yield source
    finally:
        await asyncio.to_thread(opening.__exit__, None, None, None)


class Source:
    """A file that was read through; for one thread at a time, open until `open_source` is left.

    Attributes:
        content_sha256: of its bytes, after decompression.
        content_bytes: how many these are.
        content_start: where its first record begins: behind a byte order mark, if it has one.
    """

    def __init__(self, pieces: "_Pieces", content: "_Content", path: Path | None, status: os.stat_result) -> None:
        self.content_sha256 = content.sha256
        self.content_bytes = content.size
        self.content_start = content.start
        self._checksums = content.checksums
        self._pieces = pieces
        self._path = path
        self._identity = _identity(status)

    def pieces(self, start: int, end: int) -> Iterator[bytes]:
        """Yield the bytes of a range, after decompression, in pieces of at most 1 MiB, none of them empty.

        Each is as it was when the file was read through. Ranges of a gzip file are fast in their order only: a step
        back begins at the file's start.

        Raises:
            FileChangedError: The next piece is not what it was.
            OSError: It cannot be read.
            ValueError: The range is not within the content.
        """
        if not 0 <= start <= end <= self.content_bytes:
            raise ValueError(f"a range must lie within 0 and {self.content_bytes}, not be {start} to {end}")
        for index in range(start // PIECE_BYTES, -(-end // PIECE_BYTES)):
            begin = index * PIECE_BYTES
            if piece := self._read_verified(index)[max(0, start - begin) : end - begin]:
                yield piece

    def check_unchanged(self) -> None:
        """Look whether the path still leads to the file that was opened, and nobody has written to it since.

        Raises:
            FileChangedError: It is not.
            OSError: It cannot be looked at.
        """
        if self._path is None:
            return
        try:
            identity = _identity(self._path.stat())
        except FileNotFoundError:
            raise FileChangedError("the file was removed while it was read") from None
        if identity != self._identity:
            raise FileChangedError("the file was replaced or written to while it was read")

    def _read_verified(self, index: int) -> bytes:
        begin = index * PIECE_BYTES
        try:
            piece = self._pieces.read(index)
        except _GZIP_ERRORS:
            piece = b""
        if len(piece) != min(PIECE_BYTES, self.content_bytes - begin) or zlib.crc32(piece) != self._checksums[index]:
            raise FileChangedError(
                f"the file changed while it was read, between byte {begin} and {begin + PIECE_BYTES}"
            )
        return piece


@dataclass(slots=True)
class _Content:
    sha256: bytes = b""
    size: int = 0
    start: int = 0
    checksums: "array[int]" = field(default_factory=lambda: array("L"))


class _Pieces:
    """Reads a file's content piece by piece; the last is shorter than the others, and those behind it are empty."""

    def __init__(self, file: io.FileIO) -> None:
        self._file = file
        self._is_gzip = _read(file, len(_GZIP_MAGIC)) == _GZIP_MAGIC
        self._unpacked = self._unpack()
        self._index = -1
        self._piece = b""

    def read(self, index: int) -> bytes:
        if not self._is_gzip:
            self._file.seek(index * PIECE_BYTES)
            return _read(self._file, PIECE_BYTES)
        if index < self._index:
            self._unpacked, self._index = self._unpack(), -1
        while self._index < index:
            self._piece = self._unpacked.read(PIECE_BYTES)
            self._index += 1
        return self._piece

    def _unpack(self) -> gzip.GzipFile:
        self._file.seek(0)
        packed = io.BufferedReader(io.FileIO(self._file.fileno(), closefd=False), PIECE_BYTES)
        return gzip.GzipFile(fileobj=packed, mode="rb")


def _read_through(pieces: _Pieces, content_bytes_max: int, check: Callable[[], None]) -> _Content:
    digest = hashlib.sha256()
    content = _Content()
    while True:
        check()
        try:
            piece = pieces.read(len(content.checksums))
        except _GZIP_ERRORS:
            raise FileRefusedError("the gzip data is cut, damaged or followed by something else") from None
        if not content.size:
            content.start = _content_start(piece)
        content.size += len(piece)
        if content.size > content_bytes_max:
            raise FileRefusedError(f"the content is longer than {content_bytes_max} bytes")
        digest.update(piece)
        content.checksums.append(zlib.crc32(piece))
        if len(piece) < PIECE_BYTES:
            break
    if not content.size:
        raise FileRefusedError("the file is empty")
    content.sha256 = digest.digest()
    return content


def _content_start(piece: bytes) -> int:
    for mark, encoding in _FOREIGN_MARKS.items():
        if piece.startswith(mark):
            raise FileRefusedError(f"the file is in {encoding}, not in UTF-8")
    return len(_BYTE_ORDER_MARK) if piece.startswith(_BYTE_ORDER_MARK) else 0


@contextmanager
def _open_regular(name: str) -> Iterator[io.FileIO]:
    try:
        file = io.FileIO(name, opener=_open_at_once)
    except (OSError, ValueError) as error:
        raise FileRefusedError(f"the file cannot be opened: {getattr(error, 'strerror', error)}") from error
    with file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise FileRefusedError("this is no regular file")
        yield file


def _open_at_once(name: str, flags: int) -> int:
    # A pipe without a writer would hold the thread for ever.
    return os.open(name, flags | os.O_NONBLOCK)


@contextmanager
def _spool(directory: Path, bytes_max: int, check: Callable[[], None]) -> Iterator[io.FileIO]:
    try:
        spool = tempfile.TemporaryFile(dir=directory, buffering=0)  # noqa: SIM115 - entered below: what fails there is another error
    except OSError as error:
        raise _spool_error(error, directory) from error
    with spool:
        size = 0
        while piece := _read_input(check):
            size += len(piece)
            if size > bytes_max:
                raise FileRefusedError(f"standard input is longer than {bytes_max} bytes")
            _keep(spool, piece, directory)
        with io.FileIO(spool.fileno(), closefd=False) as file:
            file.seek(0)
            yield file


def _read_input(check: Callable[[], None]) -> bytes:
    """Return what standard input brings next; nothing at its end. Whoever writes it may hold it open for ever."""
    while not select.select([0], [], [], _LOOK_SECONDS)[0]:
        check()
    return os.read(0, PIECE_BYTES)


def _keep(spool: RawFile, piece: bytes, directory: Path) -> None:
    try:
        write_whole(spool, piece)
    except OSError as error:
        raise _spool_error(error, directory) from error


def _spool_error(error: OSError, directory: Path) -> OSError:
    return OSError(
        error.errno, f"standard input cannot be kept in the spool directory: {error.strerror}", str(directory)
    )


def _read(file: io.FileIO, size: int) -> bytes:
    data = file.read(size)
    while len(data) < size and (more := file.read(size - len(data))):
        data += more
    return data


def _identity(status: os.stat_result) -> tuple[int, ...]:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns
