"""Cut what is not loaded yet of a file into batches, in its order."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence

from etl.block import Block, BlockCutter
from etl.header import Header, read_header
from etl.ledger import Gap
from etl.settings import EtlSettings, LoadOptions
from etl.source import Source


class Feeder:
    """One file's header and batches; for one task. What blocks runs in threads.

    A file is cut anew at each start, with the batch size of that time: whatever was loaded before is left out, byte for
    byte, because a range that is done begins and ends between two records.
    """

    def __init__(self, source: Source, settings: EtlSettings, options: LoadOptions) -> None:
        self._source = source
        self._settings = settings
        self._options = options

    @property
    def content_sha256(self) -> bytes:
        """What the ledger knows the file by."""
        return self._source.content_sha256

    async def read_header(self) -> tuple[Header, Gap]:
        """Return the columns, and the part of the file that holds the rows.

        Raises:
            FileRefusedError: It has no header, or another one.
        """
        return await asyncio.to_thread(self._read_header)

    async def blocks(self, gaps: Sequence[Gap]) -> AsyncIterator[Block]:
        """Yield the blocks of some gaps, in the order of the file; at most a piece of it is read ahead.

        Raises:
            FileChangedError: The file is not what it was when it was opened; what was yielded before is as it was then.
        """
        for gap in gaps:
            found = self._cut(gap, self._options.batch_rows, self._options.batch_bytes)
            while (block := await asyncio.to_thread(next, found, None)) is not None:
                yield block

    async def runs(self, rows: Gap, bytes_max: int) -> AsyncIterator[Block]:
        """Yield the longest runs of records within so many bytes: the same ones whatever the options are.

        Raises:
            FileChangedError: The file is not what it was when it was opened.
        """
        found = self._cut(rows, bytes_max, bytes_max)
        while (block := await asyncio.to_thread(next, found, None)) is not None:
            yield block

    def _read_header(self) -> tuple[Header, Gap]:
        source = self._source
        cutter = self._cutter(source.content_start, 1, 1, self._options.batch_bytes)
        for piece in source.pieces(source.content_start, source.content_bytes):
            for block in cutter.feed(piece):
                return self._header(block)
        for block in cutter.finish():
            return self._header(block)
        return read_header(b""), Gap(0, 0, 1)

    def _header(self, block: Block) -> tuple[Header, Gap]:
        header = read_header(block.data.removesuffix(b"\n").removesuffix(b"\r"))
        return header, Gap(block.byte_end, self._source.content_bytes, block.next_line)

    def _cut(self, gap: Gap, rows_max: int, bytes_max: int) -> Iterator[Block]:
        cutter = self._cutter(gap.byte_start, gap.first_line, rows_max, bytes_max)
        for piece in self._source.pieces(gap.byte_start, gap.byte_end):
            yield from cutter.feed(piece)
        yield from cutter.finish()

    def _cutter(self, byte_start: int, first_line: int, rows_max: int, bytes_max: int) -> BlockCutter:
        return BlockCutter(
            rows_max=rows_max,
            bytes_max=bytes_max,
            record_bytes_max=self._settings.record_bytes_max,
            byte_start=byte_start,
            first_line=first_line,
        )
