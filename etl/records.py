"""Find the records of a block, and those that are none, without a Python step a byte."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from etl.block import BARE_RETURN, LINE_FEED, RECORD_BYTES_MAX, RETURN, TOO_LONG, Block, Layout, lay_out

NUL_BYTE: Final = "NUL byte"
NOT_UTF8: Final = "not UTF-8"
_COMMA: Final = 44


@dataclass(frozen=True, slots=True)
class Records:
    """Where the records of a block are, in their order; an empty line is none.

    Attributes:
        starts: where each begins, in the block's data.
        ends: where each ends, before its line end.
        lines: the number of each record's first line in the file.
        fields: how many fields each has; 0 for one with a fault.
        faults: why a record cannot be read, by its place in the arrays.
    """

    starts: NDArray[np.int64]
    ends: NDArray[np.int64]
    lines: NDArray[np.int64]
    fields: NDArray[np.int64]
    faults: Mapping[int, str]


def scan_records(block: Block, *, record_bytes_max: int = RECORD_BYTES_MAX) -> Records:
    """Find the records of a block as Python's strict csv reader does, and what is wrong with those that have a fault.

    Stricter than that reader, a record has a fault if it holds a NUL, a carriage return outside of quotes that does not
    end a line, bytes that are not UTF-8, or more bytes than may be; of several faults, one is told, always the same.
    Where a record with a fault ends, see `etl.block`.

    Args:
        block: as `BlockCutter` cuts it, by the same limit.
        record_bytes_max: the most bytes of a record, up to its line feed.
    """
    data = block.data
    octets = np.frombuffer(data, np.uint8)
    layout = lay_out(data, record_bytes_max, is_last=True)
    starts = np.concatenate((np.zeros(min(1, layout.ends.size), np.int64), layout.ends[:-1] + 1))
    ends = layout.ends - _is_crlf(octets, starts, layout.ends)
    fields = _count_fields(octets, layout, starts)
    faults = _find_faults(data, octets, layout, starts, record_bytes_max)
    fields[list(faults)] = 0
    is_record = ends > starts
    if not is_record.all():
        starts, ends, fields = starts[is_record], ends[is_record], fields[is_record]
        places = np.cumsum(is_record) - 1
        faults = {int(places[place]): reason for place, reason in faults.items()}
    lines = block.first_line + np.searchsorted(np.flatnonzero(octets == LINE_FEED), starts)
    return Records(starts, ends, lines, fields, faults)


def _find_faults(
    data: bytes, octets: NDArray[np.uint8], layout: Layout, starts: NDArray[np.int64], record_bytes_max: int
) -> dict[int, str]:
    """Return what is wrong with which line; an empty one has no fault."""
    if layout.strict is not None:
        faults = {place: one.fault for place, one in enumerate(layout.strict) if one.fault is not None}
    else:
        faults = {int(place): TOO_LONG for place in np.flatnonzero(layout.ends - starts > record_bytes_max)}
        if b"\r" in data:
            _mark(faults, starts, layout.outside(_bare_returns(octets)), BARE_RETURN)
    if b"\0" in data:
        _mark(faults, starts, np.flatnonzero(octets == 0), NUL_BYTE)
    if not _is_utf8(data):
        for place, (start, end) in enumerate(zip(starts.tolist(), layout.ends.tolist(), strict=True)):
            if not _is_utf8(data[start:end]):
                faults.setdefault(place, NOT_UTF8)
    return faults


def _is_crlf(octets: NDArray[np.uint8], starts: NDArray[np.int64], ends: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Tell which records end with a carriage return and a line feed; the last may have neither."""
    found: NDArray[np.bool_] = (ends > starts) & (octets[ends - 1] == RETURN)
    if ends.size and ends[-1] == octets.size:
        found[-1] = False
    return found


def _bare_returns(octets: NDArray[np.uint8]) -> NDArray[np.int64]:
    returns = np.flatnonzero(octets == RETURN)
    is_last = returns == octets.size - 1
    found: NDArray[np.int64] = returns[is_last | (octets[np.where(is_last, returns, returns + 1)] != LINE_FEED)]
    return found


def _count_fields(octets: NDArray[np.uint8], layout: Layout, starts: NDArray[np.int64]) -> NDArray[np.int64]:
    if layout.strict is not None:
        return np.array([one.fields for one in layout.strict], np.int64)
    commas = layout.outside(np.flatnonzero(octets == _COMMA))
    return np.searchsorted(commas, layout.ends) - np.searchsorted(commas, starts) + 1


def _mark(faults: dict[int, str], starts: NDArray[np.int64], positions: NDArray[np.int64], reason: str) -> None:
    """Give a reason to the records that hold some positions, unless they have one."""
    for place in np.unique(np.searchsorted(starts, positions, side="right") - 1):
        faults.setdefault(int(place), reason)


def _is_utf8(data: bytes) -> bool:
    if data.isascii():
        return True
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True
