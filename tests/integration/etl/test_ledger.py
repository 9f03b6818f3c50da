"""The ledger on a real Postgres, under the ETL's own role: what a file is known by, who has it, when it is loaded."""

import asyncpg
import pytest

from etl.errors import FileBusyError, OtherRuleError
from etl.ledger import BatchRange, LedgerFile
from etl.settings import Duplicates
from etl.store import EtlStore
from runtime.postgres import PostgresPool, open_pool
from sandbox.servers import PostgresServer
from tests.support.databases import role_settings
from tests.support.etl_rows import copy_rows
from tests.support.eventually import eventually

CONTENT = bytes(range(32))
OTHER_CONTENT = bytes(range(1, 33))
HOLDER = (
    "from pg_stat_activity where state = 'idle in transaction' and usename = 'etl' and datname = current_database()"
)


@pytest.fixture
def store(pool: PostgresPool, administrator: asyncpg.Connection) -> EtlStore:
    """A process's store on empty tables."""
    assert not administrator.is_closed()
    return EtlStore(pool)


@pytest.fixture
def other(other_pool: PostgresPool) -> EtlStore:
    """Another process's store."""
    return EtlStore(other_pool)


async def opened(store: EtlStore, content: bytes = CONTENT) -> LedgerFile:
    """Return what the ledger knows of a content of 100 bytes."""
    return await store.open_file(content, 100, "coupons.csv", Duplicates.FIRST)


