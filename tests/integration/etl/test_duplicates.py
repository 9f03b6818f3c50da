"""Which of several rows with one code stays, on a real Postgres: by their lines alone, whatever the timing."""

import asyncio
from dataclasses import dataclass
from itertools import groupby, permutations
from random import Random
from typing import Final

import asyncpg
import pytest

from etl.errors import DuplicateRowError
from etl.ledger import LedgerFile
from etl.settings import Duplicates
from etl.store import BatchCounts, EtlStore
from runtime.postgres import PostgresPool
from tests.support.etl_rows import LoadRow, copy_rows, range_of, some_code
from tests.support.eventually import eventually

CONTENT: Final = bytes(range(32))
A: Final = "A" * 16
SEEDS: Final = 20
BATCH_LINES: Final = 8
WORKERS: Final = 8

ADD: Final = """
insert into coupons (
    code, member_id, reward_id, value_cents, currency, issued_at, expires_at, status, redeemed_at, version, source,
    source_line
) values ($1, 'm-9', 'rw-9', 0, 'EUR', '2026-01-01Z', '2999-01-01Z', $2, $3::text::timestamptz, $4, $5, 1)
"""
WAITING: Final = "from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'"
REDEEM: Final = "update coupons set status = 'redeemed', redeemed_at = now(), version = 2 where code = $1"


@dataclass(frozen=True, slots=True)
class Known:
    """A coupon that is there before the file is loaded."""

    source: str
    status: str = "issued"
    version: int = 1


OTHER_FILE: Final = Known("etl:0")
OTHERS: Final = (
    OTHER_FILE,
    Known("event"),
    Known("api"),
    Known("etl:0", "redeemed", 2),
    Known("etl:0", "redeemed", 1),
    Known("etl:0", "cancelled"),
    Known("etl:0", "issued", 2),
)
"""All but the first were written or touched by somebody else than the ETL."""


@pytest.fixture
def store(pool: PostgresPool, administrator: asyncpg.Connection) -> EtlStore:
    """A process's store on empty tables."""
    assert not administrator.is_closed()
    return EtlStore(pool)


async def opened(store: EtlStore, rule: Duplicates) -> LedgerFile:
    """Return what the ledger knows of the file."""
    return await store.open_file(CONTENT, 1_000_000, "coupons.csv", rule)


async def load(store: EtlStore, file: LedgerFile, *rows: LoadRow) -> BatchCounts:
    """Load rows as one batch."""
    return await store.load_batch(file, range_of(rows), copy_rows(rows, file.source), rejected=0)


async def add(administrator: asyncpg.Connection, code: str, known: Known) -> None:
    """Put a coupon into the table."""
    redeemed_at = "2026-01-02Z" if known.status == "redeemed" else None
    await administrator.execute(ADD, code, known.status, redeemed_at, known.version, known.source)


async def table(administrator: asyncpg.Connection) -> dict[str, tuple[str, int, str, int]]:
    """Return of each coupon where its row is from, what it is worth, its status and version."""
    rows = await administrator.fetch("select code, source, value_cents, status, version from coupons")
    return {row[0]: (row[1], row[2], row[3], row[4]) for row in rows}


def some_file(rng: Random) -> tuple[dict[str, Known], list[LoadRow]]:
    """Return coupons that are there, and rows that bring some of their codes, and their own codes several times."""
    codes = [some_code(rng) for _ in range(60)]
    there = {code: rng.choice(OTHERS) for code in codes[:15]}
    return there, [LoadRow(rng.choice(codes), line) for line in range(2, 130)]


def expected(
    there: dict[str, Known], rows: list[LoadRow], rule: Duplicates, source: str
) -> tuple[dict[str, tuple[str, int, str, int]], int]:
    """Return the table as the rule has it, and how many codes the file brings."""
    found = {code: (known.source, 0, known.status, known.version) for code, known in there.items()}
    best: dict[str, LoadRow] = {}
    for row in rows:
        if rule is Duplicates.LAST or row.code not in best:
            best[row.code] = row
    free = {code for code in best if code not in there or (rule is Duplicates.LAST and there[code] == OTHER_FILE)}
    return found | {code: (source, best[code].value_cents, "issued", 1) for code in free}, len(free)


