"""Read a block into columns of coupons, and keep apart the rows that are none.

Rows stay columns from the file to COPY: whatever costs is one call of pyarrow or numpy for all rows of a block. Only
rows that are rejected are looked at one by one.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pyarrow import csv

from etl.block import RECORD_BYTES_MAX, Block
from etl.header import COLUMNS, Header
from etl.records import Records, scan_records
from loyalty.event import TIME_PATTERN, TIMES_BEGIN, TIMES_END
from loyalty.identifier import COUPON_CODE_PATTERN, MEMBER_ID_PATTERN, REWARD_ID_PATTERN
from loyalty.money import CURRENCY_PATTERN, MAX_CENTS

TOO_FEW_FIELDS: Final = f"fewer than {len(COLUMNS)} fields"
TOO_MANY_FIELDS: Final = f"more than {len(COLUMNS)} fields"
RULES: Final = {
    "code": "code must be 16 characters of Crockford's base 32 in upper case",
    "member_id": "member_id must be a member's id",
    "reward_id": "reward_id must be a reward's id",
    "value_cents": f"value_cents must be an integer from 0 to {MAX_CENTS}",
    "currency": "currency must be three capital letters",
    "issued_at": "issued_at must be an RFC 3339 time with an offset, from 2000 to 2999",
    "expires_at": "expires_at must be an RFC 3339 time with an offset, from 2000 to 2999",
}
"""What each column must hold, in the order in which a row is judged."""
ENDS_BEFORE_IT_BEGINS: Final = "expires_at must be after issued_at"

_CENTS_PATTERN: Final = f"^(0|[1-9][0-9]{{0,{len(str(MAX_CENTS)) - 1}}})$"
# The engine's `$` is the very end, unlike that of Python's `re`.
_PATTERNS: Final = {
    "code": COUPON_CODE_PATTERN,
    "member_id": MEMBER_ID_PATTERN,
    "reward_id": REWARD_ID_PATTERN,
    "value_cents": _CENTS_PATTERN,
    "currency": CURRENCY_PATTERN,
    "issued_at": TIME_PATTERN,
    "expires_at": TIME_PATTERN,
}
_TIME: Final = pa.timestamp("us", "UTC")
_BEGIN: Final = pa.scalar(TIMES_BEGIN, _TIME)
_END: Final = pa.scalar(TIMES_END, _TIME)
COLUMNS_SCHEMA: Final = pa.schema(
    [
        ("code", pa.string()),
        ("member_id", pa.string()),
        ("reward_id", pa.string()),
        ("value_cents", pa.int64()),
        ("currency", pa.string()),
        ("issued_at", _TIME),
        ("expires_at", _TIME),
        ("source_line", pa.int64()),
    ]
)
"""The types of a batch's columns."""
_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"

Array = Any  # pyarrow has no types of its own
Bools = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Reject:
    """A row that may not be loaded.

    Attributes:
        line: the number of its first line in the file.
        raw: its bytes, without the line end.
        reason: the first rule that it breaks, never its value.
    """

    line: int
    raw: bytes
    reason: str


@dataclass(frozen=True, slots=True)
class CouponBatch:
    """The rows of a block.

    Attributes:
        columns: the good rows in the file's order: `COLUMNS`, and `source_line`. Cents are int64, times microseconds in
            UTC, all else text; nothing is null, and the rules of `loyalty.coupon` hold for every row.
        rejects: the other rows, in the file's order.
    """

    columns: pa.RecordBatch
    rejects: Sequence[Reject]

    @property
    def rows(self) -> int:
        """How many rows the block has."""
        return int(self.columns.num_rows) + len(self.rejects)


def read_batch(block: Block, header: Header, *, record_bytes_max: int = RECORD_BYTES_MAX) -> CouponBatch:
    """Read the rows of a block; the same block gives the same batch.

    For a thread: what costs releases the interpreter's lock, and nothing is shared.

    Args:
        block: as `BlockCutter` cuts it, by the same limit.
        header: which column is which.
        record_bytes_max: the most bytes of a record, up to its line feed.
    """
    records = scan_records(block, record_bytes_max=record_bytes_max)
    reasons = dict(records.faults)
    for place in np.flatnonzero(records.fields != len(COLUMNS)).tolist():
        reasons.setdefault(place, TOO_FEW_FIELDS if records.fields[place] < len(COLUMNS) else TOO_MANY_FIELDS)
    is_whole = _all_but(reasons, records)
    columns, broken = _check(_parse(block.data, records, is_whole, header))
    places = np.flatnonzero(is_whole)
    for reason, is_broken in broken.items():
        for place in places[is_broken].tolist():
            reasons.setdefault(place, reason)
    is_good = _all_but(reasons, records)
    if not is_good[places].all():
        columns = [column.filter(pa.array(is_good[places])) for column in columns]
    return CouponBatch(
        pa.RecordBatch.from_arrays([*columns, pa.array(records.lines[is_good])], schema=COLUMNS_SCHEMA),
        [
            Reject(int(records.lines[place]), block.data[records.starts[place] : records.ends[place]], reasons[place])
            for place in sorted(reasons)
        ],
    )


