r"""Whole records of a file, cut into blocks: what one worker loads in one transaction.

A record ends at the first line feed outside of quotes, as Python's strict csv reader has it. Two rules bound the damage
of a bad one. One with text behind a closing quote ends at the next line feed. One that does not end within the limit of
a record ends at its first line feed, wherever that is: so a quote that is never closed costs one line, and a line that
is too long is one bad record. A carriage return outside of quotes is plain data here, but in front of a line feed.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from etl.errors import FileRefusedError

RECORD_BYTES_MAX: Final = 65_536
TEXT_BEHIND_QUOTE: Final = "text behind a closing quote"
NEVER_CLOSED: Final = "quote never closed"
BARE_RETURN: Final = "carriage return that is not part of a line end"
TOO_LONG: Final = "record too long"

LINE_FEED: Final = 10
RETURN: Final = 13
_QUOTE: Final = 34
_LONGEST_LINE: Final = 16  # in limits of a record: beyond it, this is no file of records

_QUOTED: Final = re.compile(rb'"[^"]*+(?:""[^"]*+)*+"')
# A record without a comma or a quote in quotes: nearly all of them, also where a few others need the strict scanner.
_SIMPLE: Final = re.compile(rb'(?:"[^",]*+"|[^",\r\n]*+)(?:,(?:"[^",]*+"|[^",\r\n]*+))*+\r?\n')
_MAY_PRECEDE: Final = np.isin(np.arange(256), np.frombuffer(b'",\n', np.uint8))
_MAY_FOLLOW: Final = np.isin(np.arange(256), np.frombuffer(b'",\n', np.uint8))


@dataclass(frozen=True, slots=True)
class Block:
    r"""A run of whole records.

    Attributes:
        data: the records with their line ends; the file's last one may have none.
        byte_start: where it begins in the file, after decompression.
        first_line: the number of its first line; the file's first line is 1. A line ends with `\\n`, also where that is
            inside of a quoted field, so that an editor and `sed -n` count alike.
        lines: how many lines it has; what has no line feed at the end of the file is one.
    """

    data: bytes = field(repr=False)
    byte_start: int
    first_line: int
    lines: int = field(init=False)

    def __post_init__(self) -> None:
        """Count the lines, once: the data may be long."""
        object.__setattr__(self, "lines", self.data.count(b"\n") + (not self.data.endswith(b"\n")))

    @property
    def byte_end(self) -> int:
        """Where the next block begins."""
        return self.byte_start + len(self.data)

    @property
    def next_line(self) -> int:
        """The number of the line that the next block begins with."""
        return self.first_line + self.lines


class StrictRecord(NamedTuple):
    """What the strict scanner says of one record: where its line end is, how many fields it has, what is wrong."""

    end: int
    fields: int
    fault: str | None


@dataclass(frozen=True, slots=True)
class Layout:
    """Where the records of some bytes end.

    Attributes:
        ends: the line feed of each record and of each empty line; the length of the bytes, if the last has none.
        quotes: where quotes are, if all of them are where they belong: then one is open behind an odd number of them.
        strict: what the strict scanner found, one item an end, if some are not.
    """

    ends: NDArray[np.int64]
    quotes: NDArray[np.int64]
    strict: list[StrictRecord] | None = None

    def outside(self, positions: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return those of some ascending positions at which no quote is open."""
        if not self.quotes.size:
            return positions
        found: NDArray[np.int64] = positions[np.searchsorted(self.quotes, positions) & 1 == 0]
        return found


def lay_out(data: bytes, record_bytes_max: int, *, is_last: bool) -> Layout:
    """Find the ends of the records of bytes that begin with a record.

    Args:
        data: a part of a file.
        record_bytes_max: the most bytes of a record, up to its line feed.
        is_last: nothing follows; otherwise, ends that hang on what follows are left out.
    """
    octets = np.frombuffer(data, np.uint8)
    line_feeds = np.flatnonzero(octets == LINE_FEED)
    quotes = np.flatnonzero(octets == _QUOTE) if b'"' in data else line_feeds[:0]
    layout = Layout(line_feeds, quotes)
    ends = layout.outside(line_feeds)
    if quotes.size:
        is_cut = is_last and (quotes.size % 2 == 1 or data.endswith(b"\r"))
        if is_cut or not _belong(data, quotes) or _lengths(ends, len(data)).max() > record_bytes_max:
            return _scan(data, record_bytes_max, is_last=is_last)
    if is_last and data and not (ends.size and ends[-1] == len(data) - 1):
        ends = np.append(ends, len(data))
    return Layout(ends, quotes)


def _belong(data: bytes, quotes: NDArray[np.int64]) -> bool:
    """Tell whether every quote opens a field, closes one or is doubled, if they do so in turn."""
    padded = np.frombuffer(b"\n%b\n\n" % data, np.uint8)
    if not _MAY_PRECEDE[padded[quotes[::2]]].all():
        return False
    closing = quotes[1::2]
    behind = padded[closing + 2]
    return bool((_MAY_FOLLOW[behind] | ((behind == RETURN) & (padded[closing + 3] == LINE_FEED))).all())


def _lengths(ends: NDArray[np.int64], size: int) -> NDArray[np.int64]:
    """Return the lengths of records, and of what is behind the last."""
    return np.diff(ends, prepend=-1, append=size) - 1


def _scan(data: bytes, record_bytes_max: int, *, is_last: bool) -> Layout:
    found = []
    start = 0
    while start < len(data):
        record = _read_record(data, start, record_bytes_max, is_last=is_last)
        if record is None:
            break
        found.append(record)
        start = record.end + 1
    return Layout(np.array([one.end for one in found], np.int64), np.empty(0, np.int64), found)


