"""The Postgres pool on a real server that is well: queries, transactions, bounds, cancels."""

import asyncio
import socket
import traceback
from collections.abc import AsyncIterator

import asyncpg
import pytest

from runtime.connection_pool import PoolStatistics
from runtime.errors import DependencyUnavailable, PoolExhausted, TransactionAbortedError, TransactionContended
from runtime.postgres import Connection, PostgresPool, open_pool
from tests.support.eventually import eventually
from tests.support.fault_report import FaultReport
from tests.support.judgement import Rule, judge
from tests.support.pools import pool_settings


@pytest.fixture
async def pool(database: str) -> AsyncIterator[PostgresPool]:
    """A pool of two on an empty database with one table of two rows."""
    async with open_pool(pool_settings(database)) as opened:
        await opened.execute("create table account (id int primary key, points int not null check (points >= 0))")
        await opened.execute("insert into account values (1, 10), (2, 10)")
        yield opened


async def points(pool: PostgresPool, account: int) -> int:
    """Return an account's points."""
    row = await pool.fetch_row("select points from account where id = $1", account)
    assert row is not None
    return int(row["points"])


async def wait_asleep(pool: PostgresPool) -> int:
    """Wait until a backend sleeps, and return its process id: a cancel that comes before its statement does nothing."""
    found: list[int] = []

    async def is_asleep() -> bool:
        sql = "select pid from pg_stat_activity where datname = current_database() and wait_event = 'PgSleep'"
        found.extend(row["pid"] for row in await pool.fetch(sql))
        return bool(found)

    await eventually(is_asleep)
    return found[0]


async def take_points(connection: Connection, account: int, amount: int) -> None:
    """Take points from an account, inside the caller's transaction."""
    await connection.execute("update account set points = points - $2 where id = $1", account, amount)


async def test_a_statement_is_its_own_transaction_and_its_connection_comes_back(pool: PostgresPool) -> None:
    """A hundred statements run over one connection, and its rows are what was stored."""
    for _ in range(100):
        assert await points(pool, 1) == 10
    assert [row["id"] for row in await pool.fetch("select id from account order by id")] == [1, 2]
    assert pool.statistics().opened == 1
    assert pool.statistics().idle == 1


async def test_a_transaction_commits_when_it_returns_and_rolls_back_when_it_raises(pool: PostgresPool) -> None:
    """What a transaction did stays after a return and is gone after an error, which reaches the caller as it is."""
    await pool.transaction(take_points, 1, 3)
    with pytest.raises(asyncpg.CheckViolationError):
        await pool.transaction(take_points, 2, 11)
    assert (await points(pool, 1), await points(pool, 2)) == (7, 10)


async def test_an_error_of_a_row_reaches_the_caller_without_the_row(pool: PostgresPool) -> None:
    """It names the rule; the copy of the row that the server sends with it, personal data perhaps, is nowhere in it."""
    with pytest.raises(asyncpg.CheckViolationError) as caught:
        await pool.transaction(take_points, 2, 4_711)
    told = "".join(traceback.format_exception(caught.value)) + repr(caught.value)
    assert "account_points_check" in told
    assert "4701" not in told
    assert caught.value.constraint_name == "account_points_check"


async def test_a_swallowed_database_error_is_never_taken_for_a_commit(pool: PostgresPool) -> None:
    """A function that hides a failed statement and returns raises, since Postgres commits nothing."""

    async def swallow(connection: Connection) -> None:
        await take_points(connection, 1, 3)
        with pytest.raises(asyncpg.CheckViolationError):
            await take_points(connection, 2, 11)

    with pytest.raises(TransactionAbortedError):
        await pool.transaction(swallow)
    assert await points(pool, 1) == 10


async def test_two_borrowers_at_the_bound_refuse_the_third_in_time_and_recover(database: str) -> None:
    """With both connections lent, a third borrower gets PoolExhausted; when one is back, the next is served."""
    async with open_pool(pool_settings(database, acquire_timeout_seconds=2.0)) as pool:
        async with pool.acquire(), pool.acquire():
            with pytest.raises(PoolExhausted) as caught:
                await pool.fetch_row("select 1")
            assert caught.value.retry_after_seconds > 0
        assert await pool.fetch_row("select 1") is not None
        assert pool.statistics().exhausted == 1
        assert pool.statistics().waiting == 0


async def test_more_waiters_than_the_queue_holds_are_refused_at_once(database: str) -> None:
    """The queue of borrowers has a bound of its own."""
    async with open_pool(pool_settings(database, pool_max=1, waiting_max=2, acquire_timeout_seconds=5)) as pool:
        async with pool.acquire():
            waiting = [asyncio.create_task(pool.fetch_row("select 1")) for _ in range(2)]
            await eventually(lambda: pool.statistics().waiting == 2)
            with pytest.raises(PoolExhausted):
                await pool.fetch_row("select 1")
        assert all(await asyncio.gather(*waiting))