def _all_but(places: Collection[int], records: Records) -> Bools:
    result = np.ones(records.starts.size, np.bool_)
    result[list(places)] = False
    return result


def _parse(data: bytes, records: Records, is_whole: Bools, header: Header) -> dict[str, Array]:
    """Return the texts of the records that are whole, by column."""
    if not is_whole.any():
        return {name: pa.array([], pa.string()) for name in COLUMNS}
    if not is_whole.all():
        # Neighbours are copied together, with the line ends between them.
        edges = np.flatnonzero(np.diff(is_whole, prepend=False, append=False)).reshape(-1, 2)
        view = memoryview(data)
        runs = zip(records.starts[edges[:, 0]].tolist(), records.ends[edges[:, 1] - 1].tolist(), strict=True)
        data = b"\n".join([view[start:end] for start, end in runs])
    if data.startswith(_BYTE_ORDER_MARK):
        data = b"\n" + data  # it is text here, which the reader would drop; an empty line is no record
    table = csv.read_csv(
        pa.BufferReader(data),
        read_options=csv.ReadOptions(use_threads=False, block_size=len(data) + 1, column_names=header.columns),
        parse_options=csv.ParseOptions(newlines_in_values=True),
        convert_options=csv.ConvertOptions(column_types=dict.fromkeys(COLUMNS, pa.string()), null_values=[]),
    )
    return {name: table[name].combine_chunks() for name in COLUMNS}


def _check(texts: dict[str, Array]) -> tuple[list[Array], dict[str, Bools]]:
    """Return the columns, and who breaks each rule, in the rules' order; a value that breaks one may be null."""
    columns = dict(texts)
    broken: dict[str, Bools] = {}
    for name, text in texts.items():
        is_good = pc.match_substring_regex(text, _PATTERNS[name])
        if name == "value_cents":
            columns[name], is_good = _read_cents(text, is_good)
        elif name.endswith("_at"):
            columns[name], is_good = _read_times(text, is_good)
        broken[RULES[name]] = _is_false(is_good)
    is_after = pc.greater(columns["expires_at"], columns["issued_at"])
    return list(columns.values()), {**broken, ENDS_BEFORE_IT_BEGINS: _is_false(is_after.fill_null(True))}


def _read_cents(text: Array, is_good: Array) -> tuple[Array, Array]:
    cents = _only(text, is_good).cast(pa.int64())
    return cents, pc.less_equal(cents, MAX_CENTS).fill_null(False)


def _read_times(text: Array, is_good: Array) -> tuple[Array, Array]:
    try:
        times = _only(text, is_good).cast(_TIME)
    except pa.ArrowInvalid:  # a day that its month does not have
        times = _only(text, pc.and_(is_good, _has_date(text))).cast(_TIME)
    # An offset can carry a year as written past the bounds.
    is_within = pc.and_(pc.greater_equal(times, _BEGIN), pc.less(times, _END))
    return times, is_within.fill_null(False)


def _has_date(text: Array) -> Array:
    """Tell which texts begin with a day of the calendar; a block has few different ones."""
    days = pc.utf8_slice_codeunits(text, 0, len("2000-01-01")).dictionary_encode()
    return pa.array([_is_date(day) for day in days.dictionary.to_pylist()], pa.bool_()).take(days.indices)


def _is_date(text: str) -> bool:
    try:
        date.fromisoformat(text)
    except ValueError:
        return False
    return True


def _only(values: Array, is_good: Array) -> Array:
    return values if is_good.true_count == len(values) else pc.if_else(is_good, values, None)


def _is_false(values: Array) -> Bools:
    result: Bools = ~values.to_numpy(zero_copy_only=False)
    return result
