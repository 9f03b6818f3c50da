"""Load batches into the coupons table, and keep the ledger of what is loaded: all queries of the ETL but its locks.

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

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import astuple, dataclass, replace
from typing import Final

import asyncpg

from etl import ledger
from etl.copy_format import COPY_COLUMNS
from etl.errors import DuplicateRowError, OtherRuleError, RangeTakenError
from etl.hold import PartClaims, hold_alone, hold_together
from etl.ledger import BatchRange, DoneRange, Gap, LedgerFile, LedgerStatus
from etl.settings import Duplicates
from runtime.errors import TransactionContended
from runtime.postgres import Connection, PostgresPool, Row

__all__ = ["BatchCounts", "BatchRange", "DoneRange", "EtlStore", "LedgerFile", "LedgerStatus", "StoreStatistics"]

_CLEAN_MERGES: Final = 8
_ORIGINS_MAX: Final = 100

_COLUMNS: Final = ", ".join(COPY_COLUMNS)
_SETS: Final = ", ".join(
    f"{column} = fresh.{column}" for column in COPY_COLUMNS if column not in {"code", "status", "version"}
)
_UNTOUCHED: Final = "known.status = 'issued' and known.version = 1 and known.redeemed_at is null"

# Room to sort a batch in memory, whatever the server gives others.
_STAGE: Final = f"""
set local work_mem = '64MB';
create temporary table etl_batch on commit drop as select {_COLUMNS} from coupons with no data
"""  # noqa: S608 - of this file's own texts

_BEST: Final = {Duplicates.FIRST: "asc", Duplicates.LAST: "desc"}
_IS_BETTER: Final = {Duplicates.FIRST: "<", Duplicates.LAST: ">"}
_IS_TAKEN_OVER: Final = {
    Duplicates.FIRST: "false",
    # The numbers of files are in the order of their begin: whose batch comes when does not matter.
    Duplicates.LAST: f"""
        case when starts_with(known.source, 'etl:') then
            split_part(known.source, ':', 2)::bigint < split_part(excluded.source, ':', 2)::bigint else false end
        and {_UNTOUCHED}""",
}

# A conflict locks the row it meets even if it is not taken over. In the order of the codes, so that two workers cannot
# wait for one another; and so whatever `_IMPROVE` may change is locked, and newest, by then.
_INSERT: Final = {
    rule: f"""
with best as materialized (
    select distinct on (code) {_COLUMNS} from etl_batch order by code, source_line {order}
), written as (
    insert into coupons as known ({_COLUMNS}) select * from best
    on conflict (code) do update set {_SETS.replace("fresh.", "excluded.")}, updated_at = now()
    where {_IS_TAKEN_OVER[rule]}
    returning code
)
select (select count(*) from written) as inserted,
    array(select code from best where code not in (select code from written)) as met
"""  # noqa: S608 - of this file's own texts
    for rule, order in _BEST.items()
}

_DOUBLED: Final = "select array(select code from etl_batch group by code having count(*) > 1)"

_VALUES: Final = ("member_id", "reward_id", "value_cents", "currency", "issued_at", "expires_at")
# Two ways to give both tables the codes, for a plan that is made once and kept: an index looks an array up, and a scan
# would go through all of it at each row. Before `_IMPROVE`, so that of two rows the one that comes second conflicts,
# whichever is the better one.
_CONFLICTS: Final = f"""
select count(*) from etl_batch as fresh join coupons as known using (code)
where fresh.code in (select unnest($1::text[])) and known.code = any ($1::text[])
    and ({", ".join(f"fresh.{name}" for name in _VALUES)}) <> ({", ".join(f"known.{name}" for name in _VALUES)})
"""  # noqa: S608 - of this file's own texts

_IMPROVE: Final = {
    rule: f"""
update coupons as known set {_SETS}, updated_at = now()
from (
    select distinct on (code) {_COLUMNS} from etl_batch
    where code in (select unnest($1::text[])) order by code, source_line {order}
) as fresh
where known.code = fresh.code and known.code = any ($1::text[]) and known.source = fresh.source
    and fresh.source_line {_IS_BETTER[rule]} known.source_line and {_UNTOUCHED}