async def test_waiting_borrowers_are_served_in_order_and_all_of_them(database: str) -> None:
    """Fifty borrowers of one connection are served in the order they came, and two never hold it at once."""
    order: list[int] = []
    holders = 0

    async def borrow(number: int) -> None:
        nonlocal holders
        async with lone.acquire() as connection:
            holders += 1
            assert holders == 1
            await connection.fetchrow("select 1")
            order.append(number)
            holders -= 1

    async with open_pool(pool_settings(database, pool_max=1)) as lone, asyncio.TaskGroup() as group:
        for number in range(50):
            group.create_task(borrow(number))
    assert order == list(range(50))


async def test_a_cancel_in_a_query_ends_it_on_the_server_and_harms_no_one(pool: PostgresPool) -> None:
    """The query stops on the server, the connection is mended aside and lent again, and none is lost."""
    for _ in range(5):
        task = asyncio.create_task(pool.fetch_row("select pg_sleep(30) /* to be cancelled */"))
        await wait_asleep(pool)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await points(pool, 1) == 10
        await eventually(lambda: pool.statistics().idle == pool.statistics().size)
    left = await pool.fetch_row(
        "select count(*) from pg_stat_activity where state = 'active' and query like '%to be cancelled%'"
        " and pid <> pg_backend_pid()"
    )
    assert left is not None
    assert left["count"] == 0
    assert pool.statistics().interrupted == 5
    assert pool.statistics().size <= 2


async def test_a_cancel_in_a_transaction_rolls_it_back(pool: PostgresPool) -> None:
    """A transaction cancelled after its update leaves no trace and no lock."""

    async def update_and_wait(connection: Connection) -> None:
        await take_points(connection, 1, 3)
        await connection.execute("select pg_sleep(30)")

    task = asyncio.create_task(pool.transaction(update_and_wait))
    await wait_asleep(pool)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await pool.transaction(take_points, 1, 1)
    assert await points(pool, 1) == 9


async def test_a_cancel_while_waiting_for_a_connection_hands_it_on(database: str) -> None:
    """A borrower cancelled in the tick in which a connection came passes it to the next, five hundred times."""
    async with open_pool(pool_settings(database, pool_max=1)) as pool:
        for _ in range(500):
            lease = pool.acquire()
            await lease.__aenter__()
            doomed = asyncio.create_task(pool.fetch_row("select 1"))
            next_one = asyncio.create_task(pool.fetch_row("select 2 as two"))
            await asyncio.sleep(0)
            await lease.__aexit__(None, None, None)
            doomed.cancel()
            row = await next_one
            assert row is not None
            assert row["two"] == 2
            assert (await asyncio.gather(doomed, return_exceptions=True))[0].__class__ is asyncio.CancelledError
        assert pool.statistics().opened == 1


@pytest.mark.fault("H17", "two serializable transactions that each read what the other writes")
async def test_a_serialization_failure_runs_the_whole_transaction_again(
    pool: PostgresPool, fault_report: FaultReport
) -> None:
    """Two serializable transactions that read what the other writes both commit, one of them at its second try."""
    tries = 0
    both_have_read = asyncio.Barrier(2)

    async def swap(connection: Connection, read: int, write: int) -> None:
        nonlocal tries
        tries += 1
        seen = await connection.fetchval("select points from account where id = $1", read)
        if tries <= 2:
            await both_have_read.wait()
        await connection.execute("update account set points = $2 where id = $1", write, seen + 1)

    await asyncio.gather(
        pool.transaction(swap, 1, 2, isolation="serializable"), pool.transaction(swap, 2, 1, isolation="serializable")
    )
    left = sorted([await points(pool, 1), await points(pool, 2)])
    assert tries == 3
    fault_report.judge(judge(Rule.RIGHT_CONTENT, [] if left == [11, 12] else [f"the accounts have {left}"]))
    fault_report.measure(tries=str(tries))


async def test_a_deadlock_runs_the_loser_again(pool: PostgresPool) -> None:
    """Two transactions that lock two rows in opposite order both commit."""
    both_have_one = asyncio.Barrier(2)
    tries = 0

    async def move(connection: Connection, first: int, second: int) -> None:
        nonlocal tries
        tries += 1
        is_first_try = tries <= 2
        await take_points(connection, first, 1)
        if is_first_try:
            await both_have_one.wait()
        await take_points(connection, second, 1)

    await asyncio.gather(pool.transaction(move, 1, 2), pool.transaction(move, 2, 1))
    assert tries == 3
    assert (await points(pool, 1), await points(pool, 2)) == (8, 8)


