"""A block of rows, read into columns, and the rows that are none kept apart."""

from datetime import UTC, datetime
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from etl.block import TOO_LONG
from etl.coupon_batch import (
    ENDS_BEFORE_IT_BEGINS,
    RULES,
    TOO_FEW_FIELDS,
    TOO_MANY_FIELDS,
    CouponBatch,
    read_batch,
)
from etl.header import COLUMNS, Header
from loyalty.money import MAX_CENTS
from tests.support.coupon_csv import GOOD, HEADER, block_of, good_rows, good_with, lines_of, read_slowly

TIMES = (
    "2026-02-28T23:59:59Z",
    "2026-02-29T00:00:00Z",
    "2028-02-29T00:00:00Z",
    "2026-04-31T00:00:00Z",
    "2026-13-01T00:00:00Z",
    "2026-00-01T00:00:00Z",
    "2026-01-00T00:00:00Z",
    "2026-01-01T24:00:00Z",
    "2026-01-01T23:59:60Z",
    "2026-01-01T00:00:00.1Z",
    "2026-01-01T00:00:00.123456+05:30",
    "2026-01-01T00:00:00.1234567Z",
    "2026-01-01T00:00:00-00:00",
    "2026-01-01T00:00:00+24:00",
    "2026-01-01T00:00:00+0530",
    "2026-01-01T00:00:00+05",
    "2026-01-01T00:00:00",
    "2026-01-01T00:00Z",
    "2026-01-01 00:00:00Z",
    "2026-01-01t00:00:00z",
    "2026-01-01",
    "20260101T000000Z",
    "1999-12-31T23:59:59Z",
    "2000-01-01T00:00:00Z",
    "2000-01-01T00:00:00+00:01",
    "2999-12-31T23:59:59.999999Z",
    "2999-12-31T23:59:59-00:01",
    "3000-01-01T00:00:00Z",
    "2026-01-01T00:00:00Z\n",
    "٢٠٢٦-01-01T00:00:00Z",
)
CENTS = (
    "0",
    "00",
    "01",
    "-0",
    "-1",
    "+1",
    " 1",
    "1.0",
    "1e3",
    "0x1F",
    "1_000",
    "٣",
    "1\n",
    str(MAX_CENTS),
    str(MAX_CENTS + 1),
    "999999999999",
    "9" * 40,
)
HOSTILE = st.text(alphabet='aA0-Z,"\r\n\\é\ufeff \t', max_size=6)
LINES = st.builds(
    lambda rows, is_quoted, line_end: lines_of(rows, is_quoted=is_quoted, line_end=line_end),
    st.lists(
        st.one_of(
            st.just(GOOD),
            st.tuples(
                st.sampled_from((GOOD[0], "ZZZZZZZZZZZZZZZZ", GOOD[0] + "\n", GOOD[0].lower())) | HOSTILE,
                st.sampled_from(("m-2", "m-" + "a" * 39, "m-" + "a" * 40, "m--", "m-1\n")) | HOSTILE,
                st.sampled_from(("rw-2", "rw-" + "9" * 40, "rw-A", "RW-1")) | HOSTILE,
                st.sampled_from(CENTS) | st.integers(-2, 2 * MAX_CENTS).map(str),
                st.sampled_from(("EUR", "eur", "EURO", "ÉUR", "EU")) | HOSTILE,
                st.sampled_from(TIMES),
                st.sampled_from(TIMES),
            ),
            st.tuples(*(st.just(value) for value in GOOD[:5]), st.sampled_from(TIMES), st.sampled_from(TIMES)),
            st.integers(0, len(GOOD) - 1).flatmap(
                lambda place: HOSTILE.map(lambda text: (*GOOD[:place], text, *GOOD[place + 1 :]))
            ),
            st.lists(HOSTILE, max_size=9),
        ),
        max_size=6,
    ),
    st.booleans(),
    st.sampled_from(("\n", "\r\n")),
)


