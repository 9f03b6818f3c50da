"""What a file of coupons holds, by Python's own csv reader and the business's types: what the ETL is held against."""

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from hashlib import sha256
from typing import TypeAlias

from etl.header import Header
from etl.settings import Duplicates
from loyalty.coupon import Coupon
from tests.support.coupon_csv import read_coupon

Values: TypeAlias = tuple[str, str, int, str, datetime, datetime]
"""What a row says beside its code: member, reward, cents, currency, and both times in UTC."""


@dataclass(frozen=True, slots=True)
class GoodRow:
    """A row that may be loaded."""

    line: int
    code: str
    values: Values


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that may not; its bytes have no line end."""

    line: int
    raw: bytes


@dataclass(frozen=True)
class FileModel:
    """A file's rows in their order, each known by its first line."""

    content: bytes
    good: Sequence[GoodRow]
    bad: Sequence[BadRow]

    @cached_property
    def sha256(self) -> bytes:
        """What the ledger knows the file by."""
        return sha256(self.content).digest()

    @property
    def rows(self) -> int:
        """How many rows the file has."""
        return len(self.good) + len(self.bad)

    def winners(self, rule: Duplicates, lines: Iterable[tuple[int, int]] | None = None) -> dict[str, GoodRow]:
        """Return by its code each row that stays, of all rows or of those on some lines (the second one exclusive)."""
        kept = self.good if lines is None else [row for row in self.good if is_on(row.line, lines)]
        return {row.code: row for row in (reversed(kept) if rule is Duplicates.FIRST else kept)}

    def conflicting(self) -> set[str]:
        """Return the codes that rows with different values have."""
        values: dict[str, Values] = {}
        return {row.code for row in self.good if values.setdefault(row.code, row.values) != row.values}


def is_on(line: int, lines: Iterable[tuple[int, int]]) -> bool:
    """Tell whether a line is within one of some ranges."""
    return any(start <= line < end for start, end in lines)


def read_model(content: bytes) -> FileModel:
    """Read a file whose quotes are all in order; fields may hold line ends.

    Raises:
        csv.Error: A quote is not where it may be: what the rows are is then not for this reader to say.
    """
    records = _records(content)
    _, first = next(records)
    header = Header(tuple(first.decode().strip().split(",")))
    good, bad = [], []
    for line, raw in records:
        record = raw.removesuffix(b"\n").removesuffix(b"\r")
        coupon = read_coupon(record.decode(), header)
        if coupon is None:
            bad.append(BadRow(line, record))
        else:
            good.append(GoodRow(line, coupon.code, _values(coupon)))
    return FileModel(content, good, bad)


def _records(content: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield each record's first line and bytes, empty lines left out."""
    taken: list[bytes] = []

    def lines() -> Iterator[str]:
        for line in io.BytesIO(content):
            taken.append(line)
            yield line.decode()

    first_line = 1
    for fields in csv.reader(lines(), strict=True):  # it takes no line more than its record has
        if fields:
            yield first_line, b"".join(taken)
        first_line += len(taken)
        taken.clear()


def _values(coupon: Coupon) -> Values:
    times = coupon.issued_at.astimezone(UTC), coupon.expires_at.astimezone(UTC)
    return coupon.member_id, coupon.reward_id, coupon.value.cents, coupon.value.currency, *times
