"""coupon_consumer as a real process, for tests that send it signals, poison and worse."""

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import orjson

from sandbox.servers import KafkaServer, KeptProcess, PostgresServer, Program, start_process
from tests.support.coupon_api_process import free_port
from tests.support.databases import PASSWORDS
from tests.support.wait_until import wait_until

ROOT = Path(__file__).parents[2]


class CouponConsumerProcess:
    """A running coupon_consumer: its process, its admin address, its log."""

    def __init__(self, process: KeptProcess, admin_port: int) -> None:
        self.process = process
        self.admin_port = admin_port

    def log(self) -> list[dict[str, Any]]:  # Any: a log field may be anything
        """Return the lines of its log so far."""
        return [orjson.loads(line) for line in self.process.log.read_bytes().splitlines() if line.startswith(b"{")]

    def events(self) -> list[str]:
        """Return what its log lines say, in order."""
        return [line["event"] for line in self.log()]

    async def wait_event(self, event: str, *, count: int = 1, seconds: float = 40) -> None:
        """Wait until so many log lines say this."""
        async with asyncio.timeout(seconds):
            while self.events().count(event) < count:
                assert self.process.is_running, self.process.log.read_text()
                await asyncio.sleep(0.05)

    async def readiness(self) -> tuple[int, dict[str, Any]] | None:  # Any: the report's JSON
        """Return the status and the report of its readiness, or None while nobody answers."""
        try:
            async with httpx.AsyncClient() as client:
                answer = await client.get(f"http://127.0.0.1:{self.admin_port}/readyz", timeout=5)
        except httpx.TransportError:
            return None
        return answer.status_code, answer.json()

    async def wait_readiness(self, status: int, *, seconds: float = 40) -> dict[str, Any]:  # Any: the report's JSON
        """Wait until readiness answers this status, while the process runs; return its report."""
        async with asyncio.timeout(seconds):
            while True:
                found = await self.readiness()
                if found is not None and found[0] == status:
                    return found[1]
                assert self.process.is_running, self.process.log.read_text()
                await asyncio.sleep(0.1)

    async def metrics(self) -> dict[str, float]:
        """Return its metrics, by name with labels."""
        async with httpx.AsyncClient() as client:
            text = (await client.get(f"http://127.0.0.1:{self.admin_port}/metrics", timeout=5)).text
        lines = (line.rpartition(" ") for line in text.splitlines() if line and not line.startswith("#"))
        return {name: float(value) for name, _, value in lines}

    async def wait_settled(self, **counts: float) -> None:
        """Wait until the counters of records by outcome are these: they follow the commit by a moment."""
        wanted = {f'lp_consumer_records_total{{outcome="{outcome}"}}': count for outcome, count in counts.items()}

        async def are_counted() -> bool:
            metrics = await self.metrics()
            return all(metrics[name] == count for name, count in wanted.items())

        await wait_until(are_counted)


def variables(postgres: PostgresServer, database: str, bootstrap: str, topic: str, **settings: str) -> dict[str, str]:
    """Return the environment of a consumer; settings are variables without their prefix."""
    values = {
        "POSTGRES__HOST": postgres.host,
        "POSTGRES__PORT": str(postgres.port),
        "POSTGRES__DATABASE": database,
        "POSTGRES__USER": "coupon_consumer",
        "POSTGRES__PASSWORD": PASSWORDS["coupon_consumer"],
        "KAFKA__BOOTSTRAP": bootstrap,
        "CONSUMER__TOPIC": topic,
        "CONSUMER__GROUP": f"group-{topic}",
        "CONSUMER__SESSION_TIMEOUT_SECONDS": "6",
        "CONSUMER__MAX_POLL_INTERVAL_SECONDS": "30",
        "CHECK_SECONDS": "1",
        "BROKER_DOWN_SECONDS": "3",
        "LOG_FORMAT": "json",
        **settings,
    }
    return {**os.environ, **{f"COUPON_CONSUMER_{name}": value for name, value in values.items()}}


@asynccontextmanager
async def open_coupon_consumer(
    postgres: PostgresServer, database: str, kafka: KafkaServer, topic: str, directory: Path, **settings: str
) -> AsyncIterator[CouponConsumerProcess]:
    """Start coupon_consumer; settings are variables without their prefix. It is stopped on leaving."""
    admin_port = free_port()
    settings = {"ADMIN__PORT": str(admin_port), **settings}
    program = Program(
        name="coupon_consumer",
        command=[sys.executable, "-m", "services.coupon_consumer"],
        log=directory / f"coupon_consumer-{admin_port}.log",
        directory=ROOT,
        environment=variables(postgres, database, kafka.bootstrap, topic, **settings),
    )
    process = await start_process(program)
    try:
        yield CouponConsumerProcess(process, admin_port)
    finally:
        await process.stop()
        process.release()


async def run_command(
    postgres: PostgresServer, database: str, bootstrap: str, topic: str, *arguments: str
) -> subprocess.CompletedProcess[str]:
    """Run one of the operator's commands to its end."""
    return await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "services.coupon_consumer", *arguments],
        cwd=ROOT,
        env=variables(postgres, database, bootstrap, topic),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