async def load_in_any_order(store: EtlStore, file: LedgerFile, rows: list[LoadRow], rng: Random) -> list[BatchCounts]:
    """Load a file with eight workers, its batches in an order by chance; return what became of each."""
    batches = [list(part) for _, part in groupby(rows, lambda row: row.line // BATCH_LINES)]
    rng.shuffle(batches)
    waiting = iter(batches)
    counts: list[BatchCounts] = []

    async def work() -> None:
        counts.extend([await load(store, file, *batch) for batch in waiting])

    await asyncio.gather(*(work() for _ in range(WORKERS)))
    return counts


@pytest.mark.parametrize("rule", [Duplicates.FIRST, Duplicates.LAST])
@pytest.mark.parametrize("seed", range(SEEDS))
async def test_table_and_counts_are_the_same_in_any_order_of_the_batches(
    store: EtlStore, administrator: asyncpg.Connection, rule: Duplicates, seed: int
) -> None:
    """Eight workers make of a file what the rule says of its lines, and count each code that it brought once."""
    rng = Random(seed)
    there, rows = some_file(rng)
    for code, known in there.items():
        await add(administrator, code, known)
    file = await opened(store, rule)
    counts = await load_in_any_order(store, file, rows, rng)
    wanted, brought = expected(there, rows, rule, file.source)
    assert await table(administrator) == wanted
    assert sum(one.inserted for one in counts) == brought
    assert sum(one.inserted + one.skipped for one in counts) == len(rows)
    status = await store.status(CONTENT)
    assert status is not None
    assert (status.inserted, status.skipped) == (brought, len(rows) - brought)


@pytest.mark.parametrize("seed", range(SEEDS))
async def test_under_fail_a_code_comes_from_one_batch_that_is_there_whole(
    store: EtlStore, administrator: asyncpg.Connection, seed: int
) -> None:
    """Of batches that share a code one at most is loaded, and none that has a code of somebody else's."""
    rng = Random(seed)
    there, rows = some_file(rng)
    taken = set(there)
    fresh = [
        LoadRow(some_code(rng), line) if rng.random() < 0.9 else LoadRow(row.code, line)
        for line, row in enumerate(rows, 2)
    ]
    for code, known in there.items():
        await add(administrator, code, known)
    file = await opened(store, Duplicates.FAIL)
    batches = [list(part) for _, part in groupby(fresh, lambda row: row.line // BATCH_LINES)]
    rng.shuffle(batches)
    found = await asyncio.gather(*(load(store, file, *batch) for batch in batches), return_exceptions=True)
    loaded: list[LoadRow] = []
    for batch, result in zip(batches, found, strict=True):
        if isinstance(result, BatchCounts):
            assert result == BatchCounts(len(batch), 0)
            loaded += batch
        else:
            assert isinstance(result, DuplicateRowError)
            assert result.origins.keys() <= {row.line for row in batch}
    by_code = {row.code: (file.source, row.value_cents, "issued", 1) for row in loaded}
    assert len(by_code) == len(loaded)
    assert not taken & by_code.keys()
    assert await table(administrator) == by_code | {
        code: (known.source, 0, known.status, known.version) for code, known in there.items()
    }


@pytest.mark.parametrize("rule", [Duplicates.FIRST, Duplicates.LAST])
@pytest.mark.parametrize("change", ["redeemed", "cancelled", "version"])
async def test_row_that_was_touched_stays_against_a_better_line_of_its_own_file(
    store: EtlStore, administrator: asyncpg.Connection, rule: Duplicates, change: str
) -> None:
    """What happened to a coupon since it was loaded is never undone by the rest of its file."""
    file = await opened(store, rule)
    await load(store, file, LoadRow(A, 5))
    statement = {
        "redeemed": REDEEM,
        "cancelled": "update coupons set status = 'cancelled' where code = $1",
        "version": "update coupons set version = 2 where code = $1",
    }[change]
    await administrator.execute(statement, A)
    before = await table(administrator)
    for line in (2, 9):
        assert await load(store, file, LoadRow(A, line)) == BatchCounts(0, 1, conflicting=1)
    assert await table(administrator) == before


@pytest.mark.parametrize("rule", [Duplicates.FIRST, Duplicates.LAST])
@pytest.mark.parametrize("is_redeemed", [True, False])
async def test_row_that_is_being_redeemed_is_waited_for(
    store: EtlStore, administrator: asyncpg.Connection, rule: Duplicates, *, is_redeemed: bool
) -> None:
    """A better line that comes while its coupon is redeemed takes its place only if nothing comes of that."""
    file = await opened(store, rule)
    await load(store, file, LoadRow(A, 5))
    redeeming = administrator.transaction()
    await redeeming.start()
    await administrator.execute(REDEEM, A)
    better = 2 if rule is Duplicates.FIRST else 9
    batch = asyncio.create_task(load(store, file, LoadRow(A, better)))

    async def is_waiting() -> bool:
        await administrator.execute("select pg_stat_clear_snapshot()")  # a transaction sees one state for all its time
        return bool(await administrator.fetchval(f"select count(*) = 1 {WAITING}"))

    await eventually(is_waiting)
    await (redeeming.commit() if is_redeemed else redeeming.rollback())
    assert await batch == BatchCounts(0, 1, conflicting=1)
    kept = (file.source, 5, "redeemed", 2) if is_redeemed else (file.source, better, "issued", 1)
    assert await table(administrator) == {A: kept}


async def test_last_of_two_files_counts_a_code_for_each(store: EtlStore, administrator: asyncpg.Connection) -> None:
    """Under `last` a row of an earlier file gives way and counts as inserted; under `first` it stays."""
    other = await store.open_file(bytes(32), 1_000_000, "other.csv", Duplicates.FIRST)
    assert await load(store, other, LoadRow(A, 7)) == BatchCounts(1, 0)
    file = await opened(store, Duplicates.LAST)
    assert await load(store, file, LoadRow(A, 3)) == BatchCounts(1, 0)
    assert await load(store, other, LoadRow(A, 2)) == BatchCounts(0, 1, conflicting=1)
    assert await table(administrator) == {A: (file.source, 3, "issued", 1)}


@pytest.mark.parametrize("order", list(permutations(range(4))), ids=str)
async def test_of_two_files_at_once_the_later_ones_last_line_stays_in_any_order(
    store: EtlStore, administrator: asyncpg.Connection, order: tuple[int, ...]
) -> None:
    """Under `last` a file never takes a code back from one that was begun after it, however their batches alternate."""
    older = await store.open_file(bytes(32), 1_000_000, "older.csv", Duplicates.LAST)
    newer = await opened(store, Duplicates.LAST)
    batches = [(older, 3), (newer, 5), (older, 9), (newer, 4)]
    counts = [await load(store, file, LoadRow(A, line)) for file, line in (batches[place] for place in order)]
    assert await table(administrator) == {A: (newer.source, 5, "issued", 1)}
    assert all(one.inserted + one.skipped == 1 for one in counts)
    for content in (bytes(32), CONTENT):
        status = await store.status(content)
        assert status is not None
        assert status.inserted <= 1


@pytest.mark.parametrize("rule", [Duplicates.FIRST, Duplicates.LAST])
@pytest.mark.parametrize("batches", [((3, 7),), ((3,), (7,)), ((7,), (3,))], ids=str)
async def test_two_rows_with_other_values_conflict_once_whichever_comes_first(
    store: EtlStore, rule: Duplicates, batches: tuple[tuple[int, ...], ...]
) -> None:
    """In one batch, or in two in any order, one of both is counted, in the ledger too; beside it nothing conflicts."""
    file = await opened(store, rule)
    rows = [[*(LoadRow(A, line) for line in batch), LoadRow("B" * 15 + str(batch[0]), batch[0])] for batch in batches]
    counts = [await load(store, file, *each) for each in rows]
    assert sum(one.conflicting for one in counts) == 1
    assert [await load(store, file, *each) for each in rows] == counts
    status = await store.status(CONTENT)
    assert status is not None
    assert (status.skipped, status.conflicting) == (1, 1)


@pytest.mark.parametrize("is_one_batch", [True, False])
async def test_same_row_again_is_skipped_and_no_conflict(store: EtlStore, *, is_one_batch: bool) -> None:
    """Two rows that say the same are no contradiction that somebody must look at."""
    file = await opened(store, Duplicates.FIRST)
    if is_one_batch:
        assert await load(store, file, LoadRow(A, 3), LoadRow(A, 3)) == BatchCounts(1, 1)
        return
    assert await load(store, file, LoadRow(A, 3)) == BatchCounts(1, 0)
    other = await store.open_file(bytes(32), 1_000_000, "other.csv", Duplicates.FIRST)
    assert await load(store, other, LoadRow(A, 3)) == BatchCounts(0, 1)