def as_read_slowly(batch: CouponBatch) -> tuple[list[tuple[object, ...]], list[tuple[int, bytes]]]:
    """Return a batch in the shape of `expected`."""
    names = (*COLUMNS, "source_line")
    assert tuple(batch.columns.schema.names) == names
    assert all(column.null_count == 0 for column in batch.columns.columns)
    rows = [tuple(row[name] for name in names) for row in batch.columns.to_pylist()]
    return rows, [(one.line, one.raw) for one in batch.rejects]


def expected(data: bytes, header: Header = HEADER, first_line: int = 1) -> tuple[object, object]:
    """Return what the slow reader makes of a block."""
    good, bad = read_slowly(block_of(data, first_line=first_line), header)
    rows = [
        (
            one.code,
            one.member_id,
            one.reward_id,
            one.value.cents,
            one.value.currency,
            one.issued_at,
            one.expires_at,
            line,
        )
        for line, one in good
    ]
    return rows, bad


@settings(max_examples=150)
@given(LINES, st.permutations(COLUMNS))
def test_rows_of_any_kind_are_read_as_the_business_types_read_them(data: bytes, columns: list[str]) -> None:
    """The same rows are good, with the same values and lines, as by Python's csv reader and `loyalty.coupon`."""
    header = Header(tuple(columns))
    assert as_read_slowly(read_batch(block_of(data, first_line=5), header)) == expected(data, header, 5)


@settings(max_examples=150)
@given(
    st.integers(0, 3),
    st.lists(st.tuples(st.integers(0, 400), st.integers(0, 2), st.sampled_from(b',"\r\n\0\\A\xc3\xa9\xff'))),
    st.booleans(),
)
def test_damaged_bytes_are_read_as_the_business_types_read_them(
    seed: int, damages: list[tuple[int, int, int]], is_quoted: bool
) -> None:
    """Where bytes of good rows are replaced, inserted or taken out, fast and slow reading agree on every row."""
    data = bytearray(lines_of(good_rows(4, seed), is_quoted=is_quoted))
    for place, cut, octet in damages:
        data[place : place + cut] = bytes([octet])
    assert as_read_slowly(read_batch(block_of(bytes(data)), HEADER)) == expected(bytes(data))


@pytest.mark.parametrize("is_quoted", [False, True])
def test_many_rows_of_which_some_are_bad_are_all_accounted_for(is_quoted: bool) -> None:
    """Of a thousand rows, good and bad ones in between come out in their order, and none is missing."""
    rng = Random(8)
    rows = good_rows(1_000, seed=8)
    for row in rng.sample(rows, 100):
        row[rng.randrange(7)] = "no"
    for row in rng.sample(rows, 50):
        row.pop()
    data = lines_of(rows, is_quoted=is_quoted)
    batch = read_batch(block_of(data), HEADER)
    assert as_read_slowly(batch) == expected(data)
    assert batch.rows == 1_000
    assert 100 <= len(batch.rejects) <= 150


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        *[({name: "?"}, RULES[name]) for name in COLUMNS],
        ({"issued_at": "2026-02-30T00:00:00Z"}, RULES["issued_at"]),
        ({"expires_at": GOOD[5]}, ENDS_BEFORE_IT_BEGINS),
        ({"issued_at": "2000-01-01T00:00:00+00:01"}, RULES["issued_at"]),
        ({"expires_at": "2999-12-31T23:59:00-00:01"}, RULES["expires_at"]),
        ({"value_cents": str(MAX_CENTS + 1)}, RULES["value_cents"]),
        (dict.fromkeys(COLUMNS, "?"), RULES["code"]),
        ({"currency": "?", "expires_at": GOOD[5]}, RULES["currency"]),
    ],
)
def test_a_bad_row_names_the_first_rule_that_it_breaks(changes: dict[str, str], reason: str) -> None:
    """The reason is that of the first column that is wrong, then that of the row, and never shows the value."""
    data = lines_of([GOOD, good_with(**changes), GOOD])
    batch = read_batch(block_of(data, first_line=7), HEADER)
    (reject,) = batch.rejects
    assert (reject.line, reject.raw, reject.reason) == (8, data.split(b"\n")[1], reason)
    assert batch.columns["source_line"].to_pylist() == [7, 9]


