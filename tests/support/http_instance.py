"""Start the test process on sockets that the test holds, as the starter of a rolling restart does."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from socket import socket
from types import MappingProxyType
from typing import Any

import orjson

from runtime.listener import open_listener
from sandbox.servers import KeptProcess, Program, start_process
from tests.support.raw_http import Answer, ask

ROOT = Path(__file__).parents[2]


class HttpInstance:
    """One running test process and the address of its admin port."""

    def __init__(self, process: KeptProcess, admin: tuple[str, int], log: Path) -> None:
        self.process = process
        self.admin = admin
        self.log = log

    async def ask_admin(self, path: str) -> Answer:
        """Ask its admin port."""
        return await ask(self.admin, f"GET {path} HTTP/1.1\r\nhost: admin\r\n\r\n".encode())

    async def wait_admin(self, path: str, status: int) -> Answer:
        """Ask its admin port until it answers with this status."""
        async with asyncio.timeout(20):
            while True:
                answer = await self.ask_admin(path)
                if answer.status == status:
                    return answer
                await asyncio.sleep(0.02)

    def lines(self, event: str) -> list[dict[str, Any]]:  # Any: a log field may be anything
        """Return the lines of its log that say this."""
        return [line for line in self._lines() if line["event"] == event]

    async def end(self, seconds: float = 40.0) -> tuple[int, str]:
        """Wait for its end; return its status and what its last log line says."""
        status = await self.process.wait(seconds)
        return status, next((line["event"] for line in reversed(self._lines())), "")

    def _lines(self) -> list[dict[str, Any]]:
        return [orjson.loads(line) for line in self.log.read_bytes().splitlines() if line.startswith(b"{")]

    async def wait_ready(self) -> None:
        """Wait until it says that traffic may come."""
        await self.wait_admin("/readyz", 200)


@asynccontextmanager
async def open_instance(
    listener: socket,
    directory: Path,
    *,
    name: str = "http",
    variables: Mapping[str, str] = MappingProxyType({}),
    **settings: object,
) -> AsyncIterator[HttpInstance]:
    """Start one on a listening socket, with more variables than its settings; it is stopped at the end.

    Settings are HTTP_TEST_ variables, in lower case.
    """
    with open_listener("127.0.0.1", 0) as admin:
        address = admin.getsockname()
        inherited = {"http__listen_fd": listener.fileno(), "admin__listen_fd": admin.fileno()}
        environment = {f"HTTP_TEST_{key.upper()}": str(value) for key, value in {**inherited, **settings}.items()}
        environment |= variables
        log = directory / f"{name}.log"
        process = await start_process(
            Program(
                name=name,
                command=[sys.executable, "-m", "tests.support.http_process"],
                log=log,
                directory=ROOT,
                environment=environment,
                pass_descriptors=[listener.fileno(), admin.fileno()],
            )
        )
    try:
        yield HttpInstance(process, address, log)
    finally:
        with suppress(ProcessLookupError):
            await process.stop()
        process.release()