async def account_for(store: EtlStore, file: LedgerFile, byte_start: int, byte_end: int) -> None:
    """Load a batch whose rows were all rejected, one of each ten bytes."""
    where = BatchRange(byte_start, byte_end, byte_start + 1, byte_end + 1)
    await store.load_batch(file, where, copy_rows([], file.source), rejected=(byte_end - byte_start) // 10)


async def test_file_is_known_by_its_content_whatever_its_name(store: EtlStore, other: EtlStore) -> None:
    """The same content has one id under two names and for two processes; another content has another."""
    first = await opened(store)
    renamed = await other.open_file(CONTENT, 100, "renamed.csv", Duplicates.FIRST)
    assert renamed == first
    assert (await opened(store, OTHER_CONTENT)).file_id != first.file_id
    found = await store.status(CONTENT)
    assert found is not None
    assert found.name == "coupons.csv"


async def test_file_goes_on_with_the_rule_it_was_begun_with_alone(store: EtlStore) -> None:
    """Another rule is refused and named, and changes nothing."""
    await opened(store)
    with pytest.raises(OtherRuleError, match="begun with duplicates=first, and cannot go on with duplicates=last"):
        await store.open_file(CONTENT, 100, "coupons.csv", Duplicates.LAST)
    assert (await opened(store)).duplicates is Duplicates.FIRST


@pytest.mark.parametrize(
    ("name", "kept"), [("a" * 300 + ".csv", "a" * 251 + ".csv"), ("\udcff\u00e4.csv", "\\udcff\u00e4.csv"), ("", "-")]
)
async def test_name_of_any_kind_is_kept_within_bounds(store: EtlStore, name: str, kept: str) -> None:
    """Of a long name the end is kept, and what is no Unicode is spelt out."""
    await store.open_file(CONTENT, 100, name, Duplicates.FIRST)
    found = await store.status(CONTENT)
    assert found is not None
    assert found.name == kept


async def test_file_in_another_process_hands_is_busy_until_that_one_lets_go(store: EtlStore, other: EtlStore) -> None:
    """The second is told at once, another content is free, and so is this one the moment after."""
    async with store.hold_file(CONTENT):
        with pytest.raises(FileBusyError):
            async with other.hold_file(CONTENT):
                pytest.fail("both have it")
        async with other.hold_file(OTHER_CONTENT):
            pass
    for _ in range(10):
        async with other.hold_file(CONTENT):
            pass
        async with store.hold_file(CONTENT):
            pass


async def test_file_is_free_again_after_a_failed_load(store: EtlStore, other: EtlStore) -> None:
    """The error of the block comes out as it was."""
    with pytest.raises(OSError, match="disk full"):
        async with store.hold_file(CONTENT):
            raise OSError("disk full")
    async with other.hold_file(CONTENT):
        pass


async def test_holding_a_file_outlasts_the_limit_of_idle_transactions_and_holds_no_clean_up_back(
    postgres: PostgresServer, coupons_database: str, administrator: asyncpg.Connection, other: EtlStore
) -> None:
    """Whoever holds a file is idle in a transaction for longer than others may be, and has no snapshot."""
    settings = role_settings(postgres, coupons_database, "etl")
    async with open_pool(settings.model_copy(update={"idle_in_transaction_seconds": 0.1})) as impatient:
        async with EtlStore(impatient).hold_file(CONTENT):
            await administrator.execute("select pg_sleep(0.5)")
            with pytest.raises(FileBusyError):
                async with other.hold_file(CONTENT):
                    pytest.fail("the first one lost it")
            held = await administrator.fetch(f"select backend_xid, backend_xmin {HOLDER}")
        assert [tuple(row) for row in held] == [(None, None)]


async def test_lost_lock_ends_no_load(store: EtlStore, other: EtlStore, administrator: asyncpg.Connection) -> None:
    """When the connection that holds a file is cut, both processes load it, and each range counts once."""
    file = await opened(store)
    async with store.hold_file(CONTENT):
        assert await administrator.fetchval(f"select count(pg_terminate_backend(pid)) {HOLDER}") == 1

        async def is_gone() -> bool:
            return bool(await administrator.fetchval(f"select count(*) = 0 {HOLDER}"))

        await eventually(is_gone)
        async with other.hold_file(CONTENT):
            await account_for(other, file, 10, 100)
            await account_for(store, file, 10, 100)
    assert len((await opened(store)).done) == 1


@pytest.mark.parametrize(
    "parts",
    [[], [(20, 100)], [(10, 40), (50, 100)], [(10, 90)], [(0, 90)], [(10, 100), (100, 110)]],
    ids=["nothing", "begin", "middle", "end", "more before it", "more behind it"],
)
async def test_file_with_a_gap_is_not_loaded(store: EtlStore, parts: list[tuple[int, int]]) -> None:
    """Whatever lies outside of the rows makes up for nothing within."""
    file = await opened(store)
    for part in parts:
        await account_for(store, file, *part)
    is_whole = parts == [(10, 100), (100, 110)]
    assert await store.finish_file(file, 10) is is_whole
    assert (await opened(store)).is_loaded is is_whole


async def test_file_without_a_gap_is_loaded_for_good(store: EtlStore) -> None:
    """Parts in any order make a whole; asking again changes nothing, not even the time."""
    file = await opened(store)
    for part in [(70, 100), (10, 40), (40, 70)]:
        await account_for(store, file, *part)
    assert await store.finish_file(file, 10)
    first = await store.status(CONTENT)
    assert await store.finish_file(file, 10)
    assert first is not None
    assert await store.status(CONTENT) == first
    assert (first.state, first.gaps, first.rejected) == ("loaded", (), 9)


async def test_empty_file_is_loaded_at_once(store: EtlStore) -> None:
    """Where there are no rows, none is missing."""
    assert await store.finish_file(await opened(store), 100)


async def test_status_tells_what_is_done_and_what_is_not(store: EtlStore) -> None:
    """The parts that are loaded, with their counts, and the gaps between them; of another content nothing."""
    file = await opened(store)
    await account_for(store, file, 60, 80)
    await account_for(store, file, 10, 40)
    found = await store.status(CONTENT)
    assert found is not None
    assert (found.state, found.loaded_at, found.content_bytes) == ("loading", None, 100)
    assert (found.inserted, found.skipped, found.rejected) == (0, 0, 5)
    assert found.gaps == ((0, 10), (40, 60), (80, 100))
    assert [(one.byte_start, one.byte_end, one.line_start, one.line_end) for one in (await opened(store)).done] == [
        (10, 40, 11, 41),
        (60, 80, 61, 81),
    ]
    assert await store.status(OTHER_CONTENT) is None
