"""The books of loaded files are balanced for a load in order, whole or stopped, and for none with one thing wrong."""

import csv
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

import pytest

from sandbox.coupon_file import HEADER, CouponFile
from sandbox.load_books import LoadBooks
from sandbox.load_holdings import LoadedCoupon, LoadedFile, LoadedRange, LoadHoldings

FILE = CouponFile(rows=300, seed=3, bad_percent=5, duplicate_percent=10)
CONTENT = FILE.content()
SHA256 = hashlib.sha256(CONTENT).digest()
ROWS = dict(enumerate(FILE.made(), 2))
BATCH_ROWS = 70
OTHER = hashlib.sha256(b"another").digest()


class Shelf:
    """What is there of the file after a load by the rule `first`, one batch after the other; a test disturbs it."""

    def __init__(self, batches: int | None = None) -> None:
        self.coupons: dict[str, LoadedCoupon] = {}
        self.rejects: list[tuple[int, bytes]] = []
        self.ranges: list[LoadedRange] = []
        self.others: dict[bytes, LoadedFile] = {}
        self.strays = 0
        self.is_told = batches is None
        self.state = "loaded" if self.is_told else "loading"
        starts = range(2, 2 + len(ROWS), BATCH_ROWS)
        byte = len(HEADER)
        for start in list(starts)[:batches]:
            end = min(start + BATCH_ROWS, 2 + len(ROWS))
            before = len(self.coupons), len(self.rejects)
            for line in range(start, end):
                self._load(line)
            size = sum(len(ROWS[line].raw) for line in range(start, end))
            inserted, rejected = len(self.coupons) - before[0], len(self.rejects) - before[1]
            skipped = end - start - inserted - rejected
            self.ranges.append(LoadedRange(byte, byte + size, start, end, inserted, skipped, rejected))
            byte += size

    def _load(self, line: int) -> None:
        row = ROWS[line]
        if row.code is None:
            self.rejects.append((line, row.raw.rstrip(b"\n")))
        elif row.code not in self.coupons:
            ((code, member, reward, cents, currency, issued, expires),) = csv.reader([row.raw.decode()])
            times = datetime.fromisoformat(issued), datetime.fromisoformat(expires)
            coupon = LoadedCoupon(code, member, reward, None, int(cents), currency, *times, "issued", 1, line)
            self.coupons[code] = coupon

    def some_code(self) -> str:
        """Return a code that is there."""
        return sorted(self.coupons)[7]

    def coupon(self, **changes: Any) -> None:  # noqa: ANN401 - whichever field
        """Alter a stored coupon."""
        code = self.some_code()
        self.coupons[code] = replace(self.coupons[code], **changes)

    def part(self, **changes: Any) -> None:  # noqa: ANN401 - whichever field
        """Alter the second range."""
        self.ranges[1] = replace(self.ranges[1], **changes)

    def books(self) -> LoadBooks:
        """Return the books of it."""
        file = LoadedFile(1, SHA256, len(CONTENT), self.state, "first", len(self.coupons), self.ranges)
        coupons = {SHA256: list(self.coupons.values())}
        holdings = LoadHoldings({SHA256: file} | self.others, coupons, {SHA256: self.rejects}, self.strays)
        return LoadBooks({FILE: self.is_told}, holdings)


@pytest.mark.parametrize("batches", [None, 0, 1, 3])
def test_load_in_order_has_no_difference_wherever_it_was_stopped(batches: int | None) -> None:
    """A whole load is in order, and so is one that was stopped behind any batch."""
    assert list(Shelf(batches).books().differences()) == []


def test_counts_tell_of_all_that_was_looked_at() -> None:
    """The verdict's words have the rows, the coupons and the rejects of the file, and the coupons of others."""
    shelf = Shelf()
    good, bad = len(shelf.coupons), len(shelf.rejects)
    assert str(shelf.books().counts()) == f"{good} coupons from files (300 rows, {bad} rejects)"
    shelf.others[OTHER] = _other(12)
    assert str(shelf.books().counts()).endswith("rejects), and 12 that others loaded")
    assert LoadBooks({}, LoadHoldings()).counts() is None


def _other(coupons: int, duplicates: str = "first") -> LoadedFile:
    return LoadedFile(2, OTHER, 1_000, "loaded", duplicates, coupons, [LoadedRange(68, 1_000, 2, 14, 12, 0, 0)])


def _invent(shelf: Shelf) -> None:
    shelf.coupons["0" * 16] = replace(shelf.coupons[shelf.some_code()], code="0" * 16)


