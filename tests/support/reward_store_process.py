"""reward_store as a real process, for tests that send it signals, load and worse."""

import asyncio
import os
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import orjson

from runtime.auth import Scope, sign_token
from sandbox.servers import KafkaServer, KeptProcess, PostgresServer, Program, start_process
from tests.support.databases import PASSWORDS

ROOT = Path(__file__).parents[2]
SECRET = "0123456789abcdef" * 2


@dataclass(frozen=True, slots=True)
class Place:
    """Where a reward_store lives: its servers, its database and topic, and a directory for its files."""

    postgres: PostgresServer
    kafka: KafkaServer
    database: str
    topic: str
    directory: Path


class RewardStoreProcess:
    """A reward_store that was started: its process, its addresses, its log."""

    def __init__(self, process: KeptProcess, port: int, admin_port: int) -> None:
        self.process = process
        self.port = port
        self.admin_port = admin_port

    def log(self) -> list[dict[str, Any]]:  # Any: a log field may be anything
        """Return the lines of its log so far."""
        return [orjson.loads(line) for line in self.process.log.read_bytes().splitlines() if line.startswith(b"{")]

    def events(self) -> list[str]:
        """Return what its log lines say, in order."""
        return [line["event"] for line in self.log()]

    def client(self, subject: str, scope: Scope = "member", *, connections: int = 100) -> httpx.AsyncClient:
        """Return a client with a token of its own."""
        return httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{self.port}",
            headers={"authorization": f"Bearer {sign_token(subject, scope, SECRET)}"},
            limits=httpx.Limits(max_connections=connections, max_keepalive_connections=connections),
            timeout=20,
            verify=False,  # noqa: S501 - plain HTTP on loopback; building a TLS context would cost more than the call
        )

    async def readiness(self) -> int | None:
        """Return the status of its readiness, or None while nobody answers."""
        try:
            async with _admin_client() as client:
                return (await client.get(f"http://127.0.0.1:{self.admin_port}/readyz")).status_code
        except httpx.TransportError:
            return None

    async def metric(self, name: str) -> float:
        """Return the value of a metric without labels."""
        async with _admin_client() as client:
            text = (await client.get(f"http://127.0.0.1:{self.admin_port}/metrics")).text
        [line] = [line for line in text.splitlines() if line.startswith(f"{name} ")]
        return float(line.split(" ")[1])

    async def wait_metric(self, name: str, value: float) -> None:
        """Wait until a metric without labels has this value."""
        async with asyncio.timeout(30):
            while await self.metric(name) != value:  # noqa: ASYNC110 - what another process says knows no event
                await asyncio.sleep(0.1)

    async def wait_readiness(self, status: int) -> None:
        """Wait until readiness answers this status, while the process runs."""
        async with asyncio.timeout(30):
            while await self.readiness() != status:
                assert self.process.is_running, self.process.log.read_text()
                await asyncio.sleep(0.05)

    async def wait_event(self, event: str) -> None:
        """Wait until a log line says this."""
        async with asyncio.timeout(30):
            while event not in self.events():
                assert self.process.is_running, self.process.log.read_text()
                await asyncio.sleep(0.02)


def _admin_client() -> httpx.AsyncClient:
    return httpx.AsyncClient(verify=False)  # noqa: S501 - plain HTTP on loopback


@asynccontextmanager
async def open_reward_store(place: Place, **settings: str) -> AsyncIterator[RewardStoreProcess]:
    """Start reward_store; settings are variables without their prefix. It is stopped on leaving."""
    secret_file, token_file = place.directory / "token-secret", place.directory / "operator-token"
    secret_file.write_text(SECRET)
    token_file.write_text(sign_token("reward-store", "operator", SECRET))
    port, admin_port = free_port(), free_port()
    variables = {
        "POSTGRES__HOST": place.postgres.host,
        "POSTGRES__PORT": str(place.postgres.port),
        "POSTGRES__DATABASE": place.database,
        "POSTGRES__USER": "reward_store",
        "POSTGRES__PASSWORD": PASSWORDS["reward_store"],
        "KAFKA__BOOTSTRAP": place.kafka.bootstrap,
        "RELAY__TOPIC": place.topic,
        "AUTH__SECRET_FILE": str(secret_file),
        "COUPON_API__URLS": "http://127.0.0.1:9",
        "COUPON_API__TOKEN_FILE": str(token_file),
        "HTTP__PORT": str(port),
        "HTTP__DRAIN_LAG_SECONDS": "0.3",
        "ADMIN__PORT": str(admin_port),
        **settings,
    }
    environment = {**os.environ, **{f"REWARD_STORE_{name}": value for name, value in variables.items()}}
    program = Program(
        name="reward_store",
        command=[sys.executable, "-m", "services.reward_store"],
        log=place.directory / f"reward_store-{admin_port}.log",
        directory=ROOT,
        environment=environment,
    )
    process = await start_process(program)
    try:
        yield RewardStoreProcess(process, int(variables["HTTP__PORT"]), admin_port)
    finally:
        await process.stop()
        process.release()


def free_port() -> int:
    """Return a port of the loopback that nobody listens on now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
