"""The pool's rules of time and number, on a virtual clock with a server in memory."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from patterns.bubble import bubble
from runtime.connection_pool import ConnectionPool
from runtime.errors import DependencyUnavailable, PoolExhausted
from runtime.settings import PostgresSettings
from tests.support.fake_postgres import FakeServer


@asynccontextmanager
async def pool_on(server: FakeServer, **fields: float) -> AsyncIterator[ConnectionPool]:
    """Open a pool on the server for a block."""
    settings = PostgresSettings.model_validate(
        {"database": "x", "user": "x", "pool_min": 0, "pool_max": 3, **fields}, strict=True
    )
    pool = ConnectionPool(settings, server.connect, rng=random.Random(1))
    try:
        yield pool
    finally:
        await pool.aclose(1.0)


def test_a_server_that_is_down_is_asked_about_once_a_second_however_many_ask() -> None:
    """Ten thousand refused borrowers in twenty seconds cost some thirty attempts, each refused at once in between."""

    async def scenario() -> None:
        server = FakeServer()
        server.is_up = False
        loop = asyncio.get_running_loop()
        async with pool_on(server) as pool:
            for _ in range(10_000):
                asked_at = loop.time()
                with pytest.raises(DependencyUnavailable, match="Connect call failed"):
                    async with pool.acquire():
                        pass
                assert loop.time() - asked_at < 0.01
                await asyncio.sleep(0.002)
            assert 15 <= len(server.attempts) <= 60
            pauses = [late - early for early, late in zip(server.attempts, server.attempts[1:], strict=False)]
            assert all(0.5 <= pause <= 1.1 for pause in pauses[6:])
            server.is_up = True
            back_at = loop.time()
            while True:
                try:
                    async with pool.acquire():
                        break
                except DependencyUnavailable:
                    await asyncio.sleep(0.01)
            assert loop.time() - back_at < 1.2

    bubble(scenario)


def test_with_some_connections_open_a_refused_further_one_fails_nobody() -> None:
    """When the server takes two and the pool may have three, six borrowers share the two and none hears of it."""

    async def scenario() -> None:
        server = FakeServer()
        server.limit = 2

        async def borrow() -> None:
            async with pool.acquire():
                await asyncio.sleep(0.1)

        async with pool_on(server) as pool:
            await asyncio.gather(*(borrow() for _ in range(6)))
            assert pool.statistics().size == 2
            assert pool.statistics().failed_connects > 0

    bubble(scenario)


def test_further_connections_that_are_refused_are_tried_once_a_second_too() -> None:
    """With two open and a third always refused, ten seconds of crowds cost a dozen attempts or two."""

    async def scenario() -> None:
        server = FakeServer()
        server.limit = 2

        async def borrow() -> None:
            async with pool.acquire():
                await asyncio.sleep(0.05)

        async with pool_on(server) as pool:
            for _ in range(50):
                await asyncio.gather(*(borrow() for _ in range(8)))
            assert pool.statistics().size == 2
            assert len(server.attempts) <= 2 + 30

    bubble(scenario)


def test_a_retry_whose_timer_fires_early_is_put_off_and_not_forgotten() -> None:
    """On a loop that rounds timers to whole milliseconds, as uvloop does, a borrower in line gets the next try."""

    async def scenario() -> None:
        server = FakeServer()
        loop = asyncio.get_running_loop()
        exact = loop.call_at

        def call_at(when: float, callback: Callable[..., object], *args: object, **more: Any) -> asyncio.TimerHandle:  # noqa: ANN401 - as the loop's
            return exact(loop.time() + max(1, int((when - loop.time()) * 1_000)) / 1_000, callback, *args, **more)

        loop.call_at = call_at  # type: ignore[method-assign]  # call_later goes through it
        async with pool_on(server, acquire_timeout_seconds=2.0) as pool:
            for _ in range(20):
                first = await pool.take()
                server.is_up = False
                second = asyncio.create_task(pool.take())
                await asyncio.sleep(0.01)
                server.is_up = True
                assert await second is not first
                pool.expire()
                pool.give_back(first)
                pool.give_back(second.result())
                await asyncio.sleep(1)
            assert pool.statistics().failed_connects >= 20

    bubble(scenario)


def test_a_second_failure_while_the_first_ones_retry_waits_does_not_end_the_retries() -> None:
    """It only moves the next try; the borrowers in line get their connections once the server takes them."""

    async def scenario() -> None:
        server = FakeServer()
        async with pool_on(server, acquire_timeout_seconds=2.0) as pool, pool.acquire():
            server.is_up = False
            first = asyncio.create_task(pool.take())
            await asyncio.sleep(0)
            server.connect_seconds = 0.04  # within the first one's pause, of 50 ms at least
            second = asyncio.create_task(pool.take())
            await asyncio.sleep(0.045)
            assert pool.statistics().failed_connects == 2
            server.is_up, server.connect_seconds = True, 0.001
            for connection in await asyncio.gather(first, second):
                pool.give_back(connection)

    bubble(scenario)


def test_a_borrower_cancelled_in_the_tick_in_which_its_connection_came_hands_it_on() -> None:
    """The connection goes to the next in line, and to the idle ones when nobody waits; it is never lost."""

    async def scenario() -> None:
        server = FakeServer()
        async with pool_on(server, pool_max=1) as pool:
            connection = await pool.take()
            doomed, following = asyncio.create_task(pool.take()), asyncio.create_task(pool.take())
            await asyncio.sleep(0.01)
            pool.give_back(connection)
            doomed.cancel()
            assert await following is connection
            doomed_again = asyncio.create_task(pool.take())
            await asyncio.sleep(0.01)
            pool.give_back(connection)
            doomed_again.cancel()
            await asyncio.wait([doomed, doomed_again])
            assert doomed.cancelled()
            assert doomed_again.cancelled()
            assert pool.statistics().idle == pool.statistics().size == 1

    bubble(scenario)


def test_a_borrower_waits_exactly_as_long_as_allowed() -> None:
    """PoolExhausted comes at acquire_timeout_seconds; a connection that comes a moment earlier is taken."""

    async def scenario() -> None:
        server = FakeServer()
        loop = asyncio.get_running_loop()
        async with pool_on(server, pool_max=1, acquire_timeout_seconds=2.0) as pool:
            async with pool.acquire():
                started = loop.time()
                with pytest.raises(PoolExhausted):
                    await pool.take()
                assert loop.time() - started == pytest.approx(2.0)
            lease = pool.acquire()
            await lease.__aenter__()
            late = asyncio.create_task(pool.take())
            await asyncio.sleep(1.99)
            await lease.__aexit__(None, None, None)
            pool.give_back(await late)
            assert pool.statistics().waiting == 0

    bubble(scenario)


def test_a_server_that_accepts_and_never_answers_refuses_in_time_with_its_own_reason() -> None:
    """While the first connection hangs, borrowers hear that none could be opened, not that others have them all."""

    async def scenario() -> None:
        server = FakeServer()
        server.connect_seconds = 1_000.0
        async with pool_on(server, acquire_timeout_seconds=2.0) as pool:
            with pytest.raises(DependencyUnavailable, match="no connection opened within 2 s") as caught:
                await pool.take()
            assert not isinstance(caught.value, PoolExhausted)

    bubble(scenario)


def test_idle_connections_above_the_minimum_close_and_the_minimum_is_kept_open() -> None:
    """After a burst of three the pool shrinks to one in time; after a loss it grows back to one by itself."""

    async def scenario() -> None:
        server = FakeServer()
        async with pool_on(server, pool_min=1, idle_seconds=60.0) as pool:
            async with pool.acquire(), pool.acquire(), pool.acquire():
                pass
            assert pool.statistics().idle == 3
            await asyncio.sleep(100)
            assert pool.statistics().size == len(server.open()) == 1
            server.open()[0].terminate()
            await asyncio.sleep(100)
            assert pool.statistics().size == len(server.open()) == 1

    bubble(scenario)


def test_a_connection_is_replaced_when_it_is_old() -> None:
    """Beyond lifetime_seconds the next borrower gets a new one, so that a failover or a new password is followed."""

    async def scenario() -> None:
        server = FakeServer()
        async with pool_on(server, lifetime_seconds=50.0, idle_seconds=1_000.0) as pool:
            for _ in range(100):
                async with pool.acquire():
                    await asyncio.sleep(1)
            assert 2 <= len(server.connections) <= 4
            assert len(server.open()) == 1

    bubble(scenario)


def test_an_expired_pool_lends_no_old_connection_again() -> None:
    """Idle ones close at once, a lent one when it comes back; whoever waits gets a new one."""

    async def scenario() -> None:
        server = FakeServer()
        async with pool_on(server, pool_max=2) as pool:
            async with pool.acquire() as lent:
                async with pool.acquire():
                    pass
                pool.expire()
            async with pool.acquire() as fresh:
                assert fresh is not lent
            await asyncio.sleep(1)
            assert len(server.open()) == 1
            assert not fresh.is_closed()

    bubble(scenario)


@pytest.mark.parametrize("is_frozen", [False, True])
def test_an_interrupted_connection_is_rolled_back_or_cut_and_never_lent_dirty(*, is_frozen: bool) -> None:
    """On a living server it is mended and lent again; on a frozen one it is cut within repair_timeout_seconds."""

    async def scenario() -> None:
        server = FakeServer()
        async with pool_on(server, pool_max=1, repair_timeout_seconds=1.0) as pool:
            connection = await pool.take()
            connection.is_interrupted = True
            server.is_frozen = is_frozen
            pool.give_back_after(connection, asyncio.CancelledError())
            assert pool.statistics().idle == 0
            async with pool.acquire() as following:
                assert (following is connection) is not is_frozen
                assert not following.is_interrupted
            assert server.connections[0].commands == ([] if is_frozen else ["rollback"])
            assert connection.is_closed() is is_frozen
            server.is_frozen = False

    bubble(scenario)


def test_time_limit_of_the_driver_is_a_state_of_the_server_and_a_borrowers_own_is_not() -> None:
    """The driver's is plain, also where it interrupted nothing; asyncio's has a cause, and a socket's a number."""

    async def scenario() -> None:
        async with pool_on(FakeServer(), pool_max=1) as pool:
            with pytest.raises(DependencyUnavailable, match="TimeoutError"):
                async with pool.acquire():
                    raise TimeoutError
            with pytest.raises(TimeoutError):
                async with pool.acquire(), asyncio.timeout(1):
                    await asyncio.sleep(10)
            with pytest.raises(TimeoutError):
                async with pool.acquire():
                    await asyncio.wait_for(asyncio.sleep(10), 1)
            with pytest.raises(TimeoutError, match="110"):
                async with pool.acquire():
                    raise TimeoutError(110, "Connection timed out")
            assert pool.statistics().opened == 1

    bubble(scenario)


