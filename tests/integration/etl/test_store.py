"""Batches into a real Postgres under the ETL's own role: whole or not at all, and once, whoever loads and dies."""

import asyncio
from collections.abc import Sequence
from random import Random
from typing import Final

import asyncpg
import pytest

from etl.copy_format import CopyRows
from etl.errors import DuplicateRowError, RangeTakenError
from etl.ledger import BatchRange, LedgerFile
from etl.settings import Duplicates
from etl.store import BatchCounts, EtlStore, StoreStatistics
from runtime.errors import DependencyUnavailable
from runtime.postgres import PostgresPool, open_pool
from sandbox.servers import PostgresServer
from tests.support.databases import role_settings
from tests.support.etl_rows import LoadRow, copy_rows, range_of, some_code
from tests.support.eventually import eventually

CONTENT: Final = bytes(range(32))
A, B, C, D = ("A" * 16, "B" * 16, "C" * 16, "D" * 16)
WAITING: Final = """
from pg_stat_activity where usename = 'etl' and datname = current_database() and wait_event_type = 'Lock'
"""
KNOWN: Final = """
insert into coupons (
    code, member_id, reward_id, value_cents, currency, issued_at, expires_at, status, redeemed_at, version, source,
    source_line
) values ($1, 'm-9', 'rw-9', 9, 'EUR', '2026-01-01Z', '2999-01-01Z', $2, $3, $4, $5, $6)
"""


@pytest.fixture
def store(pool: PostgresPool, administrator: asyncpg.Connection) -> EtlStore:
    """A process's store on empty tables."""
    assert not administrator.is_closed()
    return EtlStore(pool)


async def opened(store: EtlStore, rule: Duplicates = Duplicates.FIRST, content: bytes = CONTENT) -> LedgerFile:
    """Return what the ledger knows of a content."""
    return await store.open_file(content, 1_000_000, "coupons.csv", rule)


async def load(store: EtlStore, file: LedgerFile, *rows: LoadRow, rejected: int = 0) -> BatchCounts:
    """Load rows as one batch."""
    return await store.load_batch(file, range_of(rows), copy_rows(rows, file.source), rejected=rejected)


async def table(administrator: asyncpg.Connection) -> dict[str, tuple[str, int | None, int]]:
    """Return source, line and value of each coupon."""
    rows = await administrator.fetch("select code, source, source_line, value_cents from coupons")
    return {row[0]: (row[1], row[2], row[3]) for row in rows}


async def ledger(administrator: asyncpg.Connection) -> list[tuple[int, ...]]:
    """Return start, end and counts of each range."""
    rows = await administrator.fetch(
        "select byte_start, byte_end, inserted, skipped, rejected from etl_ranges order by file_id, byte_start"
    )
    return [tuple(row) for row in rows]


async def merging(store: EtlStore) -> EtlStore:
    """Return the store after a conflict of another file: it merges for some batches."""
    file = await opened(store, content=bytes(32))
    await load(store, file, LoadRow(D, 1), LoadRow(D, 2))
    return store


async def wait_for_lock(administrator: asyncpg.Connection, count: int = 1) -> None:
    """Return when so many statements of the ETL wait for a lock."""

    async def is_waiting() -> bool:
        await administrator.execute("select pg_stat_clear_snapshot()")  # a transaction sees one state for all its time
        return bool(await administrator.fetchval(f"select count(*) = $1 {WAITING}", count))

    await eventually(is_waiting)


async def test_batch_and_its_entry_come_together(store: EtlStore, administrator: asyncpg.Connection) -> None:
    """The rows are there as they were written, and the ledger counts them and the rejected ones."""
    file = await opened(store)
    assert await load(store, file, LoadRow(A, 2), LoadRow(B, 4), rejected=1) == BatchCounts(2, 0)
    assert await table(administrator) == {A: (file.source, 2, 2), B: (file.source, 4, 4)}
    assert await ledger(administrator) == [(200, 500, 2, 0, 1)]
    assert store.statistics() == StoreStatistics(copied=1, merged=0, conflicts=0)


