"""Coupons as CSV, good and bad, and a slow reader of them: one row at a time, by the business's own types."""

import csv
import io
import re
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Final

from etl.block import Block
from etl.header import COLUMNS, Header
from etl.records import scan_records
from loyalty.coupon import Coupon
from loyalty.event import TIME_PATTERN, TIMES_BEGIN, TIMES_END
from loyalty.money import Money

HEADER: Final = Header(COLUMNS)
GOOD: Final = ("0123456789ABCDEF", "m-1", "rw-1", "250", "EUR", "2026-01-01T00:00:00Z", "2027-01-01T00:00:00Z")

_CROCKFORD: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_BEGIN: Final = datetime(2026, 1, 1, tzinfo=UTC)


def block_of(data: bytes, *, byte_start: int = 0, first_line: int = 1) -> Block:
    """Return bytes as a block."""
    return Block(data, byte_start, first_line)


def good_with(**changes: str) -> list[str]:
    """Return a good row's fields with some changed."""
    return [changes.get(name, value) for name, value in zip(COLUMNS, GOOD, strict=True)]


def good_rows(rows: int, seed: int) -> list[list[str]]:
    """Return the fields of good rows; the same seed gives the same."""
    rng = Random(seed)
    return [_good_row(rng) for _ in range(rows)]


def _good_row(rng: Random) -> list[str]:
    issued_at = _BEGIN + timedelta(microseconds=rng.randrange(10**14))
    return [
        "".join(rng.choices(_CROCKFORD, k=16)),
        f"m-{rng.randrange(10**6)}",
        f"rw-{rng.randrange(300)}",
        str(rng.randrange(100_000)),
        rng.choice(("EUR", "USD", "JPY")),
        issued_at.isoformat(),
        (issued_at + timedelta(days=rng.randint(1, 400))).strftime("%Y-%m-%dT%H:%M:%SZ"),
    ]


def lines_of(rows: Iterable[Sequence[str]], *, is_quoted: bool = False, line_end: str = "\n") -> bytes:
    """Write rows as CSV, quoted where they must be or everywhere."""
    text = io.StringIO(newline="")
    csv.writer(text, "unix" if is_quoted else "excel", lineterminator=line_end).writerows(rows)
    return text.getvalue().encode()


def read_slowly(block: Block, header: Header) -> tuple[list[tuple[int, Coupon]], list[tuple[int, bytes]]]:
    """Return the good rows with their lines, and the lines and bytes of the others, by Python's own csv reader."""
    good: list[tuple[int, Coupon]] = []
    bad: list[tuple[int, bytes]] = []
    records = scan_records(block)
    for place, line in enumerate(records.lines.tolist()):
        raw = block.data[records.starts[place] : records.ends[place]]
        coupon = None if place in records.faults else read_coupon(raw.decode(), header)
        if coupon is None:
            bad.append((line, raw))
        else:
            good.append((line, coupon))
    return good, bad


def read_coupon(record: str, header: Header) -> Coupon | None:
    """Return the coupon of one record, or None if it breaks a rule of the business."""
    (values,) = csv.reader(io.StringIO(record, newline=""), strict=True)
    if len(values) != len(COLUMNS):
        return None
    named = dict(zip(header.columns, values, strict=True))
    if re.fullmatch("0|[1-9][0-9]*", named["value_cents"]) is None:
        return None
    try:
        return Coupon(
            code=named["code"],
            member_id=named["member_id"],
            reward_id=named["reward_id"],
            redemption_id=None,
            value=Money(int(named["value_cents"]), named["currency"]),
            issued_at=_time(named["issued_at"]),
            expires_at=_time(named["expires_at"]),
        )
    except ValueError:
        return None


def _time(text: str) -> datetime:
    time = datetime.fromisoformat(text)
    if re.fullmatch(TIME_PATTERN, text) is None or not TIMES_BEGIN <= time < TIMES_END:
        raise ValueError
    return time