"""  # noqa: S608 - of this file's own texts
    for rule, order in _BEST.items()
}

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
    """How batches were loaded since the start; a conflict is a batch that had to be tried again."""

    copied: int
    merged: int
    conflicts: int


@dataclass(frozen=True, slots=True)
class _Batch:
    file: LedgerFile
    where: BatchRange
    copy_bytes: bytes
    rows: int
    rejected: int


class EtlStore:
    """The coupons table and the ledger, for one process that loads files.

    Every method raises `DependencyUnavailable` for a state of the server, such as a disk that is full. Cancellation
    rolls back. Workers share one store: whether a batch is first tried as a plain COPY, which is fastest, or at once by
    way of a temporary table, follows from how the batches before it went.

    Args:
        pool: Holding a file takes one of its connections, or two, each batch in hand another one.
        reach: Called with the name of the point that a crash test may want, `after-copy`: all is written, and not yet
            committed.
    """

    def __init__(self, pool: PostgresPool, *, reach: Callable[[str], None] = lambda _: None) -> None:
        self._pool = pool
        self._reach = reach
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

    async def load_batch(
        self, file: LedgerFile, where: BatchRange, copy_bytes: bytes, *, rows: int, rejected: int
    ) -> BatchCounts:
        """Load a batch and its entry in the ledger, both or neither, and return what became of its rows.

        A batch that was loaded before, perhaps by a try whose commit was not answered, changes nothing, and its counts
        of then are returned: after `DependencyUnavailable` the same call may be repeated.

        Args:
            file: As `open_file` returned it.
            where: The bytes and lines that the batch accounts for, those of rejected rows as well.
            copy_bytes: The rows as PostgreSQL's binary COPY has them, with the columns `COPY_COLUMNS`.
            rows: How many of them there are.
            rejected: How many more there were.

        Raises:
            RangeTakenError: Some of the bytes were loaded in a batch with other borders.
            DuplicateRowError: The rule is `fail`, and a code is taken.
            asyncpg.PostgresError: The table does not take one of the rows, whatever the others are.
        """
        batch = _Batch(file, where, copy_bytes, rows, rejected)
        if file.duplicates is Duplicates.FAIL:
            return await self._copy_or_fail(batch)
        if self._merges_left == 0:
            try:
                counts = await self._pool.transaction(self._copy, batch, retries=0)
            except (asyncpg.UniqueViolationError, TransactionContended):
                # Contended: somebody else's transaction has codes of this one, and takes them in another order.
                self._conflicts += 1
                self._merges_left = _CLEAN_MERGES
            else:
                self._copied += 1
                return counts
        counts = await self._pool.transaction(self._merge, batch)
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

    async def _copy_or_fail(self, batch: _Batch) -> BatchCounts:
        try:
            counts = await self._pool.transaction(self._copy, batch)
        except asyncpg.UniqueViolationError as error:
            self._conflicts += 1
            raise DuplicateRowError(await self._pool.transaction(self._find_origins, batch)) from error
        self._copied += 1
        return counts

    async def _copy(self, connection: Connection, batch: _Batch) -> BatchCounts:
        known = await self._claim(connection, batch)
        if known is not None:
            return known
        await self._copy_into(connection, "coupons", batch)
        self._reach("after-copy")
        return BatchCounts(batch.rows, 0)

    async def _merge(self, connection: Connection, batch: _Batch) -> BatchCounts:
        known = await self._claim(connection, batch)
        if known is not None:
            return known
        await self._stage(connection, batch)
        rule = batch.file.duplicates
        row = await connection.fetchrow(_INSERT[rule])
        assert row is not None  # noqa: S101 - a select without a from
        inserted, met = row
        counts = BatchCounts(inserted, batch.rows - inserted)
        if counts.skipped:
            doubled = await connection.fetchval(_DOUBLED) if counts.skipped > len(met) else []
            counts = replace(counts, conflicting=await connection.fetchval(_CONFLICTS, [*met, *doubled]))
            await connection.execute(ledger.COUNT, batch.file.file_id, batch.where.byte_start, *astuple(counts))
        if met:
            await connection.execute(_IMPROVE[rule], met)
        self._reach("after-copy")
        return counts

    async def _claim(self, connection: Connection, batch: _Batch) -> BatchCounts | None:
        """Enter a batch in the ledger as if all of it came in; if it is there, return the counts of then."""
        file_id, where = batch.file.file_id, batch.where
        bounds = (where.byte_start, where.byte_end, where.line_start, where.line_end)
        if await connection.execute(ledger.CLAIM, file_id, *bounds, batch.rows, batch.rejected) == "INSERT 0 1":
            return None
        row: Row | None = await connection.fetchrow(ledger.CLAIMED, file_id, where.byte_start, where.byte_end)
        if row is None:
            raise RangeTakenError(where.byte_start, where.byte_end)
        return BatchCounts(*row)

    async def _stage(self, connection: Connection, batch: _Batch) -> None:
        await connection.execute(_STAGE)
        await self._copy_into(connection, "etl_batch", batch)

    async def _copy_into(self, connection: Connection, table: str, batch: _Batch) -> None:
        # The driver takes bytes for a path.
        tag = await connection.copy_to_table(
            table,
            source=memoryview(batch.copy_bytes),  # type: ignore[arg-type] # the stubs know no buffers
            columns=COPY_COLUMNS,
            format="binary",
        )
        if tag != f"COPY {batch.rows}":
            raise ValueError(f"the batch holds other rows than the {batch.rows} it should: {tag}")

    async def _find_origins(self, connection: Connection, batch: _Batch) -> dict[int, str]:
        await self._stage(connection, batch)
        rows = await connection.fetch(_ORIGINS, _ORIGINS_MAX)
        return {
            line: f"line {known_line}" if source == batch.file.source else source for line, source, known_line in rows
        }


def _gaps(done: tuple[DoneRange, ...], content_bytes: int) -> tuple[tuple[int, int], ...]:
    return tuple((gap.byte_start, gap.byte_end) for gap in ledger.gaps_of(Gap(0, content_bytes, 1), done))
