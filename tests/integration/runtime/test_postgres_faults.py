"""The Postgres pool on a server that restarts, dies, freezes or is not there."""

import asyncio
import time

import asyncpg
import pytest

from patterns import ContextCancelled, background
from runtime.errors import DependencyUnavailable
from runtime.postgres import Connection, PostgresPool, open_pool
from runtime.settings import PostgresSettings
from sandbox.servers import PostgresServer
from tests.support.pools import pool_settings


async def first_success(pool: PostgresPool) -> int:
    """Ask until the server answers, at most for 20 s; return how many times it did not."""
    failures = 0
    async with asyncio.timeout(20):
        while True:
            try:
                await pool.fetch_row("select 1")
            except DependencyUnavailable:
                failures += 1
                await asyncio.sleep(0.02)
            else:
                return failures


@pytest.mark.parametrize("how", ["stop_fast", "stop_immediately", "kill"])
async def test_a_server_that_goes_and_comes_back_costs_errors_but_no_restart(
    own_postgres: PostgresServer, how: str
) -> None:
    """While it is down every caller hears so at once, also the one in the middle; afterwards the same pool works."""
    async with open_pool(pool_settings(own_postgres.superuser_url)) as pool:
        await pool.fetch_row("select 1")
        running = asyncio.create_task(pool.fetch_row("select pg_sleep(30)"))
        await asyncio.sleep(0.05)
        await getattr(own_postgres, how)()
        with pytest.raises(DependencyUnavailable):
            await running
        for _ in range(50):
            with pytest.raises(DependencyUnavailable):
                await pool.fetch_row("select 1")
        with pytest.raises(DependencyUnavailable):
            await pool.check()
        assert pool.statistics().failed_connects < 20
        await own_postgres.start()
        await first_success(pool)
        assert pool.statistics().size >= 1


async def test_a_frozen_server_holds_no_request_beyond_its_deadline(own_postgres: PostgresServer) -> None:
    """With the server frozen, single reads and transactions all end by the caller's deadline, and the pool recovers."""

    async def write(connection: Connection) -> None:
        await connection.execute("select 1")

    async def request(number: int) -> None:
        async with asyncio.timeout(0.5):
            if number % 2:
                await pool.fetch_row("select 1")
            else:
                await pool.transaction(write)

    settings = pool_settings(own_postgres.superuser_url, pool_max=4, repair_timeout_seconds=0.5)
    async with open_pool(settings) as pool:
        await asyncio.gather(*(request(number) for number in range(4)))
        own_postgres.freeze()
        try:
            async with asyncio.timeout(10):  # ten deadlines, for twenty requests in five rounds
                for _ in range(5):
                    ends = await asyncio.gather(*(request(number) for number in range(4)), return_exceptions=True)
                    assert all(isinstance(end, TimeoutError | DependencyUnavailable) for end in ends), ends
        finally:
            own_postgres.thaw()
        await first_success(pool)
        assert pool.statistics().size <= 4


async def test_a_frozen_server_is_noticed_even_by_a_caller_without_a_deadline(own_postgres: PostgresServer) -> None:
    """The driver's own limit, a second above the statement's, ends a call that nobody else would."""
    settings = pool_settings(
        own_postgres.superuser_url, statement_timeout_seconds=0.3, lock_timeout_seconds=0.2, connect_timeout_seconds=0.5
    )
    async with open_pool(settings) as pool:
        await pool.fetch_row("select 1")
        own_postgres.freeze()
        try:
            with pytest.raises(DependencyUnavailable):
                await pool.fetch_row("select 1")
            with pytest.raises(DependencyUnavailable):
                await pool.fetch_row("select 1")
        finally:
            own_postgres.thaw()
        await first_success(pool)


async def test_closing_on_a_frozen_server_is_bounded(own_postgres: PostgresServer) -> None:
    """A pool whose server is frozen, with a query in flight, closes all the same."""
    async with asyncio.timeout(15):
        try:
            async with open_pool(pool_settings(own_postgres.superuser_url, close_timeout_seconds=0.3)) as pool:
                await pool.fetch_row("select 1")
                own_postgres.freeze()
                stuck = asyncio.create_task(pool.fetch_row("select 1"))
                await asyncio.sleep(0.05)
        finally:
            own_postgres.thaw()
        with pytest.raises((DependencyUnavailable, asyncpg.InterfaceError)):
            await stuck
        assert pool.statistics().size == 0


def nowhere(**changes: float) -> PostgresSettings:
    """Return settings for a port where nothing listens."""
    return pool_settings("postgresql://nobody:x@127.0.0.1:1/nothing", **changes)


async def test_waiting_for_a_server_that_never_comes_ends_with_the_last_error() -> None:
    """The message says how long it waited and what the last attempt said."""
    async with open_pool(nowhere()) as pool:
        with pytest.raises(DependencyUnavailable, match=r"no connection within 0\.\d s; last error: .*Errno 111"):
            await pool.wait_for_connection(background(), 0.3)


async def test_the_earlier_of_context_and_argument_ends_the_wait() -> None:
    """A short context beats a long argument and the other way round."""
    async with open_pool(nowhere()) as pool:
        async with asyncio.timeout(10):
            with pytest.raises(DependencyUnavailable):
                await pool.wait_for_connection(background().with_timeout(0.2), 60)
            with pytest.raises(DependencyUnavailable):
                await pool.wait_for_connection(background().with_timeout(60), 0.2)


async def test_a_cancelled_context_ends_the_wait_at_once() -> None:
    """A signal while waiting is a cancel of the context, and told apart from giving up."""
    async with open_pool(nowhere()) as pool:
        ctx = background().with_cancel()
        waiting = asyncio.create_task(pool.wait_for_connection(ctx, 60))
        await asyncio.sleep(0.05)
        ctx.cancel()
        with pytest.raises(ContextCancelled):
            await waiting


async def test_waiting_ends_when_the_server_comes(own_postgres: PostgresServer) -> None:
    """A server that appears later is found, with no restart of the waiting process."""
    await own_postgres.stop_fast()
    async with open_pool(pool_settings(own_postgres.superuser_url)) as pool:
        waiting = asyncio.create_task(pool.wait_for_connection(background(), 30))
        await asyncio.sleep(0.3)
        assert not waiting.done()
        await own_postgres.start()
        await waiting


@pytest.mark.parametrize("rounds", range(5))
async def test_a_transaction_that_the_server_ended_meanwhile_is_unavailable(
    postgres: PostgresServer, rounds: int
) -> None:
    """Whether its end is read before, while or after the next statement begins, the caller may try again."""

    async def outlive(connection: Connection) -> None:
        await connection.fetchval("select 1")
        time.sleep(0.6)  # noqa: ASYNC251 - as a process that was frozen: nothing is read meanwhile
        for _ in range(rounds):
            await asyncio.sleep(0)
        await connection.fetchval("select 2")

    settings = pool_settings(postgres.superuser_url, idle_in_transaction_seconds=0.2)
    async with open_pool(settings) as pool:
        with pytest.raises(DependencyUnavailable):
            await pool.transaction(outlive)
        assert await pool.fetch_row("select 3")
