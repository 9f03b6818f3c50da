"""The books of loaded files: what the table, the ledger and the reject files hold of them, against the files' rows."""

import csv
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import accumulate, pairwise

from sandbox.coupon_file import HEADER, CouponFile, FileRow
from sandbox.difference import unequal
from sandbox.load_holdings import LoadedCoupon, LoadedFile, LoadedRange, LoadHoldings

_FIRST_LINE = 2


@dataclass(frozen=True, slots=True)
class LoadCounts:
    """What the audit found of loaded files.

    Attributes:
        rows: the rows of those that the journal tells of.
        coupons: the coupons that are stored of them.
        rejected: their rejects.
        of_others: the coupons that are stored of files that somebody else has loaded.
    """

    rows: int
    coupons: int
    rejected: int
    of_others: int

    def __str__(self) -> str:
        others = f", and {self.of_others} that others loaded" if self.of_others else ""
        return f"{self.coupons} coupons from files ({self.rows} rows, {self.rejected} rejects){others}"


class LoadBooks:
    """The links between files of coupons and what was made of them; each method yields its differences.

    Of a file in the journal every row is held against the file, which its numbers make again. A load that did not come
    to its end is held against the part that the ledger says is done. Of a file that somebody else loaded there is only
    the ledger to hold its coupons against.

    Args:
        files: those that the journal tells of, and whether it was told that they are loaded.
        holdings: what is there of them.
    """

    def __init__(self, files: Mapping[CouponFile, bool], holdings: LoadHoldings) -> None:
        self._holdings = holdings
        self._files = [_File(file, is_told, holdings) for file, is_told in files.items()]

    def counts(self) -> LoadCounts | None:
        """Return what was found; None where there are no files."""
        others = self._others()
        if not self._files and not others:
            return None
        return LoadCounts(
            rows=sum(len(file.rows) for file in self._files),
            coupons=sum(len(file.coupons) for file in self._files),
            rejected=sum(len(file.rejects) for file in self._files),
            of_others=sum(other.coupons for other in others),
        )

    def differences(self) -> Iterator[str]:
        """Yield the differences of all files."""
        if self._holdings.strays:
            yield f"{self._holdings.strays} coupons came from nowhere: the ledger does not know their files"
        for file in self._files:
            for link in (file.ledger, file.told, file.stored, file.rejected):
                yield from link()
        yield from self._of_others()

    def _others(self) -> list[LoadedFile]:
        known = {file.content_sha256 for file in self._files}
        return [file for sha256, file in self._holdings.files.items() if sha256 not in known]

    def _of_others(self) -> Iterator[str]:
        """A file brought as many coupons as it says, unless a later one took some of them over."""
        may_be_overtaken = any(file.duplicates == "last" for file in self._holdings.files.values())
        for file in self._others():
            inserted = sum(one.inserted for one in file.ranges)
            if file.coupons > inserted or (file.coupons < inserted and not may_be_overtaken):
                yield f"file {file.file_id} has {file.coupons} coupons instead of {inserted}"


class _File:
    """One file of the journal, and what is there of it."""

    def __init__(self, file: CouponFile, is_told: bool, holdings: LoadHoldings) -> None:
        content = file.content()
        self.rows = dict(enumerate(file.made(), _FIRST_LINE))
        self.content_sha256 = hashlib.sha256(content).digest()
        self.coupons = holdings.coupons.get(self.content_sha256, ())
        self.rejects = holdings.rejects.get(self.content_sha256, ())
        self._name = f"the file of seed {file.seed}"
        self._is_told = is_told
        self._size = len(content)
        # Where each line begins, from the first row's on, and where the last one ends.
        lengths = (len(row.raw) for row in self.rows.values())
        self._begins = dict(enumerate(accumulate(lengths, initial=len(HEADER)), _FIRST_LINE))
        self._known = holdings.files.get(self.content_sha256)
        self._ranges: Sequence[LoadedRange] = () if self._known is None else self._known.ranges
        done = {line for one in self._ranges for line in range(one.line_start, one.line_end)}
        self._done = sorted(done & self.rows.keys())
        self._expected: dict[str, LoadedCoupon] = {}
        for line in self._done:
            code = self.rows[line].code
            if code is not None and code not in self._expected:
                self._expected[code] = _coupon(self.rows[line], line)

    def ledger(self) -> Iterator[str]:
        """The parts in the ledger are whole lines, lie apart, and have the counts of their rows."""
        if any(one.byte_end > other.byte_start for one, other in pairwise(self._ranges)):
            yield f"{self._name} has parts that overlap"
        for one in self._ranges:
            what = f"{self._name}, lines {one.line_start} to {one.line_end},"
            if not (one.line_start in self.rows and one.line_start < one.line_end and one.line_end in self._begins):
                yield f"{what} is no part of it"
                continue
            rows = [self.rows[line] for line in range(one.line_start, one.line_end)]
            bad = sum(row.code is None for row in rows)
            yield from unequal(
                what,
                {
                    "first byte": (one.byte_start, self._begins[one.line_start]),
                    "end": (one.byte_end, self._begins[one.line_end]),
                    "number of rows": (one.inserted + one.skipped + one.rejected, len(rows)),
                    "number of rejects": (one.rejected, bad),
                },
            )
        inserted = sum(one.inserted for one in self._ranges)
        yield from unequal(self._name, {"number of coupons, by the ledger,": (inserted, len(self._expected))})

    def told(self) -> Iterator[str]:
        """What was told to be loaded is loaded, all of it."""
        if not self._is_told:
            return
        if self._known is None:
            yield f"{self._name} was told to be loaded but the ledger does not know it"
            return
        facts: dict[str, tuple[object, ...]] = {
            "state": (self._known.state, "loaded"),
            "size": (self._known.content_bytes, self._size),
            "number of rows done": (len(self._done), len(self.rows)),
        }
        yield from unequal(self._name, facts)

    def stored(self) -> Iterator[str]:
        """Of each code that is done the row of its first line is there, as that line has it, and nothing else is."""
        found = {coupon.code: coupon for coupon in self.coupons}
        for code in found.keys() - self._expected.keys():
            yield f"coupon {code} came from nowhere: {self._name} has no such row, or it is not done"
        for code, right in self._expected.items():
            if code not in found:
                yield f"coupon {code} of {self._name}, line {right.source_line}, is not stored"
            elif found[code] != right:
                yield f"coupon {code} of {self._name} is {found[code]} instead of {right}"

    def rejected(self) -> Iterator[str]:
        """Each bad line that is done is in the reject file once, as it was; so is none that is good."""
        bad = {line: row.raw.rstrip(b"\n") for line, row in self.rows.items() if row.code is None}
        kept = dict(self.rejects)
        if len(kept) != len(self.rejects):
            yield f"{self._name} has {len(self.rejects)} rejects of {len(kept)} lines"
        for line in bad.keys() & set(self._done) - kept.keys():
            yield f"{self._name}, line {line}, is bad and was not kept"
        for line in sorted(kept):
            if bad.get(line) != kept[line]:
                yield f"{self._name}, line {line}, is kept as a reject and is none, or was another"


def _coupon(row: FileRow, line: int) -> LoadedCoupon:
    ((code, member_id, reward_id, cents, currency, issued_at, expires_at),) = csv.reader([row.raw.decode()])
    times = (datetime.fromisoformat(issued_at), datetime.fromisoformat(expires_at))
    return LoadedCoupon(code, member_id, reward_id, None, int(cents), currency, *times, "issued", 1, line)
