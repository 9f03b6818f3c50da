"""reward_store while its database stops, dies, freezes or has no room for it, under members' orders."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import asyncpg
import httpx
import pytest

from sandbox.servers import KafkaServer, PostgresServer, open_postgres
from tests.support.fault_report import FaultReport
from tests.support.judgement import judge_time
from tests.support.redeemers import outcome
from tests.support.shop import open_shop
from tests.support.trade import POOL_MAX, REQUEST_SECONDS, Trade, open_trade

AWAY_SECONDS: Final = 3.0
UNAVAILABLE: Final = "503 dependency-unavailable"
LATE: Final = "504 deadline-exceeded"
ROOM: Final = 20
TRIES_A_SECOND: Final = 10.0 * POOL_MAX
"""Ten times what a whole pool makes that tries once a second."""


async def read_reward(trade: Trade) -> str:
    """Read something over HTTP, on a connection of its own; return how it was answered."""
    async with trade.service.client("m-1", connections=1) as client:
        try:
            return outcome(await client.get("/v1/rewards/rw-tea"))
        except httpx.TransportError as error:
            return type(error).__name__


@pytest.mark.parametrize(
    "how",
    [
        pytest.param(
            "stop_fast",
            marks=[pytest.mark.fault("H9", "Postgres stopped fast under orders"), pytest.mark.thorough],
        ),
        pytest.param(
            "stop_immediately",
            marks=[pytest.mark.fault("H9", "Postgres stopped immediately under orders"), pytest.mark.thorough],
        ),
        pytest.param("kill", marks=pytest.mark.fault("H9", "every process of Postgres killed under orders")),
    ],
)
async def test_database_that_goes_and_comes_back_costs_answers_and_nothing_else(
    own_postgres: PostgresServer, kafka: KafkaServer, tmp_path: Path, fault_report: FaultReport, how: str
) -> None:
    """Away it is 503 and when to come again, live and not ready; back, the same process goes on by itself."""
    async with open_shop(own_postgres, kafka, tmp_path) as shop, open_trade(shop) as trade:
        await getattr(own_postgres, how)()
        await trade.redeemers.wait_answers(UNAVAILABLE)
        assert [await read_reward(trade) for _ in range(20)] == [UNAVAILABLE] * 20
        await trade.service.wait_readiness(503)
        await asyncio.sleep(AWAY_SECONDS)
        assert await trade.is_live()
        await own_postgres.start()
        back_seconds = await trade.wait_back()
        await trade.report(fault_report, back_seconds)


@pytest.mark.fault("H10", "Postgres and all its backends frozen for 3 s under orders")
async def test_frozen_database_holds_no_answer_beyond_its_deadline(
    own_postgres: PostgresServer, kafka: KafkaServer, tmp_path: Path, fault_report: FaultReport
) -> None:
    """Each request ends by its own deadline, 503 or 504; the process lives, and the pool recovers on the thaw."""
    async with open_shop(own_postgres, kafka, tmp_path) as shop, open_trade(shop) as trade:
        before = trade.redeemers.answers.copy()
        own_postgres.freeze()
        try:
            await trade.redeemers.wait_answers(LATE)
            reads = set(await asyncio.gather(*(read_reward(trade) for _ in range(30))))
            await trade.service.wait_readiness(503)
            await asyncio.sleep(AWAY_SECONDS)
            assert await trade.is_live()
        finally:
            own_postgres.thaw()
        frozen = trade.redeemers.answers - before
        slowest_seconds = trade.redeemers.slowest_seconds
        back_seconds = await trade.wait_back()
        assert reads <= {UNAVAILABLE, LATE, "503 overloaded"}
        assert frozen[LATE] > 0
        fault_report.judge(judge_time("an answer while frozen", slowest_seconds, at_most=10 * REQUEST_SECONDS))
        await trade.report(fault_report, back_seconds)
        fault_report.measure(deadline=f"{REQUEST_SECONDS:g} s")


@contextlib.asynccontextmanager
async def open_narrow_postgres() -> AsyncIterator[PostgresServer]:
    """A server with room for twenty, of which none is kept for its superuser."""
    async with open_postgres(settings={"max_connections": str(ROOM), "superuser_reserved_connections": "0"}) as server:
        if not server.is_ours:
            pytest.skip("needs a server whose number of connections can be chosen")
        yield server


async def take_all(server: PostgresServer) -> list[asyncpg.Connection]:
    """Take every connection that the server has left."""
    taken: list[asyncpg.Connection] = []
    while True:
        try:
            taken.append(await asyncpg.connect(server.superuser_url, timeout=10))
        except asyncpg.TooManyConnectionsError:
            return taken


async def end_backends(connection: asyncpg.Connection) -> int:
    """End the connections of the service; return how many there were."""
    ended = "select count(pg_terminate_backend(pid)) from pg_stat_activity where usename = 'reward_store'"
    return int(await connection.fetchval(ended))


async def let_go(taken: list[asyncpg.Connection]) -> None:
    """Give connections back."""
    for connection in taken:
        await connection.close(timeout=10)


@pytest.mark.thorough
@pytest.mark.fault("H15", f"all {ROOM} connections of Postgres taken by others, for 3 s under orders")
async def test_database_without_room_is_asked_seldom_and_waited_for(
    kafka: KafkaServer, tmp_path: Path, fault_report: FaultReport
) -> None:
    """A service that lost its connections to others says 503, tries at a bounded rate, and recovers by itself."""
    async with (
        open_narrow_postgres() as server,
        open_shop(server, kafka, tmp_path) as shop,
        open_trade(shop) as trade,
    ):
        taken = await take_all(server)
        try:
            assert await read_reward(trade) == "200"  # what it had before goes on working
            while await end_backends(taken[0]):  # it is quick to connect again, as long as there is room
                taken += await take_all(server)
            await trade.redeemers.wait_answers(UNAVAILABLE)
            await trade.service.wait_readiness(503)
            tries, seconds = await count_tries(trade, AWAY_SECONDS)
            assert await trade.is_live()
        finally:
            await let_go(taken)
        back_seconds = await trade.wait_back()
        assert tries < TRIES_A_SECOND * seconds
        assert any("too many clients" in str(line.get("error")) for line in trade.service.log())
        await trade.report(fault_report, back_seconds)
        fault_report.measure(tries=f"{tries / seconds:.1f} a second")


async def count_tries(trade: Trade, seconds: float) -> tuple[float, float]:
    """Watch the pool for a while; return how often it tried to connect in vain, and in how many seconds."""
    loop = asyncio.get_running_loop()
    before, began = await _failed_connects(trade), loop.time()
    await asyncio.sleep(seconds)
    return await _failed_connects(trade) - before, loop.time() - began


async def _failed_connects(trade: Trade) -> float:
    metrics = await trade.service.metrics()
    return sum(value for name, value in metrics.items() if name.startswith("lp_postgres_pool_failed_connects_total"))