@pytest.mark.parametrize("is_merging", [False, True])
async def test_batch_with_a_row_that_the_table_refuses_leaves_nothing(
    store: EtlStore, administrator: asyncpg.Connection, *, is_merging: bool
) -> None:
    """Neither the good rows nor the entry are there."""
    store = await merging(store) if is_merging else store
    before = await table(administrator), await ledger(administrator)
    file = await opened(store)
    with pytest.raises(asyncpg.CheckViolationError):
        await load(store, file, LoadRow(A, 2), LoadRow("TOO SHORT", 3))
    assert (await table(administrator), await ledger(administrator)) == before


@pytest.mark.parametrize("is_merging", [False, True])
async def test_batch_of_which_the_server_leaves_a_row_out_is_not_loaded(
    store: EtlStore, administrator: asyncpg.Connection, *, is_merging: bool
) -> None:
    """What the server counts must be what the ledger is told."""
    if is_merging:
        await merging(store)
    await administrator.execute(f"""
        create function leave_out() returns trigger language plpgsql as 'begin return null; end';
        create trigger leave_out before insert on coupons for each row when (new.code = '{B}')
        execute function leave_out()
    """)
    try:
        before = await table(administrator), await ledger(administrator)
        with pytest.raises(ValueError, match="of 2 rows the server took others"):
            await load(store, await opened(store), LoadRow(A, 2), LoadRow(B, 3))
        assert (await table(administrator), await ledger(administrator)) == before
    finally:
        await administrator.execute("drop function leave_out cascade")


@pytest.mark.parametrize("is_merging", [False, True])
async def test_death_between_the_last_write_and_the_commit_leaves_nothing(
    store: EtlStore, pool: PostgresPool, administrator: asyncpg.Connection, *, is_merging: bool
) -> None:
    """What was written without being committed is gone, and the next try loads it."""

    def die(point: str) -> None:
        raise RuntimeError(point)

    file = await opened(store)
    dying = EtlStore(pool, reach=die)
    rows = [LoadRow(A, 2), LoadRow(A if is_merging else B, 3)]
    with pytest.raises(RuntimeError, match="after-copy"):
        await load(dying, file, *rows)
    assert (await table(administrator), await ledger(administrator)) == ({}, [])
    assert (await load(store, file, *rows)).inserted == len({row.code for row in rows})


@pytest.mark.parametrize("is_merging", [False, True])
async def test_connection_that_is_killed_in_the_middle_of_a_batch_leaves_nothing(
    store: EtlStore, administrator: asyncpg.Connection, *, is_merging: bool
) -> None:
    """The caller is told to wait; the same call again loads the batch once."""
    store = await merging(store) if is_merging else store
    before = await table(administrator), await ledger(administrator)
    file = await opened(store)
    rows = [LoadRow(A, 2), LoadRow(B, 3), LoadRow(C, 4)]
    blocking = administrator.transaction()
    await blocking.start()
    await administrator.execute(KNOWN, B, "issued", None, 1, "event", None)
    batch = asyncio.create_task(load(store, file, *rows))
    await wait_for_lock(administrator)
    assert await administrator.fetchval(f"select count(pg_terminate_backend(pid)) {WAITING}") == 1
    with pytest.raises(DependencyUnavailable):
        await batch
    await blocking.rollback()
    assert (await table(administrator), await ledger(administrator)) == before
    assert await load(store, file, *rows) == BatchCounts(3, 0)
    assert {A, B, C} <= (await table(administrator)).keys()


@pytest.mark.parametrize("rule", Duplicates)
async def test_batch_that_is_there_changes_nothing_and_has_the_counts_of_then(
    store: EtlStore, administrator: asyncpg.Connection, rule: Duplicates
) -> None:
    """A try whose commit was not answered may be repeated, under `fail` too."""
    file = await opened(store, rule)
    first = await load(store, file, LoadRow(A, 2), LoadRow(B, 3), rejected=1)
    before = await table(administrator), await ledger(administrator)
    assert await load(store, file, LoadRow(A, 2), LoadRow(B, 3), rejected=1) == first
    assert await load(await merging(store), file, LoadRow(A, 2), LoadRow(B, 3), rejected=1) == first
    assert (await table(administrator)).items() >= before[0].items()
    assert (await ledger(administrator))[: len(before[1])] == before[1]


