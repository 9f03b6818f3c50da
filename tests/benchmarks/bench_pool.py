"""The CPU of one read through our connection pool, against asyncpg's own pool without its reset query."""

import statistics
import time
from collections.abc import Awaitable, Callable
from urllib.parse import unquote, urlsplit

import asyncpg
import uvloop
from pydantic import SecretStr

from runtime.postgres import open_pool
from runtime.settings import PostgresSettings
from sandbox.servers import PostgresServer, open_postgres
from tests.benchmarks.report import Row

PAIRS = 7
READS = 3_000


async def _keep_state(_connection: object) -> None:
    """Stand in for asyncpg's reset query, which would be a second round trip."""


async def _cpu_us(read: Callable[[], Awaitable[object]]) -> float:
    began = time.process_time()
    for _ in range(READS):
        await read()
    return (time.process_time() - began) / READS * 1e6


async def _compare(server: PostgresServer) -> list[tuple[float, float]]:
    parts = urlsplit(server.superuser_url)
    settings = PostgresSettings(
        host=server.host,
        port=server.port,
        database="postgres",
        user=unquote(parts.username or ""),
        password=SecretStr(unquote(parts.password or "")),
    )
    async with (
        asyncpg.create_pool(server.superuser_url, min_size=1, max_size=10, reset=_keep_state) as theirs,
        open_pool(settings) as ours,
    ):

        async def read_ours() -> None:
            async with ours.acquire() as connection:
                await connection.fetchrow("select 1")

        async def read_theirs() -> None:
            async with theirs.acquire() as connection:
                await connection.fetchrow("select 1")

        await _cpu_us(read_ours)
        await _cpu_us(read_theirs)
        return [(await _cpu_us(read_ours), await _cpu_us(read_theirs)) for _ in range(PAIRS)]


async def measure() -> list[Row]:
    """Read in alternating series and compare the CPU of one read."""
    async with open_postgres() as server:
        pairs = await _compare(server)
    ours, theirs = (statistics.median(column) for column in zip(*pairs, strict=True))
    return [
        Row(
            "one read through our pool: CPU against asyncpg's pool without reset",
            statistics.median(one / other for one, other in pairs),
            "<= 0.8",
            f"{ours:.0f} against {theirs:.0f} us",
        )
    ]


def run() -> list[Row]:
    """Measure, on uvloop, as the services run."""
    return uvloop.run(measure())
