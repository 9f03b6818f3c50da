"""GET /v1/coupons/{code} through the real service, against a bare ASGI application that runs the same query."""

import asyncio
import contextlib
import socket
import statistics
import sys
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg

from loyalty.identifier import new_coupon_code
from sandbox.instance import COUPON_FLOW, Service
from sandbox.servers import KeptProcess, Program, start_process
from sandbox.system import ROOT, System, open_system
from services.coupon_api.store import FIND
from tests.benchmarks.load import LoadResult, drive
from tests.benchmarks.report import Row

PAIRS = 7
SECONDS = 4.0
CONNECTIONS = 32
COUPONS = 10_000
MEMBER = "m-bench"


async def plant_coupons(dsn: str) -> str:
    """Store ten thousand coupons of one member and return the code of one."""
    connection = await asyncpg.connect(dsn)
    codes = [new_coupon_code() for _ in range(COUPONS)]
    await connection.execute(
        """
        insert into coupons
            (code, member_id, reward_id, value_cents, currency, issued_at, expires_at, status, version, source)
        select code, $2, 'rw-bench', 500, 'EUR', now(), now() + interval '30 days', 'issued', 1, 'operator'
        from unnest($1::text[]) code
        """,
        codes,
        MEMBER,
    )
    await connection.execute("vacuum analyze coupons")
    await connection.close()
    return codes[COUPONS // 2]


async def start_bare(system: System, listener: socket.socket) -> KeptProcess:
    """Start the reference on a listening socket."""
    command = [sys.executable, "-m", "tests.benchmarks.bare_read", str(listener.fileno()), system.coupons_url, FIND]
    return await start_process(
        Program(
            name="bare_read",
            command=command,
            log=system.directory / "bare_read.log",
            directory=ROOT,
            pass_descriptors=(listener.fileno(),),
        )
    )


@contextlib.asynccontextmanager
async def _bare_application(system: System) -> AsyncIterator[str]:
    """Run the reference and yield its address."""
    with socket.create_server(("127.0.0.1", 0), backlog=1_024) as listener:
        process = await start_bare(system, listener)
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            await process.stop()
            process.release()


async def measure() -> list[Row]:
    """Drive both in alternating pairs and compare their rates and their slowest hundredths."""
    with tempfile.TemporaryDirectory() as directory:
        async with open_system(Path(directory), services=COUPON_FLOW) as system:
            code = await plant_coupons(system.coupons_url)
            await system.start(Service.COUPON_API)
            headers = {"Authorization": f"Bearer {system.token(MEMBER)}"}
            bare: list[LoadResult] = []
            ours: list[LoadResult] = []
            async with _bare_application(system) as bare_url:
                addresses = [(bare_url, bare), (system.base_url(Service.COUPON_API), ours)]
                for _ in range(PAIRS):
                    for base_url, results in addresses:
                        url = f"{base_url}/v1/coupons/{code}"
                        results.append(await drive(url, headers=headers, connections=CONNECTIONS, seconds=SECONDS))
    failures = sum(result.failures for result in (*bare, *ours))
    if failures:
        raise RuntimeError(f"{failures} requests were not answered with 200")
    rates = [one.requests_per_second / other.requests_per_second for one, other in zip(ours, bare, strict=True)]
    tails = [one.p99_ms / other.p99_ms for one, other in zip(ours, bare, strict=True)]
    return [
        Row(
            "coupon read: rate against a bare ASGI application",
            statistics.median(rates),
            ">= 0.5",
            f"{_rate(ours)} against {_rate(bare)} requests/s, {CONNECTIONS} connections; ratios {_span(rates)}",
        ),
        Row(
            "coupon read: p99 against a bare ASGI application",
            statistics.median(tails),
            "<= 3",
            f"{_p99(ours)} against {_p99(bare)} ms; ratios {_span(tails)}",
        ),
    ]


def run() -> list[Row]:
    """Measure, on an event loop of its own."""
    return asyncio.run(measure())


def _rate(results: list[LoadResult]) -> str:
    return f"{statistics.median(result.requests_per_second for result in results):,.0f}"


def _p99(results: list[LoadResult]) -> str:
    return f"{statistics.median(result.p99_ms for result in results):.1f}"


def _span(ratios: list[float]) -> str:
    return f"{min(ratios):.2f} to {max(ratios):.2f}"