def _remove(shelf: Shelf) -> None:
    del shelf.coupons[shelf.some_code()]


def _take_later_line(shelf: Shelf) -> None:
    """Let a code that comes twice have its second line."""
    lines: dict[str, list[int]] = {}
    for line, row in ROWS.items():
        if row.code is not None:
            lines.setdefault(row.code, []).append(line)
    code, (_, second, *_) = next((code, all_of) for code, all_of in lines.items() if len(all_of) > 1)
    shelf.coupons[code] = replace(shelf.coupons[code], source_line=second)


def _keep_good_line(shelf: Shelf) -> None:
    line, row = next((line, row) for line, row in ROWS.items() if row.code is not None)
    shelf.rejects.append((line, row.raw.rstrip(b"\n")))


def _other_reject(shelf: Shelf) -> None:
    shelf.rejects[0] = (shelf.rejects[0][0], b"something else")


def _set_other(coupons: int) -> Callable[[Shelf], None]:
    def change(shelf: Shelf) -> None:
        shelf.others[OTHER] = _other(coupons)

    return change


BREAKS: Mapping[str, Callable[[Shelf], object]] = {
    "a coupon more": _invent,
    "a coupon fewer": _remove,
    "another amount": lambda shelf: shelf.coupon(value_cents=1),
    "another member": lambda shelf: shelf.coupon(member_id="m-nobody"),
    "another reward": lambda shelf: shelf.coupon(reward_id="rw-none"),
    "another currency": lambda shelf: shelf.coupon(currency="CHF"),
    "another end": lambda shelf: shelf.coupon(expires_at=datetime.fromisoformat("2030-01-01T00:00:00Z")),
    "another beginning": lambda shelf: shelf.coupon(issued_at=datetime.fromisoformat("2020-01-01T00:00:00Z")),
    "another line": lambda shelf: shelf.coupon(source_line=299),
    "redeemed by nobody": lambda shelf: shelf.coupon(status="redeemed"),
    "another version": lambda shelf: shelf.coupon(version=2),
    "of a redemption": lambda shelf: shelf.coupon(redemption_id="some"),
    "the later of two lines": _take_later_line,
    "a reject fewer": lambda shelf: shelf.rejects.pop(),
    "a reject twice": lambda shelf: shelf.rejects.append(shelf.rejects[0]),
    "a reject of other bytes": _other_reject,
    "a good line among the rejects": _keep_good_line,
    "a part fewer": lambda shelf: shelf.ranges.pop(),
    "a part twice": lambda shelf: shelf.ranges.insert(1, shelf.ranges[1]),
    "a part that begins in a line": lambda shelf: shelf.part(byte_start=shelf.ranges[1].byte_start + 1),
    "a part that ends in a line": lambda shelf: shelf.part(byte_end=shelf.ranges[1].byte_end - 1),
    "a part beyond the file": lambda shelf: shelf.part(line_end=1_000),
    "a row inserted more": lambda shelf: shelf.part(
        inserted=shelf.ranges[1].inserted + 1, skipped=shelf.ranges[1].skipped - 1
    ),
    "a row rejected more": lambda shelf: shelf.part(
        rejected=shelf.ranges[1].rejected + 1, skipped=shelf.ranges[1].skipped - 1
    ),
    "a row skipped more": lambda shelf: shelf.part(skipped=shelf.ranges[1].skipped + 1),
    "told, but not loaded": lambda shelf: setattr(shelf, "state", "loading"),
    "a row of a file that nobody knows": lambda shelf: setattr(shelf, "strays", 1),
    "a coupon more of another file": _set_other(13),
    "a coupon fewer of another file": _set_other(11),
}


@pytest.mark.parametrize("name", BREAKS)
def test_one_thing_wrong_is_a_difference(name: str) -> None:
    """Each single change to the table, the ledger or the rejects is found."""
    shelf = Shelf()
    BREAKS[name](shelf)
    assert list(shelf.books().differences())


def test_file_that_was_told_and_is_unknown_is_a_difference() -> None:
    """A load that was told to be done, and of which there is nothing, is found."""
    assert list(LoadBooks({FILE: True}, LoadHoldings()).differences())
    assert list(LoadBooks({FILE: False}, LoadHoldings()).differences()) == []


def test_row_of_another_file_may_be_taken_over_by_a_later_one() -> None:
    """By the rule `last` a file's row takes the place of an earlier file's, which then has fewer than it brought."""
    shelf = Shelf()
    shelf.others[OTHER] = _other(11, duplicates="last")
    assert list(shelf.books().differences()) == []