@pytest.mark.parametrize("is_committed", [True, False])
async def test_range_that_another_process_loads_now_is_waited_for(
    store: EtlStore, administrator: asyncpg.Connection, *, is_committed: bool
) -> None:
    """If the other one comes to its end its counts are returned; if it dies the batch is loaded here."""
    file = await opened(store)
    other = administrator.transaction()
    await other.start()
    await administrator.execute("insert into etl_ranges values ($1, 200, 400, 2, 4, 1, 1, 5)", file.file_id)
    batch = asyncio.create_task(load(store, file, LoadRow(A, 2), LoadRow(B, 3)))
    await wait_for_lock(administrator)
    await (other.commit() if is_committed else other.rollback())
    assert await batch == (BatchCounts(1, 1) if is_committed else BatchCounts(2, 0))
    assert len(await table(administrator)) == (0 if is_committed else 2)
    assert len(await ledger(administrator)) == 1


async def test_two_processes_that_load_the_same_file_at_once_double_nothing(
    store: EtlStore, other_pool: PostgresPool, administrator: asyncpg.Connection
) -> None:
    """Both are told the same of each of twenty batches, and each row is there once."""
    other = EtlStore(other_pool)
    file = await opened(store)
    batches = [
        [LoadRow(some_code(Random(line)), line) for line in range(start, start + 5)] for start in range(2, 102, 5)
    ]
    found = await asyncio.gather(*(load(each, file, *rows) for rows in batches for each in (store, other)))
    assert found == [BatchCounts(5, 0)] * 40
    assert sorted(line or 0 for _, line, _ in (await table(administrator)).values()) == list(range(2, 102))
    assert sum(one[2] for one in await ledger(administrator)) == 100


@pytest.mark.parametrize("lines", [(2, 4), (4, 6), (3, 4), (1, 9), (3, 9)], ids=str)
async def test_batch_that_overlaps_one_with_other_borders_is_refused(
    store: EtlStore, administrator: asyncpg.Connection, lines: tuple[int, int]
) -> None:
    """Nothing of it is loaded; the same bytes of another file are its own."""
    file = await opened(store)
    await load(store, file, LoadRow(A, 3), LoadRow(B, 5))
    before = await table(administrator), await ledger(administrator)
    rows = [LoadRow(C, lines[0]), LoadRow(D, lines[1])]
    with pytest.raises(RangeTakenError):
        await load(store, file, *rows)
    assert (await table(administrator), await ledger(administrator)) == before
    assert await load(store, await opened(store, content=bytes(32)), *rows) == BatchCounts(2, 0)


async def test_ledger_itself_refuses_ranges_that_overlap(store: EtlStore, administrator: asyncpg.Connection) -> None:
    """Whatever a process believes, the table takes no two ranges of one file with a byte in common."""
    file = await opened(store)
    add = "insert into etl_ranges values ($1, $2, $3, 1, 2, 0, 0, 0)"
    await administrator.execute(add, file.file_id, 10, 20)
    await administrator.execute(add, file.file_id, 20, 30)
    with pytest.raises(asyncpg.ExclusionViolationError):
        await administrator.execute(add, file.file_id, 19, 20)


async def test_batches_with_codes_in_opposite_order_do_not_stop_one_another(
    store: EtlStore, other_pool: PostgresPool, administrator: asyncpg.Connection
) -> None:
    """Two that wait for one another in the middle of their COPY are both loaded: the one that lost tries again."""
    other = EtlStore(other_pool)
    file = await opened(store)
    blocking = administrator.transaction()
    await blocking.start()
    await administrator.execute(KNOWN, B, "issued", None, 1, "event", None)
    forth, back = [LoadRow(A, 2), LoadRow(B, 3), LoadRow(C, 4)], [LoadRow(C, 5), LoadRow(B, 6), LoadRow(A, 7)]
    descending = CopyRows(copy_rows(back, file.source).columns.sort_by([("code", "descending")]))
    batches = [
        asyncio.create_task(load(store, file, *forth)),
        asyncio.create_task(other.load_batch(file, range_of(back), descending, rejected=0)),
    ]
    await wait_for_lock(administrator, 2)
    await blocking.rollback()
    counts = await asyncio.gather(*batches)
    assert sum(one.inserted for one in counts) == 3
    assert await table(administrator) == {code: (file.source, line, line) for code, line in ((A, 2), (B, 3), (C, 4))}
    # Twice if the one that lost looks its codes up before the other has committed.
    assert store.statistics().conflicts + other.statistics().conflicts in {1, 2}


