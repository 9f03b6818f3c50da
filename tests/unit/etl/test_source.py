"""How a file is read: once through, then in pieces that are as they were."""

import errno
import gzip
import hashlib
import io
import os
import tempfile
import threading
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random

import pytest

from etl.errors import FileChangedError, FileRefusedError
from etl.source import PIECE_BYTES, Source, open_source

_CONTENT = Random(1).randbytes(5 * PIECE_BYTES // 2)
_SMALL = b"code,member_id\na,b\n"


@contextmanager
def _opened(path: Path | str, *, content_bytes_max: int = 10 * PIECE_BYTES) -> Iterator[Source]:
    spool = path.parent if isinstance(path, Path) else Path("/nowhere")
    with open_source(str(path), spool_directory=spool, content_bytes_max=content_bytes_max) as source:
        yield source


def _file(directory: Path, data: bytes) -> Path:
    path = directory / "coupons.csv"
    path.write_bytes(data)
    return path


def _read(source: Source, start: int = 0, end: int | None = None) -> bytes:
    pieces = list(source.pieces(start, source.content_bytes if end is None else end))
    assert all(0 < len(piece) <= PIECE_BYTES for piece in pieces)
    return b"".join(pieces)


def _refusal(path: Path | str, *, content_bytes_max: int = 10 * PIECE_BYTES) -> str:
    with pytest.raises(FileRefusedError) as refused, _opened(path, content_bytes_max=content_bytes_max):
        pass
    return str(refused.value)


@contextmanager
def _standard_input(data: bytes) -> Iterator[None]:
    """Let the process's standard input be a pipe that gives some bytes."""
    kept = os.dup(0)
    reader, writer = os.pipe()
    os.dup2(reader, 0)
    os.close(reader)

    def feed() -> None:
        with io.FileIO(writer, "wb") as file:
            try:
                for at in range(0, len(data), 50_000):
                    file.write(data[at : at + 50_000])
            except BrokenPipeError:
                pass

    feeder = threading.Thread(target=feed)
    feeder.start()
    try:
        yield
    finally:
        os.dup2(kept, 0)
        os.close(kept)
        feeder.join()


@pytest.mark.parametrize("pack", [bytes, gzip.compress, lambda data: gzip.compress(data[:9]) + gzip.compress(data[9:])])
def test_any_range_is_given_as_it_is(tmp_path: Path, pack: Callable[[bytes], bytes]) -> None:
    """Plain, packed, or packed in two members: hash, size and all ranges are those of the content, in any order."""
    with _opened(_file(tmp_path, pack(_CONTENT))) as source:
        assert (source.content_sha256, source.content_bytes) == (hashlib.sha256(_CONTENT).digest(), len(_CONTENT))
        assert source.content_start == 0
        edges = [0, 1, PIECE_BYTES - 1, PIECE_BYTES, PIECE_BYTES + 1, 2 * PIECE_BYTES, len(_CONTENT) - 1, len(_CONTENT)]
        for start in reversed(edges):
            for end in edges:
                if start <= end:
                    assert _read(source, start, end) == _CONTENT[start:end]
        source.check_unchanged()


def test_a_content_of_whole_pieces_ends_with_the_last(tmp_path: Path) -> None:
    """Where the last piece is full, nothing comes behind it."""
    with _opened(_file(tmp_path, _CONTENT[: 2 * PIECE_BYTES])) as source:
        assert _read(source) == _CONTENT[: 2 * PIECE_BYTES]


def test_a_range_beyond_the_content_is_refused(tmp_path: Path) -> None:
    """A start behind the end, or an end behind the content, is an error of the caller."""
    with _opened(_file(tmp_path, _SMALL)) as source:
        for start, end in ((-1, 2), (3, 2), (0, len(_SMALL) + 1)):
            with pytest.raises(ValueError, match="a range must lie within"):
                list(source.pieces(start, end))


def test_a_byte_order_mark_counts_but_the_content_starts_behind_it(tmp_path: Path) -> None:
    """One mark of UTF-8 is passed over, not two; one of another encoding is refused by its name."""
    mark = b"\xef\xbb\xbf"
    with _opened(_file(tmp_path, mark + mark + _SMALL)) as source:
        assert source.content_start == 3
        assert source.content_bytes == 6 + len(_SMALL)
        assert _read(source, source.content_start) == mark + _SMALL

    for encoding, named in (("utf-16", "UTF-16"), ("utf-32", "UTF-32")):
        assert named in _refusal(_file(tmp_path, _SMALL.decode().encode(encoding)))
    assert "UTF-16" in _refusal(_file(tmp_path, b"\xfe\xff" + _SMALL.decode().encode("utf-16-be")))
    assert "UTF-32" in _refusal(_file(tmp_path, b"\0\0\xfe\xff" + _SMALL.decode().encode("utf-32-be")))


def test_gzip_that_is_cut_anywhere_is_refused(tmp_path: Path) -> None:
    """Of a small packed file, every beginning that still says that it is packed is refused."""
    packed = gzip.compress(_SMALL)

    for size in range(2, len(packed)):
        assert "gzip" in _refusal(_file(tmp_path, packed[:size])), size


def test_gzip_that_is_damaged_or_followed_by_something_is_refused(tmp_path: Path) -> None:
    """A flipped bit of data or checksum, or bytes behind the end, refuse the file."""
    packed = gzip.compress(_SMALL)

    for at in (len(packed) // 2, len(packed) - 8, len(packed) - 1):
        damaged = bytearray(packed)
        damaged[at] ^= 1
        assert "gzip" in _refusal(_file(tmp_path, bytes(damaged)))
    assert "gzip" in _refusal(_file(tmp_path, packed + b"more"))


def test_a_bomb_is_refused_as_soon_as_it_passes_the_limit(tmp_path: Path) -> None:
    """A megabyte that unpacks to a gigabyte is read no further than the limit; the content at the limit is taken."""
    packer = zlib.compressobj(wbits=31)
    bomb = b"".join(packer.compress(bytes(PIECE_BYTES)) for _ in range(100)) + packer.flush()
    unpacked = 0
    real = gzip.GzipFile.read

    def read(self: gzip.GzipFile, size: int | None = -1) -> bytes:
        nonlocal unpacked
        data = real(self, size)
        unpacked += len(data)
        return data

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gzip.GzipFile, "read", read)
        assert "longer than" in _refusal(_file(tmp_path, bomb), content_bytes_max=3 * PIECE_BYTES)
    assert unpacked == 4 * PIECE_BYTES
    assert "longer than" in _refusal(_file(tmp_path, _SMALL), content_bytes_max=len(_SMALL) - 1)
    with _opened(_file(tmp_path, _SMALL), content_bytes_max=len(_SMALL)) as source:
        assert _read(source) == _SMALL


def test_what_is_no_file_with_content_is_refused(tmp_path: Path) -> None:
    """A directory, a device, a silent pipe, a name of nothing, and an empty file, also a packed one, are refused."""
    os.mkfifo(tmp_path / "pipe")

    assert "directory" in _refusal(tmp_path)
    assert "regular" in _refusal(Path("/dev/zero"))
    assert "regular" in _refusal(tmp_path / "pipe")
    assert "No such file" in _refusal(tmp_path / "none")
    assert "null" in _refusal("a\0b")
    assert "empty" in _refusal(_file(tmp_path, b""))
    assert "empty" in _refusal(_file(tmp_path, gzip.compress(b"")))


def test_a_link_is_followed(tmp_path: Path) -> None:
    """A symbolic link is as good as the file."""
    path = tmp_path / "link"
    path.symlink_to(_file(tmp_path, _SMALL))

    with _opened(path) as source:
        assert _read(source) == _SMALL
        source.check_unchanged()


def _overwrite(path: Path) -> None:
    """Change one byte of the last piece and leave no trace in size or time."""
    status = path.stat()
    with path.open("r+b") as file:
        file.seek(-20, os.SEEK_END)
        byte = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte[0] ^ 1]))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def _cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


