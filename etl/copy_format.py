"""Coupons as PostgreSQL's binary COPY reads them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pgpq import ArrowToPostgresBinaryEncoder

from etl.coupon_batch import Bools, CouponBatch
from etl.header import COLUMNS
from etl.settings import Duplicates
from loyalty.coupon import FIRST_VERSION, CouponStatus

COPY_COLUMNS: Final = (*COLUMNS, "status", "version", "source", "source_line")
"""The columns of the table that a batch's bytes hold, in this order."""

_ISSUED: Final = pa.scalar(CouponStatus.ISSUED.value)
_FIRST_VERSION: Final = pa.scalar(FIRST_VERSION, pa.int64())


@dataclass(frozen=True, slots=True, eq=False)
class CopyRows:
    """Rows for the coupons table, in the order of their codes, and of their lines where a code comes again.

    So the table's index is walked and not searched at random, and of two batches with codes in common one waits for the
    other and never both. Whatever costs is for a thread, as `read_batch`.

    Attributes:
        columns: `COPY_COLUMNS`.
    """

    columns: pa.RecordBatch

    def __len__(self) -> int:
        return int(self.columns.num_rows)

    def codes(self) -> list[str]:
        """Return the code of each row."""
        codes: list[str] = self.columns["code"].to_pylist()
        return codes

    def codes_in(self, other: "CopyRows") -> list[str]:
        """Return the codes that are in both."""
        codes: list[str] = (
            self.columns["code"].filter(pc.is_in(self.columns["code"], other.columns["code"])).to_pylist()
        )
        return codes

    def split(self, taken: Sequence[str], rule: Duplicates) -> tuple["CopyRows", "CopyRows"]:
        """Return a row for each code that is not taken, the one that the rule prefers, and all other rows."""
        is_free = self._is_best(rule)
        if taken:
            is_taken = pc.is_in(self.columns["code"], pa.array(taken, pa.string()))
            is_free &= ~is_taken.to_numpy(zero_copy_only=False)
        return CopyRows(self.columns.filter(pa.array(is_free))), CopyRows(self.columns.filter(pa.array(~is_free)))

    def encode(self) -> bytes:
        """Return the whole input of one COPY; no rows give an input without rows."""
        encoder = ArrowToPostgresBinaryEncoder(self.columns.schema)
        return b"".join((encoder.write_header(), encoder.write_batch(self.columns), encoder.finish()))

    def _is_best(self, rule: Duplicates) -> Bools:
        codes = self.columns["code"]
        is_best = np.ones(len(self), np.bool_)
        if len(self) > 1:
            is_other = pc.not_equal(codes[1:], codes[:-1]).to_numpy(zero_copy_only=False)
            neighbours = is_best[:-1] if rule is Duplicates.LAST else is_best[1:]
            neighbours[:] = is_other
        return is_best


def copy_rows(batch: CouponBatch, source: str) -> CopyRows:
    """Return the good rows of a batch, with all that the table wants to know of them. For a thread.

    Args:
        batch: the rows.
        source: what each row says of where it comes from.
    """
    coupons = batch.columns.sort_by([("code", "ascending"), ("source_line", "ascending")])
    rows = coupons.num_rows
    columns = [
        *coupons.columns[:-1],
        pa.repeat(_ISSUED, rows),
        pa.repeat(_FIRST_VERSION, rows),
        pa.repeat(pa.scalar(source), rows),
        coupons["source_line"],
    ]
    return CopyRows(pa.RecordBatch.from_arrays(columns, COPY_COLUMNS))