async def test_batches_in_hand_with_codes_in_common_do_not_conflict(store: EtlStore) -> None:
    """Each waits for those before it, and copies the others' rows; nothing is tried twice."""
    file = await opened(await merging(store))
    conflicts = store.statistics().conflicts
    random = Random(1)
    codes = [some_code(random) for _ in range(300)]
    batches = [
        [LoadRow(code, 10 * line + i) for line, code in enumerate(random.sample(codes, 100), 1)] for i in range(8)
    ]
    counts = await asyncio.gather(
        *(
            store.load_batch(file, BatchRange(i, i + 1, 1, 1), copy_rows(rows, file.source), rejected=0)
            for i, rows in enumerate(batches)
        )
    )
    assert sum(one.inserted for one in counts) == len({row.code for rows in batches for row in rows})
    assert sum(one.inserted + one.skipped for one in counts) == 800
    assert store.statistics().conflicts == conflicts


async def test_batch_whose_forerunner_is_not_loaded_brings_the_common_codes_itself(
    store: EtlStore, administrator: asyncpg.Connection
) -> None:
    """Rows that it took for another's are then inserted, and count so."""
    file = await opened(await merging(store))
    before = asyncio.create_task(load(store, file, LoadRow(A, 10), LoadRow(B, 11), LoadRow("TOO SHORT", 12)))
    await asyncio.sleep(0)
    assert await load(store, file, LoadRow(B, 20), LoadRow(C, 21)) == BatchCounts(2, 0)
    with pytest.raises(asyncpg.CheckViolationError):
        await before
    assert {code: line for code, (_, line, _) in (await table(administrator)).items()} == {D: 1, B: 20, C: 21}


async def test_store_merges_after_a_conflict_and_copies_again_when_there_are_no_more(store: EtlStore) -> None:
    """Eight batches in a row without a conflict end the merging; one with a conflict begins it anew."""
    file = await opened(store)
    await load(store, file, LoadRow(A, 2), LoadRow(A, 3))
    for line in range(4, 8):
        await load(store, file, LoadRow(some_code(Random(line)), line))
    await load(store, file, LoadRow(A, 8))
    for line in range(9, 20):
        await load(store, file, LoadRow(some_code(Random(line)), line))
    assert store.statistics() == StoreStatistics(copied=3, merged=1 + 4 + 1 + 8, conflicts=1)


async def test_merge_leaves_nothing_in_its_session(
    postgres: PostgresServer, coupons_database: str, administrator: asyncpg.Connection
) -> None:
    """The only connection of a pool has no table of its own after a batch, and merges the next one."""
    assert not administrator.is_closed()
    settings = role_settings(postgres, coupons_database, "etl").model_copy(update={"pool_min": 0, "pool_max": 1})
    async with open_pool(settings) as pool:
        store = await merging(EtlStore(pool))
        assert await load(store, await opened(store), LoadRow(A, 2)) == BatchCounts(1, 0)
        row = await pool.fetch_row("select count(*) from pg_class where relpersistence = 't'")
        assert row is not None
        assert row[0] == 0
        assert (store.statistics().merged, pool.statistics().opened) == (2, 1)


async def test_codes_that_are_taken_are_named_by_their_lines_under_fail(
    store: EtlStore, administrator: asyncpg.Connection
) -> None:
    """The error tells where each code is; nothing of the batch counts, and the batches before it stay."""
    file = await opened(store, Duplicates.FAIL)
    await load(store, file, LoadRow(A, 2))
    await administrator.execute(KNOWN, B, "issued", None, 1, "event", None)
    before = await table(administrator), await ledger(administrator)
    rows: Sequence[LoadRow] = [LoadRow(A, 3), LoadRow(C, 4), LoadRow(B, 5), LoadRow(C, 6), LoadRow(D, 7)]
    with pytest.raises(DuplicateRowError, match="line 6: its code is there from line 4") as raised:
        await load(store, file, *rows)
    assert raised.value.origins == {3: "line 2", 5: "event", 6: "line 4"}
    assert (await table(administrator), await ledger(administrator)) == before
    assert await store.load_batch(
        file, BatchRange(300, 800, 3, 8), copy_rows([LoadRow(D, 7)], file.source), rejected=4
    ) == BatchCounts(1, 0)