def _empty(path: Path) -> None:
    os.truncate(path, 0)


def _grow(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"more")


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
@pytest.mark.parametrize("change", [_overwrite, _cut, _empty, _grow])
def test_a_change_of_the_bytes_is_noticed_before_they_are_given(
    tmp_path: Path, pack: Callable[[bytes], bytes], change: Callable[[Path], None]
) -> None:
    """Whatever is given after a change is a beginning of the content as it was, and then the file has changed."""
    path = _file(tmp_path, pack(_CONTENT))
    given = []

    with _opened(path) as source:
        pieces = source.pieces(0, source.content_bytes)
        given.append(next(pieces))
        change(path)
        with pytest.raises(FileChangedError, match="changed while it was read"):
            given.extend(pieces)

    assert _CONTENT.startswith(b"".join(given))
    assert len(b"".join(given)) < len(_CONTENT)


@pytest.mark.parametrize("change", [_cut, _grow, Path.unlink, lambda path: path.write_bytes(_SMALL)])
def test_a_change_is_noticed_at_the_end_even_if_no_byte_is_read_again(
    tmp_path: Path, change: Callable[[Path], object]
) -> None:
    """A file that was cut, grew, was removed or written anew since it was opened is no longer what it was."""
    path = _file(tmp_path, _SMALL)
    os.utime(path, ns=(0, 0))

    with _opened(path) as source:
        source.check_unchanged()
        change(path)
        with pytest.raises(FileChangedError):
            source.check_unchanged()


