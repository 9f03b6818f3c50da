"""Requests lost when one of two instances stops under a hundred busy keep-alive clients: ours, and plain uvicorn."""

import asyncio
import signal
import socket
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from urllib.parse import urlsplit

from sandbox.instance import COUPON_FLOW, Service
from sandbox.system import System, open_system
from tests.benchmarks.bench_coupon_read import MEMBER, plant_coupons, start_bare
from tests.benchmarks.report import Row
from tests.support.busy_clients import BusyClients

CLIENTS = 100
STOPS = 5


async def _lost(
    address: tuple[str, int], path: str, headers: dict[str, str], replace_one: Callable[[], Awaitable[None]]
) -> int:
    """Return how many requests went without their answer while instances were replaced."""
    async with BusyClients(address, CLIENTS, path=path, headers=headers, pause_seconds=0.01) as clients:
        await clients.wait_answers(CLIENTS)
        for _ in range(STOPS):
            await replace_one()
            await clients.wait_answers(CLIENTS)
    return sum(clients.errors.values())


async def _lost_by_ours(system: System, path: str) -> int:
    running = [await system.start(Service.COUPON_API)]

    async def replace_one() -> None:
        running.append(await system.replace(running.pop()))

    url = urlsplit(system.base_url(Service.COUPON_API))
    headers = {"authorization": f"Bearer {system.token(MEMBER)}"}
    return await _lost((str(url.hostname), int(url.port or 0)), path, headers, replace_one)


async def _lost_by_uvicorn(system: System, path: str) -> int:
    with socket.create_server(("127.0.0.1", 0), backlog=1_024) as listener:
        running = [await start_bare(system, listener)]

        async def replace_one() -> None:
            old = running.pop()
            running.append(await start_bare(system, listener))
            await asyncio.sleep(2.0)  # it has no readiness to ask for
            await old.stop(signal.SIGTERM, grace_seconds=30)
            old.release()

        try:
            return await _lost(listener.getsockname(), path, {}, replace_one)
        finally:
            await running[0].stop()
            running[0].release()


async def measure() -> list[Row]:
    """Replace instances of both under the same clients."""
    with tempfile.TemporaryDirectory() as directory:
        async with open_system(Path(directory), services=COUPON_FLOW) as system:
            path = f"/v1/coupons/{await plant_coupons(system.coupons_url)}"
            theirs = await _lost_by_uvicorn(system, path)
            ours = await _lost_by_ours(system, path)
    return [
        Row(
            "stop under load: requests lost",
            float(ours),
            "= 0",
            f"{CLIENTS} busy keep-alive clients, {STOPS} rolling restarts; plain uvicorn lost {theirs}",
        )
    ]


def run() -> list[Row]:
    """Measure, on an event loop of its own."""
    return asyncio.run(measure())
