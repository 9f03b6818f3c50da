"""How the bytes of a file are cut into blocks of whole records."""

from itertools import pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from etl.block import Block, BlockCutter
from etl.errors import FileRefusedError
from etl.records import scan_records
from tests.support.csv_sample import any_csv, chunks_of

_RECORD_BYTES_MAX = 12
_many = settings(max_examples=200, deadline=None)
_csv = any_csv.filter(lambda data: max(map(len, data.split(b"\n"))) <= 16 * _RECORD_BYTES_MAX)
_limits = st.integers(1, 30)


def _cut(
    chunks: list[bytes], *, rows_max: int, bytes_max: int, byte_start: int = 0, first_line: int = 1
) -> list[Block]:
    cutter = BlockCutter(
        rows_max=rows_max,
        bytes_max=bytes_max,
        record_bytes_max=_RECORD_BYTES_MAX,
        byte_start=byte_start,
        first_line=first_line,
    )
    return [block for chunk in chunks for block in cutter.feed(chunk)] + list(cutter.finish())


def _scan(block: Block) -> list[tuple[bytes, int, int, str | None]]:
    found = scan_records(block, record_bytes_max=_RECORD_BYTES_MAX)
    bounds = zip(found.starts, found.ends, found.lines, found.fields, strict=True)
    return [
        (block.data[start:end], int(line), int(fields), found.faults.get(place))
        for place, (start, end, line, fields) in enumerate(bounds)
    ]


def _whole(data: bytes) -> Block:
    return Block(data, 0, 1)


@_many
@given(st.data(), _csv, _limits, _limits)
def test_the_blocks_hold_every_byte_once_whatever_the_chunks(
    draw: st.DataObject, data: bytes, rows_max: int, bytes_max: int
) -> None:
    """In any chunks, the same blocks come, none empty; together they are the bytes, and their lines go on."""
    blocks = _cut([data], rows_max=rows_max, bytes_max=bytes_max)

    assert _cut(draw.draw(chunks_of(data)), rows_max=rows_max, bytes_max=bytes_max) == blocks
    assert b"".join(block.data for block in blocks) == data
    assert all(block.data for block in blocks)
    assert all(block.lines == len(block.data.removesuffix(b"\n").split(b"\n")) for block in blocks)
    assert all((a.byte_end, a.next_line) == (b.byte_start, b.first_line) for a, b in pairwise(blocks))
    assert not blocks or (blocks[0].byte_start, blocks[0].first_line) == (0, 1)


@_many
@given(_csv, _limits, _limits)
@example(b'"\n0123456789abc\nx"a\n', 1, 1)
@example(b'"a\nb\nc\nd\ne\nf\ng","h\n', 2, 30)
def test_the_records_of_the_blocks_are_those_of_the_whole(data: bytes, rows_max: int, bytes_max: int) -> None:
    """No record is cut, and none has another line, other fields or another fault because of where the blocks begin."""
    blocks = _cut([data], rows_max=rows_max, bytes_max=bytes_max)

    assert [record for block in blocks for record in _scan(block)] == _scan(_whole(data))


@_many
@given(_csv, _limits, _limits)
@example(b"a\nb", 30, 30)
@example(b'a\n"b\n"', 30, 30)
def test_the_lines_of_a_block_are_those_of_its_records(data: bytes, rows_max: int, bytes_max: int) -> None:
    """Each record begins on a line of its block, and of no other one; also the last, which may have no line end."""
    for block in _cut([data], rows_max=rows_max, bytes_max=bytes_max):
        assert all(block.first_line <= line < block.next_line for _, line, _, _ in _scan(block))


@_many
@given(_csv, _limits, _limits)
def test_each_block_is_as_large_as_the_limits_let_it_be(data: bytes, rows_max: int, bytes_max: int) -> None:
    """A block is within both limits or is one record, and one more record would be beyond a limit."""
    blocks = _cut([data], rows_max=rows_max, bytes_max=bytes_max)

    ones = [len(block.data) for block in _cut([data], rows_max=1, bytes_max=1)]
    for block in blocks:
        taken = 0
        while sum(ones[:taken]) < len(block.data):
            taken += 1
        assert sum(ones[:taken]) == len(block.data)
        assert taken <= rows_max
        assert taken == 1 or len(block.data) <= bytes_max
        ones = ones[taken:]
        # What has no line feed at the end of a file counts as if it had one.
        assert not ones or taken == rows_max or len(block.data) + ones[0] + 1 > bytes_max


@_many
@given(st.data(), _csv, _limits, _limits)
def test_a_cut_from_any_block_gives_the_same_rest(
    draw: st.DataObject, data: bytes, rows_max: int, bytes_max: int
) -> None:
    """Begun anew at a block's start, the blocks from there on are the same; with other limits, the records are."""
    blocks = _cut([data], rows_max=rows_max, bytes_max=bytes_max)
    if not blocks:
        return
    at = draw.draw(st.integers(0, len(blocks) - 1))
    begin, line = blocks[at].byte_start, blocks[at].first_line
    rest = [data[begin:]]

    assert _cut(rest, rows_max=rows_max, bytes_max=bytes_max, byte_start=begin, first_line=line) == blocks[at:]
    others = _cut(rest, rows_max=draw.draw(_limits), bytes_max=draw.draw(_limits), byte_start=begin, first_line=line)
    assert [one for block in others for one in _scan(block)] == [one for block in blocks[at:] for one in _scan(block)]


def test_a_line_with_no_end_is_refused_before_it_fills_the_memory() -> None:
    """Sixteen times a record's limit is one bad record; one byte more ends the file, and its line is named."""
    longest = b"x" * (16 * _RECORD_BYTES_MAX)
    good = b"a,b\nc,d\n"

    blocks = _cut([good, longest, b"\n", good], rows_max=1, bytes_max=100)
    assert [len(_scan(block)) for block in blocks] == [1] * 5
    assert [record[3] is None for block in blocks for record in _scan(block)] == [True, True, False, True, True]
    for chunks in ([good, longest, b"x"], [good + longest + b"x\n" + good], [good, longest + b"x"]):
        with pytest.raises(FileRefusedError, match="line 3 is longer than 192 bytes"):
            _cut(chunks, rows_max=1, bytes_max=100)


@pytest.mark.parametrize("rows_max", [10, 1_000_000])
def test_what_waits_is_bounded_while_a_quote_stays_open(rows_max: int) -> None:
    """Behind a quote that is never closed, blocks come at the pace of the bytes."""
    cutter = BlockCutter(rows_max=rows_max, bytes_max=100, record_bytes_max=_RECORD_BYTES_MAX)
    fed = given_back = 0
    for chunk in [b'a,"b\n', *[b"c,d\n" * 5] * 1000]:
        fed += len(chunk)
        given_back += sum(len(block.data) for block in cutter.feed(chunk))
        assert fed - given_back <= 100 + 16 * _RECORD_BYTES_MAX + len(chunk)
    assert given_back > 10_000


@pytest.mark.parametrize("wrong", ["rows_max", "bytes_max", "record_bytes_max"])
def test_a_limit_below_one_is_refused(wrong: str) -> None:
    """The error names the limit."""
    limits = {"rows_max": 1, "bytes_max": 1, "record_bytes_max": 1} | {wrong: 0}

    with pytest.raises(ValueError, match=f"{wrong} must be at least 1"):
        BlockCutter(**limits)
