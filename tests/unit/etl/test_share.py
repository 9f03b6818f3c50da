"""The parts of a file: where they begin hangs on its content alone, and none is left out."""

import gzip
from itertools import pairwise
from pathlib import Path
from random import Random

import pytest

from etl.block import BlockCutter
from etl.feeder import Feeder
from etl.ledger import Gap
from etl.settings import EtlPostgresSettings, EtlSettings, LoadOptions
from etl.share import find_parts, parts_with
from etl.source import open_source
from patterns import background
from sandbox.coupon_file import HEADER

SETTINGS = EtlSettings(postgres=EtlPostgresSettings(database="d", user="u"))
PART_BYTES = 500


def content_of(seed: int) -> bytes:
    """Return a file with records of one or many lines, some of them longer than a part, and a quote never closed."""
    random = Random(seed)
    records = [b'"' + b"x\n" * random.choice([0, 1, 5, 40, 300]) + b'",a,b\r\n' for _ in range(150)]
    records.insert(random.randrange(150), b'"never closed\n')
    return HEADER + b"".join(records)


async def parts_of(path: Path, options: LoadOptions) -> tuple[Gap, list[Gap]]:
    """Return a file's rows and parts."""
    with open_source(str(path), spool_directory=path.parent, content_bytes_max=10**9) as source:
        feeder = Feeder(source, SETTINGS, options)
        _, rows = await feeder.read_header()
        return rows, await find_parts(background(), feeder, rows, PART_BYTES)


def records_of(content: bytes) -> set[tuple[int, int]]:
    """Return where the records of a file begin: byte and line."""
    cutter = BlockCutter(rows_max=1, bytes_max=1, record_bytes_max=SETTINGS.record_bytes_max)
    return {(one.byte_start, one.first_line) for one in [*cutter.feed(content), *cutter.finish()]}


@pytest.mark.parametrize("seed", range(10))
async def test_parts_are_whole_records_that_cover_all_rows_the_same_whatever_the_options_are(
    tmp_path: Path, seed: int
) -> None:
    """Plain or gzip, with large batches or small ones: each part begins with a record, behind the one before."""
    content = content_of(seed)
    path, packed = tmp_path / "a.csv", tmp_path / "a.csv.gz"
    path.write_bytes(content)
    packed.write_bytes(gzip.compress(content))
    rows, parts = await parts_of(path, LoadOptions(files=(), batch_rows=1))
    assert await parts_of(packed, LoadOptions(files=(), batch_bytes=100_000)) == (rows, parts)
    assert len(parts) > 10
    assert (parts[0].byte_start, parts[0].first_line, parts[-1].byte_end) == (rows.byte_start, 2, rows.byte_end)
    assert all(before.byte_end == behind.byte_start for before, behind in pairwise(parts))
    assert all(part.byte_end - part.byte_start >= PART_BYTES for part in parts[:-1])
    assert {(part.byte_start, part.first_line) for part in parts} <= records_of(content)


async def test_file_is_read_no_further_for_its_parts_when_the_context_has_ended(tmp_path: Path) -> None:
    """A stop does not wait for the end of a large file."""
    path = tmp_path / "a.csv"
    path.write_bytes(content_of(1))
    with open_source(str(path), spool_directory=tmp_path, content_bytes_max=10**9) as source:
        feeder = Feeder(source, SETTINGS, LoadOptions(files=()))
        _, rows = await feeder.read_header()
        ctx = background().with_cancel()
        ctx.cancel()
        assert len(await find_parts(ctx, feeder, rows, PART_BYTES)) <= 1


def test_parts_with_something_left_are_found_wherever_it_is() -> None:
    """For random gaps they are just those that have a byte in common with one."""
    random = Random(3)
    parts = [Gap(start, start + 10, 1) for start in range(50, 150, 10)]
    for _ in range(300):
        cuts = sorted(random.sample(range(50, 151), 2 * random.randint(0, 5)))
        gaps = [Gap(start, end, 1) for start, end in zip(cuts[::2], cuts[1::2], strict=True)]
        left = {byte for gap in gaps for byte in range(gap.byte_start, gap.byte_end)}
        assert parts_with(parts, gaps) == [
            number for number, part in enumerate(parts) if left & set(range(part.byte_start, part.byte_end))
        ]