def test_closing_ends_everybody_in_time_and_leaves_nothing_open() -> None:
    """With one connection lent, two borrowers waiting and a frozen server, the close ends at its bound."""

    async def scenario() -> None:
        server = FakeServer()
        loop = asyncio.get_running_loop()
        async with pool_on(server, pool_max=1, acquire_timeout_seconds=1_000.0) as pool:
            lease = pool.acquire()
            await lease.__aenter__()
            waiting = [asyncio.create_task(pool.take()) for _ in range(2)]
            await asyncio.sleep(0.1)
            server.is_frozen = True
            started = loop.time()
            await pool.aclose(5.0)
            assert loop.time() - started == pytest.approx(5.0)
            ends = await asyncio.gather(*waiting, return_exceptions=True)
            assert all(isinstance(end, DependencyUnavailable) for end in ends)
            with pytest.raises(DependencyUnavailable, match="closed"):
                await pool.take()
            assert server.open() == []
            await lease.__aexit__(None, None, None)
            assert pool.statistics().size == 0

    bubble(scenario)


@pytest.mark.parametrize("seed", range(30))
def test_random_borrowers_cancels_and_faults_lose_no_connection(seed: int) -> None:
    """After any mix of use, cancels, cuts, freezes and expiries the pool is whole and its counts are true."""

    async def scenario() -> None:
        rng = random.Random(seed)
        server = FakeServer()
        held: set[int] = set()

        async def borrow() -> None:
            async with pool.acquire() as connection:
                assert id(connection) not in held, "two borrowers have one connection"
                assert not connection.is_interrupted
                held.add(id(connection))
                try:
                    await asyncio.sleep(rng.uniform(0, 0.2))
                    if rng.random() < 0.1:
                        connection.terminate()
                except asyncio.CancelledError:
                    connection.is_interrupted = True
                    raise
                finally:
                    held.discard(id(connection))

        async with pool_on(server, acquire_timeout_seconds=0.5) as pool:
            tasks = []
            for _ in range(300):
                tasks.append(asyncio.create_task(borrow()))
                await asyncio.sleep(rng.uniform(0, 0.05))
                if rng.random() < 0.2:
                    rng.choice(tasks).cancel()
                if rng.random() < 0.02:
                    pool.expire()
                if rng.random() < 0.03:
                    server.is_up = not server.is_up
                if rng.random() < 0.03:
                    server.is_frozen = not server.is_frozen
            ends = await asyncio.gather(*tasks, return_exceptions=True)
            assert not [end for end in ends if isinstance(end, AssertionError)]
            server.is_up, server.is_frozen = True, False
            await asyncio.sleep(10)
            async with pool.acquire(), pool.acquire(), pool.acquire():
                pass
            statistics = pool.statistics()
            assert (statistics.size, statistics.waiting, statistics.connecting) == (3, 0, 0)
            assert len(server.open()) == statistics.idle == 3

    bubble(scenario)