async def test_a_transaction_that_always_loses_ends_after_its_tries(pool: PostgresPool) -> None:
    """After one try and two more the caller hears that others were in the way."""
    tries = 0

    async def lose(connection: Connection) -> None:
        nonlocal tries
        tries += 1
        await connection.execute("do $$ begin raise exception using errcode = '40001'; end $$")

    with pytest.raises(TransactionContended):
        await pool.transaction(lose, retries=2)
    assert tries == 3


LOSE_FOR_A_WHILE = """
create sequence tries;
create function lose(times int) returns int language plpgsql as $$
declare tries bigint := nextval('tries');
begin
    if tries <= times then raise exception using errcode = '40001'; end if;
    return tries;
end $$
"""


@pytest.mark.parametrize("method", ["fetch_row", "fetch", "execute"])
async def test_a_single_statement_that_lost_is_run_again(pool: PostgresPool, method: str) -> None:
    """It is a transaction of its own: it succeeds at its fourth try, and one that would need a fifth is told so."""
    await pool.execute(LOSE_FOR_A_WHILE)
    assert await getattr(pool, method)("select lose($1)", 3)
    await pool.execute("alter sequence tries restart")
    with pytest.raises(TransactionContended):
        await getattr(pool, method)("select lose($1)", 4)


async def test_a_database_s_default_isolation_is_none_of_ours(pool: PostgresPool, database: str) -> None:
    """Statements see what was committed before they began, also where the administrator made another default."""
    name = database.rpartition("/")[2]
    await pool.execute(f"alter database {name} set default_transaction_isolation = 'serializable'")
    async with open_pool(pool_settings(database)) as other:
        row = await other.fetch_row("show transaction_isolation")
    assert row is not None
    assert row["transaction_isolation"] == "read committed"


async def test_a_schema_that_changes_under_load_fails_no_transaction(pool: PostgresPool) -> None:
    """Transactions whose cached plan a change of the table made stale run again and succeed."""

    async def read_twice(connection: Connection) -> None:
        await connection.fetch("select * from account")
        await connection.fetch("select * from account where id = $1", 1)

    async def change() -> None:
        for number in range(10):
            await pool.execute(f"alter table account add column c{number} int default 0")

    changing = asyncio.create_task(change())
    while not changing.done():
        await pool.transaction(read_twice)
    await changing


@pytest.mark.parametrize(
    ("statement", "limits"),
    [
        ("select pg_sleep(30)", {"statement_timeout_seconds": 0.2, "lock_timeout_seconds": 0.1}),
        ("lock table account", {"lock_timeout_seconds": 0.1}),
        ("do $$ begin raise exception using errcode = '53100'; end $$", {}),
        ("do $$ begin raise exception using errcode = '57P03'; end $$", {}),
    ],
    ids=["statement timeout", "lock timeout", "disk full", "server going"],
)
async def test_a_state_of_the_server_is_told_as_unavailable(
    pool: PostgresPool, database: str, statement: str, limits: dict[str, float]
) -> None:
    """What the server cannot do now is DependencyUnavailable, and the pool goes on."""
    async with open_pool(pool_settings(database, **limits)) as limited, pool.acquire() as other:
        await other.execute("begin")
        await other.execute("lock table account")
        with pytest.raises(DependencyUnavailable):
            await limited.transaction(_execute, statement)
        await other.execute("rollback")
        assert await limited.fetch_row("select 1") is not None


async def _execute(connection: Connection, statement: str) -> None:
    await connection.execute(statement)


async def test_a_time_limit_that_is_over_between_two_messages_is_told_as_unavailable(pool: PostgresPool) -> None:
    """The driver, which finds nothing to interrupt then, raises it plain; the connection is lent again."""

    async def late(connection: Connection) -> None:
        await take_points(connection, 1, 3)
        await connection.execute("select 1", timeout=0)

    with pytest.raises(DependencyUnavailable, match="TimeoutError"):
        await pool.transaction(late)
    assert await points(pool, 1) == 10
    assert pool.statistics().opened == 1


async def test_a_read_only_server_expires_every_connection(pool: PostgresPool) -> None:
    """After 'cannot execute in a read-only transaction' all old connections are replaced."""

    async def write(connection: Connection) -> None:
        await connection.execute("set transaction read only")
        await take_points(connection, 1, 1)

    before = await pool.fetch_row("select pg_backend_pid() as pid")
    with pytest.raises(DependencyUnavailable):
        await pool.transaction(write)
    after = await pool.fetch_row("select pg_backend_pid() as pid")
    assert before is not None
    assert after is not None
    assert before["pid"] != after["pid"]
    assert pool.statistics().expired == 1


