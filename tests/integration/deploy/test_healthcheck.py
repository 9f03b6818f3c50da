"""The container's health check, as Docker runs it."""

import asyncio
import os
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[3] / "deploy" / "healthcheck.py"


@asynccontextmanager
async def answering(answer: bytes) -> AsyncIterator[tuple[int, list[bytes]]]:
    """Serve one answer to every request on a port of loopback; give the port, and the requests as they come."""
    requests: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        requests.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(answer)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1], requests


async def check(*arguments: str) -> tuple[int | None, str]:
    """Run the script with an interpreter that knows nothing but the standard library; return status and output."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-I", "-S", str(SCRIPT), *arguments, stdout=asyncio.subprocess.PIPE, env=dict(os.environ)
    )
    output, _ = await asyncio.wait_for(process.communicate(), 30)
    return process.returncode, output.decode()


async def test_a_ready_process_gives_status_0() -> None:
    """It asks for readiness when no other path is named, and prints the answer's body."""
    async with answering(b"HTTP/1.1 200 OK\r\ncontent-length: 14\r\n\r\n" + b'{"ready":true}') as (port, requests):
        assert await check("/readyz", str(port)) == (0, '{"ready":true}\n')
        assert requests[0].startswith(b"GET /readyz HTTP/1.1\r\n")


@pytest.mark.parametrize(
    "answer", [b"HTTP/1.1 503 Service Unavailable\r\n\r\n" + b'{"ready":false}', b"HTTP/1.1 2000 Odd\r\n\r\n", b""]
)
async def test_any_other_answer_gives_status_1(answer: bytes) -> None:
    """Neither 503 nor nonsense nor a connection that closes without a word counts as ready."""
    async with answering(answer) as (port, _):
        status, told = await check("/readyz", str(port))
    assert status == 1
    assert told.strip()


async def test_a_port_where_nobody_listens_gives_status_1_and_says_so() -> None:
    """A process that has not come to its admin port yet is told apart from one that is not ready."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    status, told = await check("/readyz", str(port))
    assert status == 1
    assert told.startswith(f"no answer on port {port}")


async def test_a_process_that_never_answers_gives_status_1() -> None:
    """A listener that accepts and stays silent is given up, by the script itself."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        status, told = await check("/readyz", str(silent.getsockname()[1]))
    assert (status, "timed out" in told) == (1, True)
