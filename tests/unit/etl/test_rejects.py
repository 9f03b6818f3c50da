"""The reject file: on disk before its batch counts, every row once, and whole lines only."""

import os
import tracemalloc
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from random import Random

import pytest

from etl.coupon_batch import Reject
from etl.errors import FileBusyError
from etl.ledger import DoneRange
from etl.rejects import RejectFile, read_all_rejects, reject_path
from tests.support.disk_watch import watch_disk
from tests.support.etl_rows import done_range
from tests.support.reject_file import rejects_in

RAW = b'ABC,"m-1",\xff\x00,"quoted\nline"'


def _reject(line: int, raw: bytes = RAW) -> Reject:
    return Reject(line=line, raw=raw, reason="code must be 16 characters")


def test_rejects_written_by_batches_in_any_order_are_read_by_their_lines(tmp_path: Path) -> None:
    """What several batches wrote is read in the order of the file, byte for byte."""
    path = reject_path(tmp_path / "new", b"\x01" * 32)
    with RejectFile(path, ()) as file:
        file.write([_reject(20), _reject(21)])
        file.write([_reject(3, b"")])
    rows = [_reject(3, b""), _reject(20), _reject(21)]
    assert read_all_rejects(tmp_path / "new", b"\x01" * 32) == rejects_in(path) == rows


def test_rejects_of_a_batch_that_did_not_count_are_dropped_when_the_file_is_opened_again(tmp_path: Path) -> None:
    """After a crash behind the write and before the commit, the batch's rejects come again, and are there once."""
    path = reject_path(tmp_path, b"\x01" * 32)
    with RejectFile(path, ()) as file:
        file.write([_reject(2)])
        file.write([_reject(12)])
    with RejectFile(path, [done_range(2, 10)]) as file:
        assert [row.line for row in rejects_in(path)] == [2]
        file.write([_reject(12)])
    assert [row.line for row in rejects_in(path)] == [2, 12]


def test_line_that_a_crash_cut_off_is_no_reject_and_spoils_none_behind_it(tmp_path: Path) -> None:
    """Half a line at the end is left out, and dropped when the file is opened again."""
    path = reject_path(tmp_path, b"\x01" * 32)
    with RejectFile(path, ()) as file:
        file.write([_reject(2), _reject(12)])
    path.write_bytes(path.read_bytes()[:-7])
    assert read_all_rejects(tmp_path, b"\x01" * 32) == [_reject(2)]
    with RejectFile(path, [done_range(2, 20)]) as file:
        file.write([_reject(12)])
    assert [row.line for row in rejects_in(path)] == [2, 12]


def test_write_that_fails_raises_and_leaves_no_half_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the disk does not confirm, the rejects do not count, and what follows stands alone."""
    path = reject_path(tmp_path, b"\x01" * 32)
    with RejectFile(path, ()) as file:
        file.write([_reject(2)])
        with monkeypatch.context() as patch:

            def fail(_: int) -> None:
                raise OSError(28, "No space left on device")

            patch.setattr(os, "fsync", fail)
            with pytest.raises(OSError, match="No space left"):
                file.write([_reject(3)])
        file.write([_reject(4)])
    assert [row.line for row in rejects_in(path)] == [2, 4]


def test_rejects_of_several_processes_are_read_together_each_line_once(tmp_path: Path) -> None:
    """One process began a batch and died, another loaded it; other contents have files of their own."""
    content = b"\x01" * 32
    for process, lines in ((None, [2]), ("a", [30, 4]), ("b", [4, 12])):
        with RejectFile(reject_path(tmp_path, content, process), ()) as file:
            file.write([_reject(line) for line in lines])
    with RejectFile(reject_path(tmp_path, b"\x02" * 32, "a"), ()) as file:
        file.write([_reject(5)])
    assert [row.line for row in read_all_rejects(tmp_path, content)] == [2, 4, 12, 30]
    assert read_all_rejects(tmp_path / "none", content) == []


def test_file_of_something_else_is_refused(tmp_path: Path) -> None:
    """A file that is no reject file is told, not taken for one."""
    reject_path(tmp_path, b"\x01" * 32).write_bytes(b"line,reason\n")
    with pytest.raises(ValueError, match="is no reject file"):
        read_all_rejects(tmp_path, b"\x01" * 32)


def test_write_that_failed_and_could_not_be_undone_spoils_no_line_behind_it(tmp_path: Path) -> None:
    """Half a line of a disk that failed is gone before the next one is written."""
    path = reject_path(tmp_path, b"\x01" * 32)
    with RejectFile(path, ()) as file:
        file.write([_reject(2)])
        with path.open("ab") as half:
            half.write(b'{"line": 3')
        file.write([_reject(4)])
    assert [row.line for row in rejects_in(path)] == [2, 4]


def test_second_process_neither_cleans_nor_writes_what_another_one_has_open(tmp_path: Path) -> None:
    """The first one's rejects stay where it wrote them, whatever became of its other locks."""
    path = reject_path(tmp_path, b"\x01" * 32)
    with RejectFile(path, ()) as early, RejectFile(path, ()) as file:
        file.write([_reject(2)])
        with pytest.raises(FileBusyError):
            RejectFile(path, [done_range(2, 10)])
        with pytest.raises(FileBusyError):
            early.write([_reject(3)])
        file.write([_reject(4)])
    with pytest.raises(FileBusyError):
        early.write([_reject(3)])
    assert [row.line for row in rejects_in(path)] == [2, 4]