def test_short_and_long_rows_and_faults_are_rejected_and_their_neighbours_loaded() -> None:
    """A row with a field too few or too many, or with a fault of its bytes, costs no other row."""
    good = ",".join(GOOD).encode()
    data = b"\n".join([good, good + b",x", good, good[:-21], good + b"\0", good, b"", good])
    batch = read_batch(block_of(data), HEADER)
    assert [(one.line, one.reason) for one in batch.rejects] == [
        (2, TOO_MANY_FIELDS),
        (4, TOO_FEW_FIELDS),
        (5, "NUL byte"),
    ]
    assert batch.columns["source_line"].to_pylist() == [1, 3, 6, 8]


def test_a_block_without_a_good_row_gives_columns_without_rows() -> None:
    """Bad rows alone, and empty lines alone, are no fault of the reader."""
    for data, rows in ((b"a,b\n", 1), (b"\n\r\n", 0), (lines_of([good_with(code="no")]), 1)):
        batch = read_batch(block_of(data), HEADER)
        assert (batch.columns.num_rows, len(batch.rejects), batch.rows) == (0, rows, rows)


def test_a_byte_order_mark_inside_of_a_file_is_text() -> None:
    """A row that begins with U+FEFF is not taken for one without it, wherever the cut between two blocks falls."""
    data = b"\xef\xbb\xbf" + lines_of([GOOD])
    (reject,) = read_batch(block_of(data), HEADER).rejects
    assert (reject.raw, reject.reason) == (data.rstrip(b"\n"), RULES["code"])


def test_times_come_out_in_utc() -> None:
    """A time with an offset is the same moment in UTC."""
    data = lines_of([good_with(issued_at="2026-01-01T00:00:00.25+05:30")])
    columns = read_batch(block_of(data), HEADER).columns
    assert columns["issued_at"].to_pylist() == [datetime(2025, 12, 31, 18, 30, 0, 250_000, UTC)]


def test_the_first_and_the_last_moment_that_may_be_are_read() -> None:
    """The years are 2000 to 2999, from their first microsecond to their last."""
    data = lines_of([good_with(issued_at="2000-01-01T00:00:00Z", expires_at="2999-12-31T23:59:59.999999Z")])
    batch = read_batch(block_of(data), HEADER)
    assert batch.columns["issued_at"].to_pylist() == [datetime(2000, 1, 1, tzinfo=UTC)]
    assert batch.columns["expires_at"].to_pylist() == [datetime(2999, 12, 31, 23, 59, 59, 999_999, UTC)]


def test_a_longer_record_than_may_be_is_rejected() -> None:
    """The limit that the cutter has is the reader's, too."""
    data = lines_of([good_with(member_id="m-" + "a" * 200), GOOD])
    (reject,) = read_batch(block_of(data), HEADER, record_bytes_max=128).rejects
    assert (reject.line, reject.reason) == (1, TOO_LONG)


def test_a_record_longer_than_any_piece_that_a_reader_takes_at_once_is_read() -> None:
    """A record of megabytes, where so much is allowed, is judged like any other, and its neighbours are loaded."""
    data = lines_of([GOOD, good_with(currency="E\n" * 1_500_000), GOOD])
    batch = read_batch(block_of(data), HEADER, record_bytes_max=4_000_000)
    assert [(one.line, one.reason) for one in batch.rejects] == [(2, RULES["currency"])]
    assert batch.columns["source_line"].to_pylist() == [1, 1_500_003]
