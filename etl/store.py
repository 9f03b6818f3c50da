"""Load batches into the coupons table, and keep the ledger of what is loaded.

Which of several rows with one code stays depends on their lines alone. A row of the table that anybody else wrote or
touched (redeemed, cancelled, a newer version) always stays. Otherwise:

- `first`: the lowest line of the file stays; a row that another file brought stays as well;
- `last`: the highest line of the file stays, also against a row that a file brought which was begun before. That one
  then counts as inserted by both files, each of which brought it once;
- `fail`: the batch is not loaded.

A batch counts as inserted what it brought under a code that had no row of this file, so over all batches that is the
number of codes the file brought, however often a better line took the place of a worse one. All its other rows it
counts as skipped, and of these as conflicting those whose values are not the ones that they found under their code.
"""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from dataclasses import astuple, dataclass, field
from typing import Final

import asyncpg

from etl import ledger
from etl.copy_format import CopyRows
from etl.errors import DuplicateRowError, OtherRuleError, RangeTakenError
from etl.hold import PartClaims, hold_alone, hold_together
from etl.ledger import BatchRange, DoneRange, Gap, LedgerFile, LedgerStatus
from etl.merge import copy_into, merge, stage
from etl.settings import Duplicates
from runtime.errors import TransactionContended
from runtime.postgres import Connection, PostgresPool, Row

_CLEAN_MERGES: Final = 8
_ORIGINS_MAX: Final = 100

# Codes that have a committed row. A list that is one text costs the driver nothing.
_TAKEN: Final = """
select array(
    select asked.code from unnest(string_to_array($1, ',')) as asked(code)
    where exists (select from coupons where coupons.code = asked.code)
)
"""

_ORIGINS: Final = """
select fresh.source_line, known.source, known.source_line as known_line
from etl_batch as fresh join coupons as known using (code)
union all
select source_line, source, first_line
from (select source_line, source, min(source_line) over (partition by code) as first_line from etl_batch) as numbered
where source_line > first_line
order by source_line limit $1
"""


@dataclass(frozen=True, slots=True)
class BatchCounts:
    """What became of the rows of a batch that were not rejected; `conflicting` are some of the skipped."""

    inserted: int
    skipped: int
    conflicting: int = 0


@dataclass(frozen=True, slots=True)
class StoreStatistics:
    """How batches were loaded since the start.

    Attributes:
        copied: as one COPY.
        merged: as a COPY of what was free, and a merge of what was not, if anything.
        conflicts: how often a code that should be free was not.
    """

    copied: int
    merged: int
    conflicts: int


@dataclass(frozen=True, slots=True)
class _Batch:
    file: LedgerFile
    where: BatchRange
    rows: CopyRows
    rejected: int


@dataclass(slots=True, eq=False)
class _InHand:
    """Rows that are about to be loaded; when that has ended, whether they are."""

    rows: CopyRows
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    is_loaded: bool = False


