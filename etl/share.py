"""Load a file together with other processes, on this machine or others: each claims parts of it, Postgres arbitrates.

Where a part begins hangs on the file's content alone, so all processes have the same ones without a word between them.
A claim decides who works on what, and never whether a row is loaded: within its part a process goes by the ledger,
batch by batch. Of one that died, or was frozen for longer than its lease, the others load the rest; and if that one
comes back, it finds what is done by then.
"""

from bisect import bisect_left, bisect_right
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from typing import Final

from etl.block import Block
from etl.errors import TooManyRejectsError
from etl.feeder import Feeder
from etl.hold import PartClaims
from etl.ledger import Gap, LedgerFile, gaps_of
from etl.processor import Processor
from etl.retry import keep_trying
from etl.settings import EtlSettings, LoadOptions
from etl.store import EtlStore
from patterns import Context, receive, select
from runtime.logs import get_logger

PARTS_MAX: Final = 1_000
"""Each part in hand is a lock in the server's memory, which has room for 64 a connection, by default 6,400 in all."""

_STEP_BYTES: Final = 1024 * 1024

_log = get_logger("etl")


class Share:
    """One process's share of a file; for one load.

    Args:
        store: where the file is loaded to.
        feeder: of the file.
        file: as `open_file` returned it.
        rows: the part of the file that holds its rows.
        settings: how large a part is, and the times of a claim.
        options: `max_rejects` counts over all processes.
    """

    def __init__(
        self, store: EtlStore, feeder: Feeder, file: LedgerFile, rows: Gap, settings: EtlSettings, options: LoadOptions
    ) -> None:
        self._store = store
        self._feeder = feeder
        self._file = file
        self._rows = rows
        self._settings = settings
        self._retry = settings.retry
        self._max_rejects = options.max_rejects
        self._parts: list[Gap] = []

    async def load(self, ctx: Context, processor: Processor) -> None:
        """Load parts until all of the file is loaded, by whomever; or until the context ends, or a batch fails.

        While others have the last parts in hand it waits until these are loaded, or free. Cancellation, and whatever
        ends the load, rolls back what is in hand and leaves it to the others.

        Raises:
            FileBusyError: Another process loads the file alone.
            TooManyRejectsError: More rows are bad than may be; those of others are looked for at each part.
            DependencyUnavailable: Postgres was away for longer than `give_up_seconds`.
            Exception: Whatever `Processor.process` raises.
        """
        gaps = gaps_of(self._rows, self._file.done)
        if gaps:
            part_bytes = max(self._settings.share.part_bytes, -(-self._rows.byte_end // PARTS_MAX))
            self._parts = await find_parts(ctx, self._feeder, self._rows, part_bytes)
        is_told = False
        while gaps and not ctx.is_done:
            await self._load_free_parts(ctx, processor, gaps)
            await self._check_rejects(ctx)
            gaps = gaps_of(self._rows, await keep_trying(ctx, self._retry, self._store.done, self._file.file_id))
            if not gaps or processor.failures:
                return  # not to wait for whoever waits for the batch that failed here
            if not is_told:
                bytes_left = sum(gap.byte_end - gap.byte_start for gap in gaps)
                _log.info("Waiting for other processes", bytes_left=bytes_left)
                is_told = True
            await select(receive(ctx.done), timeout_seconds=self._settings.share.look_seconds)

    async def _load_free_parts(self, ctx: Context, processor: Processor, gaps: Sequence[Gap]) -> None:
        share, postgres = self._settings.share, self._settings.postgres
        async with AsyncExitStack() as stack:

            async def hold() -> PartClaims:
                holding = self._store.share_file(
                    self._feeder.content_sha256,
                    lease_seconds=share.lease_seconds,
                    stuck_seconds=postgres.statement_timeout_seconds,
                )
                return await stack.enter_async_context(holding)

            claims = await keep_trying(ctx, self._retry, hold)
            await processor.process(ctx, self._blocks(ctx, claims, parts_with(self._parts, gaps)))

    async def _blocks(self, ctx: Context, claims: PartClaims, waiting: list[int]) -> AsyncIterator[Block]:
        """Yield what is not loaded of the parts that nobody else has, each claimed when it is asked for."""
        while (number := await claims.claim(waiting)) is not None:
            waiting.remove(number)
            part = self._parts[number]
            await self._check_rejects(ctx)
            done = await keep_trying(ctx, self._retry, self._store.done_within, self._file.file_id, part)
            async for block in self._feeder.blocks(gaps_of(part, done)):
                yield block

    async def _check_rejects(self, ctx: Context) -> None:
        most = self._max_rejects
        if most is None:
            return
        if await keep_trying(ctx, self._retry, self._store.rejected, self._file.file_id) > most:
            raise TooManyRejectsError(most)


async def find_parts(ctx: Context, feeder: Feeder, rows: Gap, part_bytes: int) -> list[Gap]:
    """Return some rows in parts of at least so many bytes, the last one aside; the same ones whoever asks.

    If the context ends there are fewer of them.
    """
    parts = []
    begin = rows
    async for run in feeder.runs(rows, min(part_bytes, _STEP_BYTES)):
        if run.byte_end - begin.byte_start >= part_bytes or run.byte_end == rows.byte_end:
            parts.append(Gap(begin.byte_start, run.byte_end, begin.first_line))
            begin = Gap(run.byte_end, rows.byte_end, run.next_line)
        if ctx.is_done:
            break
    return parts


def parts_with(parts: Sequence[Gap], gaps: Sequence[Gap]) -> list[int]:
    """Return the numbers of the parts that some gaps lie in, in order; the parts cover all of the gaps."""
    starts = [part.byte_start for part in parts]
    return sorted(
        {
            number
            for gap in gaps
            for number in range(bisect_right(starts, gap.byte_start) - 1, bisect_left(starts, gap.byte_end))
        }
    )