async def test_an_idle_connection_that_was_ended_is_replaced_unseen(pool: PostgresPool) -> None:
    """When the server ended an idle connection, the next borrower gets a fresh one and no error."""
    async with pool.acquire(), pool.acquire() as victim:
        pid = victim.get_server_pid()
    await pool.execute("select pg_terminate_backend($1)", pid)  # over the one that came back last: not the victim
    await eventually(victim.is_closed)
    async with pool.acquire() as one, pool.acquire() as two:
        assert {one.get_server_pid(), two.get_server_pid()}.isdisjoint({pid})


async def test_a_connection_ended_in_a_query_is_told_as_unavailable(pool: PostgresPool) -> None:
    """A backend that dies under a query is DependencyUnavailable for that caller, and nothing for the next."""
    running = asyncio.create_task(pool.fetch_row("select pg_sleep(30)"))
    await pool.execute("select pg_terminate_backend($1)", await wait_asleep(pool))
    with pytest.raises(DependencyUnavailable):
        await running
    assert await points(pool, 1) == 10


async def test_no_session_state_outlives_a_transaction_without_any_reset(pool: PostgresPool) -> None:
    """Local settings, transaction locks and temporary tables are gone for the next borrower of that connection."""

    async def use_everything(connection: Connection) -> int:
        await connection.execute("set local work_mem = '7MB'")
        await connection.execute("select pg_advisory_xact_lock(42)")
        await connection.execute("create temporary table scratch (x int) on commit drop")
        await connection.execute("declare c cursor for select 1")
        return connection.get_server_pid()

    pid = await pool.transaction(use_everything)
    async with pool.acquire() as connection:
        assert connection.get_server_pid() == pid
        assert await connection.fetchval("show work_mem") != "7MB"
        assert await connection.fetchval("select count(*) from pg_locks where locktype = 'advisory'") == 0
        assert await connection.fetchval("select to_regclass('pg_temp.scratch')") is None
        assert await connection.fetchval("select count(*) from pg_cursors where name = 'c'") == 0


async def test_the_pool_sends_nothing_when_a_connection_comes_back(pool: PostgresPool) -> None:
    """The server's last statement of an idle connection is still the borrower's: no reset query followed it."""
    async with pool.acquire() as first, pool.acquire() as second:
        pid = second.get_server_pid()
        await first.fetchrow("select 1")
        await second.fetchrow("select 'the last statement'")
    async with pool.acquire() as connection:  # the one that came back last, so the first
        assert connection.get_server_pid() != pid
        query = await connection.fetchval("select query from pg_stat_activity where pid = $1", pid)
    assert query == "select 'the last statement'"


async def test_a_transaction_left_open_is_rolled_back_before_the_next_borrower(pool: PostgresPool) -> None:
    """A borrower who forgets to commit leaves neither rows nor an open transaction behind."""
    async with pool.acquire() as connection:
        await connection.execute("begin")
        await take_points(connection, 1, 3)
    await eventually(lambda: pool.statistics().idle == pool.statistics().size)
    assert await points(pool, 1) == 10
    assert pool.statistics().interrupted == 1


async def test_closing_waits_for_a_borrower_and_then_cuts_it_off(database: str) -> None:
    """A borrower that comes back in time ends the wait; one that does not is cut off at the bound."""
    async with open_pool(pool_settings(database)) as quick:
        borrower = asyncio.create_task(quick.fetch_row("select pg_sleep(0.2)"))
        await eventually(lambda: quick.statistics().size == 1)
        await quick.aclose(5.0)
        assert await borrower is not None
        assert quick.statistics() == PoolStatistics(0, 0, 0, 0, 1, 0, 0, 0, 0)
    async with open_pool(pool_settings(database)) as slow:
        stuck = asyncio.create_task(slow.fetch_row("select pg_sleep(30)"))
        await eventually(lambda: slow.statistics().size == 1)
        await slow.aclose(0.1)
        with pytest.raises(DependencyUnavailable):
            await stuck
        assert slow.statistics().size == 0


async def test_both_ends_of_a_connection_find_out_that_the_other_is_gone(pool: PostgresPool) -> None:
    """Keepalive is on at our end of the socket and set at the server's."""
    async with pool.acquire() as connection:
        own_socket = connection._transport.get_extra_info("socket")  # type: ignore[attr-defined] # the driver's private
        assert own_socket.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert own_socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 30
        assert await connection.fetchval("show tcp_keepalives_idle") == "30"