class EtlStore:
    """The coupons table and the ledger, for one process that loads files.

    Every method raises `DependencyUnavailable` for a state of the server, such as a disk that is full. Cancellation
    rolls back. Workers share one store: whether a batch is first tried as a plain COPY, which is fastest, or its codes
    are looked up before, follows from how the batches before it went.

    Args:
        pool: Holding a file takes one of its connections, or two, each batch in hand another one.
        reach: Called with the name of the point that a crash test may want, `after-copy`: all is written, and not yet
            committed.
    """

    def __init__(self, pool: PostgresPool, *, reach: Callable[[str], None] = lambda _: None) -> None:
        self._pool = pool
        self._reach = reach
        self._in_hand: list[_InHand] = []
        self._merges_left = 0
        self._copied = self._merged = self._conflicts = 0

    def statistics(self) -> StoreStatistics:
        """Return how batches were loaded so far."""
        return StoreStatistics(self._copied, self._merged, self._conflicts)

    def hold_file(self, content_sha256: bytes) -> AbstractAsyncContextManager[None]:
        """Keep all other processes from loading the same content for the length of a block: see `hold_alone`."""
        return hold_alone(self._pool, content_sha256)

    def share_file(
        self, content_sha256: bytes, *, lease_seconds: float, stuck_seconds: float
    ) -> AbstractAsyncContextManager[PartClaims]:
        """Load a content together with other processes for the length of a block: see `hold_together`."""
        return hold_together(self._pool, content_sha256, lease_seconds=lease_seconds, stuck_seconds=stuck_seconds)

    async def open_file(
        self, content_sha256: bytes, content_bytes: int, name: str, duplicates: Duplicates
    ) -> LedgerFile:
        """Return what the ledger knows of a content, which is now known to it. Idempotent.

        Raises:
            OtherRuleError: The file was begun with another rule.
        """
        row = await self._pool.fetch_row(ledger.FIND, content_sha256)
        if row is None:
            name = ledger.bounded_name(name)
            await self._pool.execute(ledger.OPEN, content_sha256, content_bytes, name, duplicates)
            row = await self._pool.fetch_row(ledger.FIND, content_sha256)
        assert row is not None  # noqa: S101 - nobody may delete it
        if row["duplicates"] != duplicates:
            raise OtherRuleError(row["duplicates"], duplicates)
        file_id = row["file_id"]
        return LedgerFile(file_id, row["state"] == "loaded", Duplicates(row["duplicates"]), await self.done(file_id))

    async def load_batch(self, file: LedgerFile, where: BatchRange, rows: CopyRows, *, rejected: int) -> BatchCounts:
        """Load a batch and its entry in the ledger, both or neither, and return what became of its rows.

        A batch that was loaded before, perhaps by a try whose commit was not answered, changes nothing, and its counts
        of then are returned: after `DependencyUnavailable` the same call may be repeated.

        Args:
            file: As `open_file` returned it.
            where: The bytes and lines that the batch accounts for, those of rejected rows as well.
            rows: The good ones.
            rejected: How many more there were.

        Raises:
            RangeTakenError: Some of the bytes were loaded in a batch with other borders.
            DuplicateRowError: The rule is `fail`, and a code is taken.
            asyncpg.PostgresError: The table does not take one of the rows, whatever the others are.
        """
        batch = _Batch(file, where, rows, rejected)
        if file.duplicates is Duplicates.FAIL:
            return await self._copy_or_fail(batch)
        with self._in_hand_before(rows) as before:
            if self._merges_left == 0:
                counts = await self._try_copy(batch, await asyncio.to_thread(rows.encode), None)
                if counts is not None:
                    self._copied += 1
                    return counts
            counts = await self._copy_free(batch, before)
            if counts is None:
                counts = await self._pool.transaction(self._load, batch, None, rows)
        self._merged += 1
        self._merges_left = _CLEAN_MERGES if counts.skipped else max(0, self._merges_left - 1)
        return counts

    async def done(self, file_id: int) -> tuple[DoneRange, ...]:
        """Return what is loaded of a file, in its order."""
        return tuple(DoneRange(*row) for row in await self._pool.fetch(ledger.DONE, file_id))

    async def done_within(self, file_id: int, part: Gap) -> tuple[DoneRange, ...]:
        """Return what is loaded of a part of a file; the first and last range may reach beyond it."""
        rows = await self._pool.fetch(ledger.DONE_WITHIN, file_id, part.byte_start, part.byte_end)
        return tuple(DoneRange(*row) for row in rows)

    async def rejected(self, file_id: int) -> int:
        """Return how many rows of a file are rejected so far, whoever did it."""
        row = await self._pool.fetch_row(ledger.REJECTED, file_id)
        assert row is not None  # noqa: S101 - an aggregate
        rejected: int = row[0]
        return rejected

    async def finish_file(self, file: LedgerFile, rows_start: int) -> bool:
        """Mark a file as loaded if all of it is, from the byte where its rows begin; return whether. Idempotent."""
        return await self._pool.execute(ledger.FINISH, file.file_id, rows_start) == "UPDATE 1"

    async def status(self, content_sha256: bytes) -> LedgerStatus | None:
        """Return what the ledger knows of a content, or None."""
        row = await self._pool.fetch_row(ledger.FIND, content_sha256)
        if row is None:
            return None
        done = await self.done(row["file_id"])
        return LedgerStatus(
            file_id=row["file_id"],
            name=row["name"],
            content_bytes=row["content_bytes"],
            duplicates=Duplicates(row["duplicates"]),
            state=row["state"],
            created_at=row["created_at"],
            loaded_at=row["loaded_at"],
            inserted=sum(one.inserted for one in done),
            skipped=sum(one.skipped for one in done),
            conflicting=sum(one.conflicting for one in done),
            rejected=sum(one.rejected for one in done),
            gaps=() if row["state"] == "loaded" else _gaps(done, row["content_bytes"]),
        )

    @contextmanager
    def _in_hand_before(self, rows: CopyRows) -> Iterator[list[_InHand]]:
        """Have rows in hand for the length of a block, which gets those that came before.

        Batches wait for earlier ones only, so never in a circle.
        """
        before, own = list(self._in_hand), _InHand(rows)
        self._in_hand.append(own)
        try:
            yield before
            own.is_loaded = True
        finally:
            self._in_hand.remove(own)
            own.ended.set()

    async def _copy_free(self, batch: _Batch, before: list[_InHand]) -> BatchCounts | None:
        """Copy a row for each code that nobody has, and merge the others, each of which costs more.

        A batch before this one that brings some of its codes is waited for, before the transaction: within it the
        database would wait, and the COPY fail. All else is done meanwhile. Return None if those codes did not come.
        """
        earlier = [other for other in before if not other.ended.is_set()]
        row = await self._pool.fetch_row(_TAKEN, ",".join(batch.rows.codes()))
        assert row is not None  # noqa: S101 - a select without a from
        taken: list[str] = row[0]
        awaited = []
        for other in earlier:
            common = await asyncio.to_thread(batch.rows.codes_in, other.rows)
            if common:
                taken += common
                awaited.append(other)
        free, others = await asyncio.to_thread(batch.rows.split, taken, batch.file.duplicates)
        copy_bytes = await asyncio.to_thread(free.encode)
        for other in awaited:
            await other.ended.wait()
        if not all(other.is_loaded for other in awaited):
            return None
        return await self._try_copy(batch, copy_bytes, others)

    async def _try_copy(self, batch: _Batch, copy_bytes: bytes, others: CopyRows | None) -> BatchCounts | None:
        """Load a batch unless somebody else has, or is about to have, codes that should be free."""
        try:
            return await self._pool.transaction(self._load, batch, copy_bytes, others, retries=0)
        except (asyncpg.UniqueViolationError, TransactionContended):
            # Contended: somebody who does not take codes in their order.
            self._conflicts += 1
            self._merges_left = _CLEAN_MERGES
            return None

    async def _copy_or_fail(self, batch: _Batch) -> BatchCounts:
        copy_bytes = await asyncio.to_thread(batch.rows.encode)
        try:
            counts = await self._pool.transaction(self._load, batch, copy_bytes, None)
        except asyncpg.UniqueViolationError as error:
            self._conflicts += 1
            raise DuplicateRowError(await self._pool.transaction(self._find_origins, batch)) from error
        self._copied += 1
        return counts

    async def _load(
        self, connection: Connection, batch: _Batch, copy_bytes: bytes | None, others: CopyRows | None
    ) -> BatchCounts:
        """Load a batch and its entry: the bytes of rows whose codes are free, and others, which are merged."""
        known = await self._claim(connection, batch)
        if known is not None:
            return known
        inserted, conflicting = len(batch.rows) - (0 if others is None else len(others)), 0
        if copy_bytes is not None:
            await copy_into(connection, "coupons", copy_bytes, inserted)
        if others:
            merged, conflicting = await merge(connection, batch.file.duplicates, others)
            inserted += merged
        counts = BatchCounts(inserted, len(batch.rows) - inserted, conflicting)
        if counts.skipped:
            await connection.execute(ledger.COUNT, batch.file.file_id, batch.where.byte_start, *astuple(counts))
        self._reach("after-copy")
        return counts

    async def _claim(self, connection: Connection, batch: _Batch) -> BatchCounts | None:
        """Enter a batch in the ledger as if all of it came in; if it is there, return the counts of then."""
        file_id, where = batch.file.file_id, batch.where
        bounds = (where.byte_start, where.byte_end, where.line_start, where.line_end)
        if await connection.execute(ledger.CLAIM, file_id, *bounds, len(batch.rows), batch.rejected) == "INSERT 0 1":
            return None
        row: Row | None = await connection.fetchrow(ledger.CLAIMED, file_id, where.byte_start, where.byte_end)
        if row is None:
            raise RangeTakenError(where.byte_start, where.byte_end)
        return BatchCounts(*row)

    async def _find_origins(self, connection: Connection, batch: _Batch) -> dict[int, str]:
        await stage(connection, batch.rows)
        rows = await connection.fetch(_ORIGINS, _ORIGINS_MAX)
        return {
            line: f"line {known_line}" if source == batch.file.source else source for line, source, known_line in rows
        }


def _gaps(done: tuple[DoneRange, ...], content_bytes: int) -> tuple[tuple[int, int], ...]:
    return tuple((gap.byte_start, gap.byte_end) for gap in ledger.gaps_of(Gap(0, content_bytes, 1), done))
