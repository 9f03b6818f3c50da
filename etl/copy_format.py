"""Write columns of coupons as PostgreSQL's binary COPY reads them."""

from typing import Final

import pyarrow as pa
from pgpq import ArrowToPostgresBinaryEncoder

from etl.coupon_batch import CouponBatch
from etl.header import COLUMNS
from loyalty.coupon import FIRST_VERSION, CouponStatus

COPY_COLUMNS: Final = (*COLUMNS, "status", "version", "source", "source_line")
"""The columns of the table that a batch's bytes hold, in this order."""

_ISSUED: Final = pa.scalar(CouponStatus.ISSUED.value)
_FIRST_VERSION: Final = pa.scalar(FIRST_VERSION, pa.int64())


def encode(batch: CouponBatch, source: str) -> bytes:
    """Return the good rows of a batch as the whole input of one COPY; none give an input without rows.

    They are in the order of their codes, so that the table's index is walked and not searched at random, and of two
    batches with codes in common one waits for the other and never both. The columns are `COPY_COLUMNS`. For a
    thread, as `read_batch`.

    Args:
        batch: the rows.
        source: what each row says of where it comes from.
    """
    coupons = batch.columns.sort_by("code")
    rows = coupons.num_rows
    columns = [
        *coupons.columns[:-1],
        pa.repeat(_ISSUED, rows),
        pa.repeat(_FIRST_VERSION, rows),
        pa.repeat(pa.scalar(source), rows),
        coupons["source_line"],
    ]
    whole = pa.RecordBatch.from_arrays(columns, COPY_COLUMNS)
    encoder = ArrowToPostgresBinaryEncoder(whole.schema)
    return b"".join((encoder.write_header(), encoder.write_batch(whole), encoder.finish()))
