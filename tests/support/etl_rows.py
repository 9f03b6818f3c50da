"""Rows of coupons as PostgreSQL's binary COPY has them, without any code of the ETL."""

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from random import Random
from typing import Final

from etl.ledger import BatchRange, DoneRange

CODE_CHARACTERS: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
LINE_BYTES: Final = 100
"""How long every line is taken to be."""

_SIGNATURE: Final = b"PGCOPY\n\xff\r\n\0" + struct.pack("!ii", 0, 0)
_END: Final = struct.pack("!h", -1)
_EPOCH_US: Final = int(datetime(2000, 1, 1, tzinfo=UTC).timestamp()) * 1_000_000
_ISSUED_US: Final = int(datetime(2026, 1, 1, tzinfo=UTC).timestamp()) * 1_000_000 - _EPOCH_US
_YEAR_US: Final = 365 * 86_400 * 1_000_000


@dataclass(frozen=True, slots=True)
class LoadRow:
    """A row of a file: its value tells from which line it is."""

    code: str
    line: int

    @property
    def value_cents(self) -> int:
        """What a coupon from this row is worth."""
        return self.line


def some_code(rng: Random) -> str:
    """Return a code by chance."""
    return "".join(rng.choices(CODE_CHARACTERS, k=16))


def copy_bytes(rows: Iterable[LoadRow], source: str) -> bytes:
    """Return the rows in the format that COPY reads."""
    return _SIGNATURE + b"".join(_row(row, source) for row in rows) + _END


def range_of(rows: Sequence[LoadRow]) -> BatchRange:
    """Return the part of the file that holds rows of neighbouring lines."""
    lines = [row.line for row in rows]
    return BatchRange(min(lines) * LINE_BYTES, (max(lines) + 1) * LINE_BYTES, min(lines), max(lines) + 1)


def _row(row: LoadRow, source: str) -> bytes:
    fields = (
        row.code.encode(),
        b"m-1",
        b"rw-1",
        struct.pack("!q", row.value_cents),
        b"EUR",
        struct.pack("!q", _ISSUED_US),
        struct.pack("!q", _ISSUED_US + _YEAR_US),
        b"issued",
        struct.pack("!q", 1),
        source.encode(),
        struct.pack("!q", row.line),
    )
    return struct.pack("!h", len(fields)) + b"".join(struct.pack("!i", len(field)) + field for field in fields)


def done_range(first_line: int, next_line: int) -> DoneRange:
    """Return a loaded part of a file whose lines have ten bytes each."""
    return DoneRange(first_line * 10, next_line * 10, first_line, next_line)
