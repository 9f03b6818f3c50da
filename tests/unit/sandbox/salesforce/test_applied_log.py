"""The log of what was applied: all that it holds is there again, and nothing else."""

from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest

from sandbox.salesforce.applied_log import PAGE_BYTES_MAX, AppliedLog, read_call
from sandbox.salesforce.errors import AppliedLogError
from sandbox.salesforce.records import Record, Records
from sandbox.salesforce.schema import DETAIL, MASTER
from tests.support.salesforce import detail, master

ROOM = 2**30


def reopen(path: Path) -> Records:
    """Open records from this log."""
    return Records(path, records_max=1_000, log_bytes_max=ROOM)


def state(records: Records) -> dict[str, dict[str, Record]]:
    """Return all records, by object and external id."""
    return {name: dict(records.of(name)) for name in ("ConsentMaster__c", "ConsentDetail__c")}


@pytest.fixture
def log(tmp_path: Path) -> Iterator[AppliedLog]:
    """Give a log that is empty."""
    opened = AppliedLog(tmp_path / "log", ROOM)
    yield opened
    opened.close()


def test_everything_is_there_again_after_a_restart(tmp_path: Path) -> None:
    """Records, their ids, their fields and their order come back, and the next id is a new one."""
    path = tmp_path / "log"
    records = reopen(path)
    records.upsert(MASTER, [master("a", 1), master("b", 1, Status__c="maybe"), master("c", 1)])
    records.upsert(DETAIL, [detail("d", "a")])
    records.upsert(
        MASTER, [master("a", 2, Status__c="withdrawn"), {"ExternalId__c": "e", "Deleted__c": True, "Version__c": 1}]
    )
    before, pages = state(records), records.page("ConsentMaster__c", 0, 10)
    records.close()

    again = reopen(path)
    assert (state(again), again.page("ConsentMaster__c", 0, 10)) == (before, pages)
    assert (len(again), len(again.log)) == (4, 3)
    (new,) = again.upsert(MASTER, [master("f")])
    assert new.id not in {record.id for held in before.values() for record in held.values()}
    again.close()


def test_a_kill_at_any_byte_of_the_last_line_loses_that_call_alone(tmp_path: Path) -> None:
    """Cut off anywhere within its last line the log gives the calls before it, and the same call can come again."""
    path = tmp_path / "log"
    records = reopen(path)
    records.upsert(MASTER, [master("a"), master("b")])
    kept = path.read_bytes()
    before = {
        name: {key: Record(one.id, dict(one.fields)) for key, one in held.items()}
        for name, held in state(records).items()
    }
    records.upsert(MASTER, [master("a", 2), master("ü\n")])
    records.close()
    whole = path.read_bytes()
    assert whole.startswith(kept)
    for size in range(len(kept), len(whole)):
        path.write_bytes(whole[:size])
        again = reopen(path)
        assert (state(again), len(again.log), path.read_bytes()) == (before, 1, kept), size
        assert [result.errors for result in again.upsert(MASTER, [master("a", 2), master("ü\n")])] == [(), ()]
        again.close()
        assert len(path.read_bytes().splitlines()) == 2, size


def test_each_entry_tells_what_was_set(tmp_path: Path) -> None:
    """Of each call that applied something the log tells number, object and records; of refused records, nothing."""
    path = tmp_path / "log"
    records = reopen(path)
    (made,) = records.upsert(MASTER, [master("a")])
    records.upsert(MASTER, [master("b", Status__c="maybe")])
    records.upsert(MASTER, [{"ExternalId__c": "a", "Version__c": 2}, master("c", Version__c=None)])
    records.close()
    calls = [read_call(orjson.loads(line)) for line in path.read_bytes().splitlines()]
    assert [[(one.call, one.type, one.id, one.external_id, one.is_created) for one in call] for call in calls] == [
        [(1, "ConsentMaster__c", made.id, "a", True)],
        [(2, "ConsentMaster__c", made.id, "a", False)],
    ]
    assert [call[0].fields for call in calls] == [master("a"), {"ExternalId__c": "a", "Version__c": 2}]


@pytest.mark.parametrize(
    "line",
    [
        b"no json\n",
        b"[]\n",
        b'{"call":2,"at":"","type":"ConsentMaster__c","records":[]}\n',
        b'{"call":1,"at":"","type":"Nothing__c","records":[]}\n',
        b'{"call":1,"at":"","type":"ConsentMaster__c"}\n',
        b'{"call":1,"at":"","type":"ConsentMaster__c","records":[{}]}\n',
        b'{"call":1,"at":"","type":"ConsentMaster__c","records":[{"id":"x","external_id":"a","created":false,"fields":{}}]}\n',
    ],
)
def test_a_whole_line_that_was_not_written_here_stops_the_start(tmp_path: Path, line: bytes) -> None:
    """Nothing but an unfinished last line is ever dropped: the start fails, and the file stays as it is."""
    path = tmp_path / "log"
    path.write_bytes(line)
    with pytest.raises(AppliedLogError):
        reopen(path)
    assert path.read_bytes() == line


def test_a_log_belongs_to_one_process_at_a_time(tmp_path: Path, log: AppliedLog) -> None:
    """A second opener is refused until the first one has closed."""
    with pytest.raises(AppliedLogError, match="in use"):
        AppliedLog(tmp_path / "log", ROOM)
    log.close()
    AppliedLog(tmp_path / "log", ROOM).close()


def test_a_log_that_cannot_be_opened_is_an_error_of_its_own(tmp_path: Path) -> None:
    """A directory that is not there is told with the path."""
    with pytest.raises(AppliedLogError, match="nowhere"):
        AppliedLog(tmp_path / "nowhere" / "log", ROOM)


def test_a_page_is_bounded_by_lines_and_bytes(log: AppliedLog) -> None:
    """Pages hold at most so many lines, at most 4 MiB, and at least one line where there is one."""
    large = b"x" * (PAGE_BYTES_MAX // 2 + 1) + b"\n"
    for line in (b"1\n", b"2\n", b"3\n", large, large):
        log.append(line)
    assert log.page(0, 2) == [b"1", b"2"]
    assert log.page(1, 1) == [b"2"]
    assert [len(page) for page in (log.page(0, 99), log.page(3, 99), log.page(4, 99), log.page(5, 99))] == [4, 1, 1, 0]
    assert log.page(99, 1) == []