def _read_record(data: bytes, start: int, record_bytes_max: int, *, is_last: bool) -> StrictRecord | None:
    """Return the record that begins at `start`, or None if what follows the bytes decides where it ends."""
    stop = start + record_bytes_max + 1
    if simple := _SIMPLE.match(data, start, stop):
        return StrictRecord(simple.end() - 1, data.count(b",", start, simple.end()) + 1, None)
    first = _line_end(data, start)
    if first - start > record_bytes_max:
        record = StrictRecord(first, 0, TOO_LONG)
    else:
        record = _read_fields(data, start, first, stop)
        if record.end - start > record_bytes_max or (record.fault is NEVER_CLOSED and is_last):
            record = StrictRecord(first, 0, NEVER_CLOSED)
    return record if record.end < len(data) or is_last else None


def _read_fields(data: bytes, start: int, line_end: int, stop: int) -> StrictRecord:
    """Read a record field by field; one whose quote is not closed before `stop` ends with the bytes."""
    at, fields, fault = start, 1, None
    while True:
        if data[at : at + 1] != b'"':
            comma = data.find(b",", at, line_end)
            field_end = _content_end(data, at, line_end) if comma < 0 else comma
            if data.find(b"\r", at, field_end) >= 0:
                fault = BARE_RETURN
            if comma < 0:
                return StrictRecord(line_end, fields, fault)
            at = comma + 1
        else:
            quoted = _QUOTED.match(data, at, stop)
            if quoted is None:
                return StrictRecord(len(data), 0, NEVER_CLOSED)
            at = quoted.end()
            if at > line_end:
                line_end = _line_end(data, at)
            if at == _content_end(data, at, line_end):
                return StrictRecord(line_end, fields, fault)
            if data[at : at + 1] != b",":
                return StrictRecord(line_end, 0, TEXT_BEHIND_QUOTE)
            at += 1
        fields += 1


def _line_end(data: bytes, start: int) -> int:
    found = data.find(b"\n", start)
    return found if found >= 0 else len(data)


def _content_end(data: bytes, start: int, line_end: int) -> int:
    """Return where a line's content ends: before its carriage return, if a line feed follows that."""
    return line_end - 1 if start < line_end < len(data) and data[line_end - 1] == RETURN else line_end


class BlockCutter:
    """Cuts the bytes of a file into blocks of whole records; for one task.

    The blocks hold every byte once and in order, none is empty, and where they are cut does not hang on how the bytes
    came: each is the longest run of records within both limits, or one record. Cutting again from any block's start
    gives the same rest. What waits in memory is at most `bytes_max`, a line and what was fed last.

    Args:
        rows_max: the most records a block; an empty line counts as one here.
        bytes_max: the most bytes a block, if it has more than one record.
        record_bytes_max: the most bytes of a record, up to its line feed.
        byte_start: where the bytes that will be fed begin in the file.
        first_line: the number of the line they begin with.

    Raises:
        ValueError: A limit is below 1.
    """

    def __init__(
        self, *, rows_max: int, bytes_max: int, record_bytes_max: int, byte_start: int = 0, first_line: int = 1
    ) -> None:
        for name, value in (("rows_max", rows_max), ("bytes_max", bytes_max), ("record_bytes_max", record_bytes_max)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, not {value}")
        self._rows_max = rows_max
        self._bytes_max = bytes_max
        self._record_bytes_max = record_bytes_max
        self._byte_start = byte_start
        self._line = first_line
        self._data = b""
        # Of the records at the begin of the data that are known to be whole.
        self._ends = np.empty(0, np.int64)

    def feed(self, chunk: bytes) -> Iterator[Block]:
        """Take the next bytes and yield the blocks that are complete by them; the iterator must be exhausted.

        Raises:
            FileRefusedError: A line is longer than 16 records may be.
        """
        self._data += chunk
        return self._cut(is_last=False)

    def finish(self) -> Iterator[Block]:
        """Yield what is left: the file ends here. The iterator must be exhausted.

        Raises:
            FileRefusedError: A line is longer than 16 records may be.
        """
        return self._cut(is_last=True)

    def _cut(self, *, is_last: bool) -> Iterator[Block]:
        self._find_ends(is_last=is_last)
        ends, start, done = self._ends, 0, 0
        while done < ends.size:
            by_bytes = int(np.searchsorted(ends, start + self._bytes_max))
            until = max(done + 1, min(done + self._rows_max, by_bytes))
            is_full = until - done == self._rows_max or by_bytes < ends.size
            if not (is_full or is_last):
                break
            data = self._data[start : int(ends[until - 1]) + 1]
            block = Block(data, self._byte_start + start, self._line)
            start, done, self._line = start + len(data), until, block.next_line
            yield block
        self._data = self._data[start:]
        self._byte_start += start
        self._ends = ends[done:] - start

    def _find_ends(self, *, is_last: bool) -> None:
        known = int(self._ends[-1]) + 1 if self._ends.size else 0
        rest = self._data[known:]
        found = lay_out(rest, self._record_bytes_max, is_last=is_last).ends
        most = _LONGEST_LINE * self._record_bytes_max
        lengths = _lengths(found, len(rest))
        longest = int(lengths.argmax())
        if lengths[longest] > most:
            begin = known + (int(found[longest - 1]) + 1 if longest else 0)
            line = self._line + self._data.count(b"\n", 0, begin)
            raise FileRefusedError(f"line {line} is longer than {most} bytes: this is no file of records")
        self._ends = np.concatenate((self._ends, found + known))
