"""How the records of a block are found: as Python's strict csv reader does, and stricter."""

import csv
import io
from itertools import pairwise

import pytest
from hypothesis import example, given, settings

from etl.block import BARE_RETURN, NEVER_CLOSED, TEXT_BEHIND_QUOTE, TOO_LONG, Block
from etl.records import NOT_UTF8, NUL_BYTE, Records, scan_records
from tests.support.csv_sample import any_csv, clean_csv

_many = settings(max_examples=250, deadline=None)


def _scan(data: bytes, *, first_line: int = 1, record_bytes_max: int = 1000) -> Records:
    return scan_records(Block(data, 0, first_line), record_bytes_max=record_bytes_max)


def _texts(data: bytes, records: Records) -> list[bytes]:
    return [data[start:end] for start, end in zip(records.starts, records.ends, strict=True)]


def _read_strictly(record: bytes) -> list[list[str]]:
    return list(csv.reader(io.StringIO(record.decode(), newline="\n"), strict=True))


def _is_bad(record: bytes) -> bool:
    try:
        rows = _read_strictly(record)
    except (csv.Error, UnicodeDecodeError):
        return True
    return len(rows) != 1 or b"\0" in record or record.endswith(b"\r")


@_many
@given(clean_csv)
@example(b'"a\r\n",b\r\n\r\n"""",a"a\nc')
@example(b'a,"b"')
def test_clean_bytes_have_the_records_and_fields_of_the_strict_reader(data: bytes) -> None:
    """Where Python's strict reader takes the whole, the records are its rows, and have as many fields."""
    rows = [row for row in _read_strictly(data) if row]

    records = _scan(data)

    assert not records.faults
    assert [_read_strictly(text) for text in _texts(data, records)] == [[row] for row in rows]
    assert records.fields.tolist() == [len(row) for row in rows]


@_many
@given(any_csv)
@example(b'"a\r')
@example(b'"a"\r')
@example(b"a\r")
@example(b'a\r\r\n"b\n')
def test_a_record_is_good_exactly_if_the_strict_reader_takes_it(data: bytes) -> None:
    """Each record alone is one row of Python's strict reader, with as many fields, or has a fault."""
    records = _scan(data)

    for place, text in enumerate(_texts(data, records)):
        assert (place in records.faults) == _is_bad(text), (text, records.faults.get(place))
        assert records.fields[place] == (0 if place in records.faults else len(_read_strictly(text)[0]))


@_many
@given(any_csv)
def test_between_records_there_are_line_ends_only_and_lines_are_counted_by_line_feeds(data: bytes) -> None:
    """No byte but those of line ends is left out, and a record's line is one more than the line feeds before it."""
    records = _scan(data, first_line=7)

    starts, ends = records.starts.tolist(), records.ends.tolist()
    gaps = [data[a:b] for a, b in zip([0, *ends], [*starts, len(data)], strict=True)]
    assert all(not gap.replace(b"\r\n", b"").replace(b"\n", b"") for gap in gaps)
    assert all(gap for gap in gaps[1:-1])
    assert records.lines.tolist() == [7 + data.count(b"\n", 0, start) for start in starts]
    assert all(a < b for a, b in pairwise(records.lines.tolist()))


@_many
@given(any_csv)
@example(b'a\n"a"\r')
def test_the_slow_way_finds_what_the_fast_way_finds(data: bytes) -> None:
    """Behind a record with a wrong quote, which sends a block the slow way, the same is found as without it."""
    bad = b'"a"a\n'
    fast, slow = _scan(data), _scan(bad + data)

    assert slow.faults[0] == TEXT_BEHIND_QUOTE
    assert _texts(bad + data, slow)[1:] == _texts(data, fast)
    assert slow.lines[1:].tolist() == (fast.lines + 1).tolist()
    assert slow.fields[1:].tolist() == fast.fields.tolist()
    assert {place - 1: reason for place, reason in slow.faults.items() if place} == fast.faults


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        (b'"a"b,c', TEXT_BEHIND_QUOTE),
        (b'"a" ,c', TEXT_BEHIND_QUOTE),
        (b'a,"b', NEVER_CLOSED),
        (b"a\rb", BARE_RETURN),
        (b"a,b\r\r", BARE_RETURN),
        (b"a\0b", NUL_BYTE),
        (b'"a\0",b', NUL_BYTE),
        (b"a\xffb", NOT_UTF8),
        (b"\xed\xa0\x80", NOT_UTF8),
        (b"a" * 1001, TOO_LONG),
        (b'"' + b"a" * 1001, TOO_LONG),
        (b'"' + b"a" * 1000 + b'"', TOO_LONG),
    ],
)
def test_a_bad_record_is_named_by_its_fault_and_costs_no_neighbour(data: bytes, fault: str) -> None:
    """The record between two good ones has its fault, and they have none."""
    records = _scan(b"x,y\n" + data + b"\nz,w\n")

    assert records.faults == {1: fault}
    assert records.fields.tolist() == [2, 0, 2]
    assert records.lines.tolist() == [1, 2, 3]


@pytest.mark.parametrize("record", [b"a" * 10, b'"%b"' % (b"a" * 8), b'"%b\n"' % (b"a" * 7), b"a" * 9 + b"\r"])
def test_a_record_of_the_greatest_length_is_good_and_one_more_byte_is_too_much(record: bytes) -> None:
    """The limit counts the bytes up to the line feed, quoted or not, and a carriage return with them."""
    assert not _scan(record + b"\n", record_bytes_max=10).faults
    assert _scan(record + b"\n", record_bytes_max=9).faults


def test_a_quote_that_is_never_closed_costs_one_line() -> None:
    """Thousands of good rows behind an open quote stay good."""
    data = b'a,"b\n' + b"c,d\n" * 5000

    records = _scan(data)

    assert records.faults == {0: NEVER_CLOSED}
    assert records.fields.tolist() == [0] + [2] * 5000


def test_backslash_dot_is_plain_data() -> None:
    """A line of a backslash and a dot, which ends PostgreSQL's COPY, is a record as any other."""
    records = _scan(b"a,b\n\\.\nc,d\n")

    assert not records.faults
    assert records.fields.tolist() == [2, 1, 2]
