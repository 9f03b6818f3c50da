"""GET /v1/coupons/{code} through the real service, against a bare ASGI application that runs the same query."""

import asyncio
import contextlib
import socket
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
from tests.benchmarks.load import compare
from tests.benchmarks.report import Row

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
            async with _bare_application(system) as bare_url:
                return await compare(
                    "coupon read",
                    bare_url=f"{bare_url}/v1/coupons/{code}",
                    our_url=f"{system.base_url(Service.COUPON_API)}/v1/coupons/{code}",
                    headers={"Authorization": f"Bearer {system.token(MEMBER)}"},
                    rate_goal=">= 0.5",
                )


def run() -> list[Row]:
    """Measure, on an event loop of its own."""
    return asyncio.run(measure())