def test_a_file_that_is_replaced_stays_readable_and_is_noticed(tmp_path: Path) -> None:
    """Another file at the path, of the same size and time, changes no byte that is given, and is told at the end."""
    path = _file(tmp_path, _SMALL)
    other = tmp_path / "other"
    other.write_bytes(_SMALL.replace(b"a", b"x"))
    for each in (path, other):
        os.utime(each, ns=(0, 0))

    with _opened(path) as source:
        other.replace(path)
        assert _read(source) == _SMALL
        with pytest.raises(FileChangedError, match="replaced"):
            source.check_unchanged()


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_standard_input_is_kept_and_leaves_nothing_behind(tmp_path: Path, pack: Callable[[bytes], bytes]) -> None:
    """What comes through a pipe is read as a file is, out of one that has no name."""
    with (
        _standard_input(pack(_CONTENT)),
        open_source("-", spool_directory=tmp_path, content_bytes_max=len(_CONTENT) * 2) as source,
    ):
        assert source.content_sha256 == hashlib.sha256(_CONTENT).digest()
        assert _read(source) == _CONTENT
        assert not list(tmp_path.iterdir())
        source.check_unchanged()


def test_standard_input_beyond_the_limit_is_refused(tmp_path: Path) -> None:
    """More than may be is not kept."""
    with (
        _standard_input(_CONTENT),
        pytest.raises(FileRefusedError, match="standard input is longer"),
        open_source("-", spool_directory=tmp_path, content_bytes_max=PIECE_BYTES),
    ):
        pass


def test_a_spool_directory_that_takes_no_more_is_an_error_that_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk or a missing directory is an OSError with its number, and names the spool directory."""

    class FullDisk(io.BytesIO):
        def write(self, _: object) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

    with (
        _standard_input(_SMALL),
        pytest.raises(OSError, match="spool directory") as missing,
        open_source("-", spool_directory=tmp_path / "none", content_bytes_max=1000),
    ):
        pass
    monkeypatch.setattr(tempfile, "TemporaryFile", lambda **_: FullDisk())
    with (
        _standard_input(_SMALL),
        pytest.raises(OSError, match="spool directory") as full,
        open_source("-", spool_directory=tmp_path, content_bytes_max=1000),
    ):
        pass

    assert (missing.value.errno, full.value.errno) == (errno.ENOENT, errno.ENOSPC)


def test_reading_through_ends_when_it_is_told_to(tmp_path: Path) -> None:
    """What is asked before each piece may end it, however long the file is."""
    path = tmp_path / "a.csv"
    path.write_bytes(b"x" * (3 * PIECE_BYTES))
    asked: list[None] = []

    def check() -> None:
        asked.append(None)
        if len(asked) == 2:
            raise InterruptedError

    with (
        pytest.raises(InterruptedError),
        open_source(str(path), spool_directory=tmp_path, content_bytes_max=10**9, check=check),
    ):
        pass
    assert len(asked) == 2
