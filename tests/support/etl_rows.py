"""Rows of coupons for the ETL's store, of which a test cares for code and line alone."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Final

import pyarrow as pa

from etl import copy_format
from etl.coupon_batch import COLUMNS_SCHEMA, CouponBatch
from etl.ledger import BatchRange, DoneRange

CODE_CHARACTERS: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
LINE_BYTES: Final = 100
"""How long every line is taken to be."""

_ISSUED_AT: Final = datetime(2026, 1, 1, tzinfo=UTC)


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


def copy_rows(rows: Iterable[LoadRow], source: str) -> copy_format.CopyRows:
    """Return rows as the store takes them."""
    batch = pa.RecordBatch.from_pylist([_columns(row) for row in rows], COLUMNS_SCHEMA)
    return copy_format.copy_rows(CouponBatch(batch, []), source)


def range_of(rows: Sequence[LoadRow]) -> BatchRange:
    """Return the part of the file that holds rows of neighbouring lines."""
    lines = [row.line for row in rows]
    return BatchRange(min(lines) * LINE_BYTES, (max(lines) + 1) * LINE_BYTES, min(lines), max(lines) + 1)


def _columns(row: LoadRow) -> dict[str, object]:
    return {
        "code": row.code,
        "member_id": "m-1",
        "reward_id": "rw-1",
        "value_cents": row.value_cents,
        "currency": "EUR",
        "issued_at": _ISSUED_AT,
        "expires_at": _ISSUED_AT + timedelta(days=365),
        "source_line": row.line,
    }


def done_range(first_line: int, next_line: int) -> DoneRange:
    """Return a loaded part of a file whose lines have ten bytes each."""
    return DoneRange(first_line * 10, next_line * 10, first_line, next_line)