def test_line_that_two_tries_rejected_is_kept_once(tmp_path: Path) -> None:
    """Where both of them wrote it, and it counts, cleaning leaves one."""
    path = reject_path(tmp_path, b"\x01" * 32)
    with RejectFile(path, ()) as file:
        file.write([_reject(2), _reject(3)])
        file.write([_reject(2)])
    with RejectFile(path, [done_range(2, 10)]):
        assert [row.line for row in rejects_in(path)] == [2, 3]


def test_file_with_nothing_to_clean_needs_no_room(tmp_path: Path) -> None:
    """Where every line counts, going on writes nothing, which a full disk would refuse."""
    path = reject_path(tmp_path, b"\x01" * 32)
    with RejectFile(path, ()) as file:
        file.write([_reject(2)])
    before = path.stat().st_ino

    with RejectFile(path, [done_range(2, 10)]):
        assert path.stat().st_ino == before


def _peak_bytes(work: Callable[[], object]) -> int:
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_writing_a_batch_takes_no_more_memory_than_a_few_times_what_is_written(tmp_path: Path) -> None:
    """A batch may be bad from its first row to its last, and each worker has one in hand."""
    path = reject_path(tmp_path, b"\x01" * 32)
    batch = [_reject(line) for line in range(5_000)]
    with RejectFile(path, ()) as file:
        peak = _peak_bytes(lambda: file.write(batch))
    assert peak < 3 * path.stat().st_size


@pytest.mark.parametrize("dropped", [0, 1])
def test_cleaning_takes_less_memory_than_what_is_cleaned(tmp_path: Path, dropped: int) -> None:
    """A file is read and copied line by line, whether there is something to drop or not."""
    path = reject_path(tmp_path, b"\x01" * 32)
    with RejectFile(path, ()) as file:
        file.write([_reject(line, b"x" * 2_000) for line in range(10_000, 15_000)])
    size = path.stat().st_size

    def clean() -> None:
        with RejectFile(path, [done_range(10_000 + dropped, 15_000)]):
            pass

    assert _peak_bytes(clean) < size / 5
    assert path.stat().st_size == size - size * dropped // 5_000


class _Watched(list[DoneRange]):
    """Ranges that know how often they were gone through."""

    rounds = 0

    def __iter__(self) -> Iterator[DoneRange]:
        self.rounds += 1
        return super().__iter__()


def test_ranges_are_gone_through_no_more_often_for_many_rejects(tmp_path: Path) -> None:
    """A file of many batches may have a bad row in each: cleaning costs the sum of both, not the product."""
    path = reject_path(tmp_path, b"\x01" * 32)
    rounds = set()
    for rejects in (1, 100):
        with RejectFile(path, ()) as file:
            file.write([_reject(line) for line in range(2, 2 + rejects)])
        done = _Watched(done_range(line, line + 1) for line in range(2, 102))
        with RejectFile(path, done):
            rounds.add(done.rounds)
        path.unlink()
    assert len(rounds) == 1


def test_rejects_in_any_ranges_are_kept_and_all_others_dropped(tmp_path: Path) -> None:
    """For random ranges in any order, just the rows on their lines stay."""
    random = Random(7)
    path = reject_path(tmp_path, b"\x01" * 32)
    for _ in range(30):
        cuts = sorted(random.sample(range(2, 22), random.randint(2, 19)))
        parts = [part for part in pairwise(cuts) if random.random() < 0.5]
        random.shuffle(parts)
        with RejectFile(path, ()) as file:
            file.write([_reject(line) for line in range(22)])
        with RejectFile(path, [done_range(*part) for part in parts]):
            assert [row.line for row in rejects_in(path)] == sorted(line for part in parts for line in range(*part))
        path.unlink()


def test_first_write_waits_until_all_that_leads_to_the_file_is_on_disk(tmp_path: Path) -> None:
    """The file, its name, and each directory that was made for it outlive the machine."""
    path = reject_path(tmp_path / "a" / "b", b"\x01" * 32)
    with watch_disk() as disk, RejectFile(path, ()) as file:
        file.write([_reject(2)])
        assert [one for one in (path, *list(path.parents)[:3]) if not disk.has(one)] == []


def test_file_whose_name_may_not_be_on_disk_is_not_written_to(tmp_path: Path) -> None:
    """After the write that made it in vain each other one tries anew, also of the next process."""
    path = reject_path(tmp_path, b"\x01" * 32)
    with watch_disk() as disk:
        disk.failing = tmp_path
        with RejectFile(path, ()) as file:
            for _ in range(2):
                with pytest.raises(OSError, match="Input/output error"):
                    file.write([_reject(2)])
        assert path.read_bytes() == b""
        with pytest.raises(OSError, match="Input/output error"):
            RejectFile(path, ())
        disk.failing = None
        with RejectFile(path, ()) as file:
            file.write([_reject(2)])
        assert disk.has(tmp_path)
    assert [row.line for row in rejects_in(path)] == [2]
