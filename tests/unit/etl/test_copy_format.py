"""Columns, written as the bytes that PostgreSQL's binary COPY reads."""

import struct
from collections import defaultdict
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etl.copy_format import CopyRows, copy_rows
from etl.coupon_batch import read_batch
from etl.settings import Duplicates
from tests.support.coupon_csv import HEADER, block_of, good_with, lines_of
from tests.support.etl_rows import LoadRow
from tests.support.etl_rows import copy_rows as copied

SIGNATURE = b"PGCOPY\n\xff\r\n\0" + bytes(8)
END = b"\xff\xff"


def test_a_row_is_written_field_by_field_with_its_lengths() -> None:
    """The bytes are those of PostgreSQL's documentation of COPY, put together by hand."""
    data = lines_of([good_with(issued_at="2000-01-01T00:00:01.5Z")])
    micros = int((datetime(2027, 1, 1, tzinfo=UTC) - datetime(2000, 1, 1, tzinfo=UTC)).total_seconds()) * 1_000_000
    fields = (
        b"0123456789ABCDEF",
        b"m-1",
        b"rw-1",
        struct.pack("!q", 250),
        b"EUR",
        struct.pack("!q", 1_500_000),
        struct.pack("!q", micros),
        b"issued",
        struct.pack("!q", 1),
        "é.csv".encode(),
        struct.pack("!q", 3_000_000_000),
    )
    row = struct.pack("!h", 11) + b"".join(struct.pack("!i", len(field)) + field for field in fields)
    batch = read_batch(block_of(data, first_line=3_000_000_000), HEADER)
    assert copy_rows(batch, "é.csv").encode() == SIGNATURE + row + END


def test_a_batch_without_rows_is_an_input_without_rows() -> None:
    """Nothing but the frame is written, and COPY reads it."""
    assert copy_rows(read_batch(block_of(b"no\n"), HEADER), "file.csv").encode() == SIGNATURE + END


def test_rows_are_in_the_order_of_their_codes() -> None:
    """Whatever the file's order, the codes ascend, and each row keeps its line."""
    codes = ["ZZZZZZZZZZZZZZZZ", "0123456789ABCDEF", "ABCDEFGH12345678"]
    data = lines_of([good_with(code=code) for code in codes])
    written = copy_rows(read_batch(block_of(data, first_line=7), HEADER), "file.csv").encode()
    rows = written[len(SIGNATURE) : -len(END)].split(struct.pack("!hi", 11, 16))[1:]
    assert [row[:16].decode() for row in rows] == sorted(codes)
    assert [struct.unpack("!q", row[-8:])[0] for row in rows] == [8, 9, 7]


ROWS = st.lists(
    st.builds(LoadRow, st.sampled_from("ABCDEF").map(lambda letter: 16 * letter), st.integers(2, 50)), max_size=12
)


def codes_and_lines(rows: CopyRows) -> list[tuple[str, int]]:
    """Return what tells one row from another."""
    return [(row["code"], row["source_line"]) for row in rows.columns.to_pylist()]


@given(rows=ROWS, taken=st.lists(st.sampled_from(["A" * 16, "B" * 16, "X" * 16])))
@pytest.mark.parametrize("rule", [Duplicates.FIRST, Duplicates.LAST])
def test_split_keeps_apart_the_best_row_of_each_free_code(
    rows: list[LoadRow], taken: list[str], rule: Duplicates
) -> None:
    """Both parts together are the rows, each in order, and no code comes twice among the free ones."""
    whole = copied(rows, "etl:1")
    free, others = whole.split(taken, rule)
    lines: dict[str, list[int]] = defaultdict(list)
    for row in rows:
        lines[row.code].append(row.line)
    best = min if rule is Duplicates.FIRST else max
    assert codes_and_lines(free) == sorted((code, best(of)) for code, of in lines.items() if code not in taken)
    assert sorted(codes_and_lines(free) + codes_and_lines(others)) == codes_and_lines(whole)
    assert codes_and_lines(others) == sorted(codes_and_lines(others))


@given(rows=ROWS, others=ROWS)
def test_codes_of_others_are_found(rows: list[LoadRow], others: list[LoadRow]) -> None:
    """Also in rows that were cut out of others, where memory begins before them."""
    some, other = copied(rows, "etl:1"), copied(others, "etl:2")
    assert set(some.codes_in(other)) == {row.code for row in rows} & {row.code for row in others}
    behind = CopyRows(some.columns[1:])
    assert set(behind.codes_in(other)) == set(behind.codes()) & set(other.codes())
