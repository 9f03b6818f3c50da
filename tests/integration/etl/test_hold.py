"""Who holds a file, and which parts of it, on a real Postgres: alone or together, and for how long."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager

import asyncpg
import pytest
from structlog.testing import capture_logs

from etl import hold
from etl.errors import FileBusyError
from etl.hold import PartClaims, hold_alone, hold_together
from runtime.postgres import PostgresPool
from sandbox.servers import PostgresServer
from tests.support.databases import role_settings
from tests.support.eventually import eventually

pytestmark = pytest.mark.usefixtures("administrator")

CONTENT = bytes(range(32))
HOLDERS = "from pg_locks where locktype = 'advisory' and pid <> pg_backend_pid()"


def together(
    pool: PostgresPool, *, lease_seconds: float = 30.0, stuck_seconds: float = 60.0
) -> AbstractAsyncContextManager[PartClaims]:
    """Share the file for the length of a block."""
    return hold_together(pool, CONTENT, lease_seconds=lease_seconds, stuck_seconds=stuck_seconds)


async def test_those_who_share_a_file_keep_out_whoever_wants_it_alone_and_he_them(
    pool: PostgresPool, other_pool: PostgresPool
) -> None:
    """Two are together, a lone one is refused while one of them is there, and they while he is."""
    async with together(pool):
        async with together(other_pool):
            pass
        with pytest.raises(FileBusyError):
            async with hold_alone(other_pool, CONTENT):
                pytest.fail("he has it alone")
    async with hold_alone(other_pool, CONTENT):
        with pytest.raises(FileBusyError):
            async with together(pool):
                pytest.fail("they have it, too")


async def test_part_is_claimed_by_one_until_he_lets_go(pool: PostgresPool, other_pool: PostgresPool) -> None:
    """Each gets the first part that no other has, none when all are taken, and all are free at the end."""
    async with together(other_pool) as others:
        async with together(pool) as own:
            assert await own.claim([3, 5, 8]) == 3
            assert await others.claim([3, 5, 8]) == 5
            assert await own.claim([5, 8]) == 8
            assert await others.claim([3, 8]) is None
            assert await own.claim([]) is None
        assert await others.claim([3, 8]) == 3
        assert await others.claim([8]) == 8


async def test_parts_of_a_broken_connection_are_free_at_once(
    pool: PostgresPool, other_pool: PostgresPool, administrator: asyncpg.Connection
) -> None:
    """Whoever dies lets go; whose connection broke while he lives gets no other part."""
    async with together(pool) as own:
        assert await own.claim([1]) == 1
        assert await administrator.fetchval(f"select count(pg_terminate_backend(pid)) {HOLDERS} and objsubid = 2") == 1

        async def is_free() -> bool:
            return bool(await administrator.fetchval(f"select count(*) = 0 {HOLDERS}"))

        await eventually(is_free)
        async with together(other_pool) as others:
            assert await others.claim([1]) == 1
        assert await own.claim([2]) is None
        assert own.is_lost


async def test_claim_that_the_server_does_not_understand_is_a_mistake_and_no_loss(
    pool: PostgresPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What would be so for ever is raised: a process that took it for a loss would claim in vain without end."""
    monkeypatch.setattr(hold, "_CLAIM", "select no_such_function($1::int, $2::int[])")
    with pytest.raises(asyncpg.UndefinedFunctionError):
        async with together(pool) as own:
            await own.claim([1])


async def test_lease_lasts_as_long_as_its_holder_goes_on(
    pool: PostgresPool, other_pool: PostgresPool, administrator: asyncpg.Connection
) -> None:
    """Renewed, it outlasts its time several times over, and holds back no clean-up of the server."""
    async with together(pool, lease_seconds=1.2) as own:
        assert await own.claim([1]) == 1
        await administrator.execute("select pg_sleep(3)")
        async with together(other_pool) as others:
            assert await others.claim([1]) is None
        assert not own.is_lost
        xmin = "select backend_xmin from pg_stat_activity where state = 'idle in transaction' and usename = 'etl'"
        assert await administrator.fetchval(xmin) is None


async def test_lease_is_kept_though_its_keeper_meets_an_error(
    pool: PostgresPool,
    other_pool: PostgresPool,
    administrator: asyncpg.Connection,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A question that the server refuses is told, and asked again when the lease is renewed the next time."""
    monkeypatch.setattr(hold, "_END_STUCK", "select no_such_function($1::float8)")
    with capture_logs() as lines:
        async with together(pool, lease_seconds=1.2) as own, together(other_pool, lease_seconds=60) as others:
            assert await own.claim([1]) == 1
            await administrator.execute("select pg_sleep(3)")
            assert await others.claim([1]) is None
            assert not own.is_lost
    told = [line["exc_info"] for line in lines if line["event"] == "The keeper of a lease failed, and goes on"]
    assert len(told) > 1
    assert all(isinstance(error, asyncpg.UndefinedFunctionError) for error in told)


async def test_lease_runs_out_when_its_holder_does_not_go_on(
    pool: PostgresPool, other_pool: PostgresPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A holder that does not renew loses its parts to the others, and hears of it at its next claim."""

    async def do_nothing(_: PartClaims) -> None:
        pass

    monkeypatch.setattr(PartClaims, "renew", do_nothing)
    async with together(pool, lease_seconds=0.2) as own, together(other_pool) as others:
        assert await own.claim([1]) == 1

        async def is_free() -> bool:
            return await others.claim([1]) == 1

        await eventually(is_free)
        assert await own.claim([2]) is None
        assert own.is_lost


async def test_copy_whose_process_does_not_go_on_is_ended_by_those_who_share_when_others_wait_for_it(
    pool: PostgresPool, other_pool: PostgresPool, postgres: PostgresServer, coupons_database: str
) -> None:
    """No timeout of the server does it; whoever shares a file does, once somebody needs what the COPY has locked."""
    password = role_settings(postgres, coupons_database, "etl").password
    assert password is not None
    url = postgres.url(coupons_database, user="etl", password=password.get_secret_value())
    frozen = await asyncpg.connect(url, timeout=10)
    never = asyncio.Event()

    async def rows() -> AsyncIterator[bytes]:
        yield b"1\n"
        await never.wait()

    try:
        await frozen.execute("set statement_timeout = 100; set idle_in_transaction_session_timeout = 100")
        await frozen.execute("create temporary table numbers (number integer)")
        await frozen.execute("begin; select pg_advisory_xact_lock(7)")
        copying = asyncio.create_task(frozen.copy_to_table("numbers", source=rows()))
        async with together(pool, lease_seconds=0.3, stuck_seconds=0.5):
            await asyncio.sleep(1.5)
            assert not frozen.is_closed()
            await other_pool.execute("select pg_advisory_xact_lock(7)")
        copying.cancel()
        await asyncio.wait({copying})
    finally:
        frozen.terminate()
