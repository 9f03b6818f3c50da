"""Writing to disk: all of it or an error, and in one step."""

import io
import os
from pathlib import Path

import pytest

from etl.disk import make_directory, replace_file, write_whole
from tests.support.disk_watch import watch_disk


class Reluctant(io.FileIO):
    """Takes at most three bytes at a time, as a disk does that is nearly full; after `room` bytes none."""

    room = 1_000

    def write(self, data: object, /) -> int:
        """Write the first bytes."""
        assert isinstance(data, memoryview)
        if not self.room:
            raise OSError(28, "No space left on device")
        taken = super().write(data[: min(3, self.room)])
        assert taken is not None
        self.room -= taken
        return taken


def test_all_is_written_however_little_is_taken_at_a_time(tmp_path: Path) -> None:
    """A file that takes some of the data gets the rest as well."""
    with Reluctant(tmp_path / "file", "wb") as file:
        write_whole(file, b"0123456789")
    assert (tmp_path / "file").read_bytes() == b"0123456789"


def test_disk_that_becomes_full_in_the_middle_is_told(tmp_path: Path) -> None:
    """What found no room is an error, also where the first part was taken without one."""
    with Reluctant(tmp_path / "file", "wb") as file:
        file.room = 4
        with pytest.raises(OSError, match="No space left"):
            write_whole(file, b"0123456789")


def test_file_takes_the_place_of_another_in_one_step(tmp_path: Path) -> None:
    """The new content is there whole, and nothing else is left behind."""
    (tmp_path / "file").write_bytes(b"old")
    replace_file(tmp_path / "file", [b"ne", b"w"])
    assert {each.name: each.read_bytes() for each in tmp_path.iterdir()} == {"file": b"new"}


def test_file_that_finds_no_room_leaves_the_old_one_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error names the path, and the half that was written takes no room."""
    (tmp_path / "file").write_bytes(b"old")

    def fail(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match=r"No space left on device: '.*/file'"):
        replace_file(tmp_path / "file", [b"ne", b"w"])
    assert {each.name: each.read_bytes() for each in tmp_path.iterdir()} == {"file": b"old"}


def test_directory_is_made_with_those_above_it_and_each_is_on_disk(tmp_path: Path) -> None:
    """The entry of each new one is synced, and so is that of one which somebody has just made."""
    with watch_disk() as disk:
        make_directory(tmp_path / "a" / "b")
        assert disk.has(tmp_path / "a")
        assert disk.has(tmp_path)
    with watch_disk() as disk:
        make_directory(tmp_path / "a" / "b")
        assert disk.has(tmp_path / "a")


def test_directory_that_may_not_be_on_disk_has_none_within(tmp_path: Path) -> None:
    """Where the disk fails, nothing is made beneath, so that the next try begins where this one ended."""
    with watch_disk() as disk:
        disk.failing = tmp_path
        for _ in range(2):
            with pytest.raises(OSError, match="Input/output error"):
                make_directory(tmp_path / "a" / "b")
        assert not (tmp_path / "a" / "b").exists()
        disk.failing = None
        make_directory(tmp_path / "a" / "b")
        assert disk.has(tmp_path)
