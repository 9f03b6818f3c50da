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
Span: TypeAlias = tuple[int, int]
"""From a byte or line on, up to another one, which is exclusive."""


@dataclass(frozen=True, slots=True)
class GoodRow:
    """A row that may be loaded, by where it begins."""

    byte: int
    line: int
    code: str
    values: Values


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that may not; its bytes have no line end."""

    byte: int
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

    def winners(self, rule: Duplicates, spans: Iterable[Span] | None = None) -> dict[str, GoodRow]:
        """Return by its code each row that stays, of all rows or of those in some spans."""
        kept = self.good if spans is None else [row for row in self.good if is_within(row.byte, spans)]
        return {row.code: row for row in (reversed(kept) if rule is Duplicates.FIRST else kept)}

    def conflicting(self) -> set[str]:
        """Return the codes that rows with different values have."""
        values: dict[str, Values] = {}
        return {row.code for row in self.good if values.setdefault(row.code, row.values) != row.values}

    def lines(self, span: Span) -> Span:
        """Return the first line of some bytes that begin with a line, and the line behind their last one."""
        start, end = span
        return self.content.count(b"\n", 0, start) + 1, self.content.count(b"\n", 0, end - 1) + 2


def is_within(byte: int, spans: Iterable[Span]) -> bool:
    """Tell whether a byte is in one of some spans."""
    return any(start <= byte < end for start, end in spans)


def read_model(content: bytes) -> FileModel:
    """Read a file whose quotes are all in order; fields may hold line ends.

    Raises:
        csv.Error: A quote is not where it may be: what the rows are is then not for this reader to say.
    """
    records = _records(content)
    _, _, first = next(records)
    header = Header(tuple(first.decode().strip().split(",")))
    good, bad = [], []
    for byte, line, raw in records:
        record = raw.removesuffix(b"\n").removesuffix(b"\r")
        coupon = read_coupon(record.decode(), header)
        if coupon is None:
            bad.append(BadRow(byte, line, record))
        else:
            good.append(GoodRow(byte, line, coupon.code, _values(coupon)))
    return FileModel(content, good, bad)


def _records(content: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Yield each record's first byte, first line and bytes, empty lines left out."""
    taken: list[bytes] = []

    def lines() -> Iterator[str]:
        for line in io.BytesIO(content):
            taken.append(line)
            yield line.decode()

    first_byte, first_line = 0, 1
    for fields in csv.reader(lines(), strict=True):  # it takes no line more than its record has
        record = b"".join(taken)
        if fields:
            yield first_byte, first_line, record
        first_byte, first_line = first_byte + len(record), first_line + len(taken)
        taken.clear()


def _values(coupon: Coupon) -> Values:
    times = coupon.issued_at.astimezone(UTC), coupon.expires_at.astimezone(UTC)
    return coupon.member_id, coupon.reward_id, coupon.value.cents, coupon.value.currency, *times
