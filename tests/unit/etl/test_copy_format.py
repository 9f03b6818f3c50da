"""Columns, written as the bytes that PostgreSQL's binary COPY reads."""

import struct
from datetime import UTC, datetime

from etl.copy_format import encode
from etl.coupon_batch import read_batch
from tests.support.coupon_csv import HEADER, block_of, good_with, lines_of

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
    assert encode(batch, "é.csv") == SIGNATURE + row + END


def test_a_batch_without_rows_is_an_input_without_rows() -> None:
    """Nothing but the frame is written, and COPY reads it."""
    assert encode(read_batch(block_of(b"no\n"), HEADER), "file.csv") == SIGNATURE + END


def test_rows_are_in_the_order_of_their_codes() -> None:
    """Whatever the file's order, the codes ascend, and each row keeps its line."""
    codes = ["ZZZZZZZZZZZZZZZZ", "0123456789ABCDEF", "ABCDEFGH12345678"]
    data = lines_of([good_with(code=code) for code in codes])
    written = encode(read_batch(block_of(data, first_line=7), HEADER), "file.csv")
    rows = written[len(SIGNATURE) : -len(END)].split(struct.pack("!hi", 11, 16))[1:]
    assert [row[:16].decode() for row in rows] == sorted(codes)
    assert [struct.unpack("!q", row[-8:])[0] for row in rows] == [8, 9, 7]
