"""The CPU of one request through the members' HTTP client, against httpx, with a hundred under way at once."""

import asyncio
import statistics
import time
from typing import Protocol

import httpx

from sandbox.http_client import HttpClient
from tests.benchmarks.report import Row

PAIRS = 5
UNDER_WAY = 100
ANSWER_SECONDS = 0.2


class _Client(Protocol):
    async def request(self, method: str, url: str) -> httpx.Response: ...


async def _answer_late(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while True:
            await reader.readuntil(b"\r\n\r\n")
            await asyncio.sleep(ANSWER_SECONDS)
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()


async def _cpu_us(client: _Client, url: str) -> float:
    began = time.process_time()
    await asyncio.gather(*(client.request("GET", url) for _ in range(UNDER_WAY)))
    return (time.process_time() - began) / UNDER_WAY * 1e6


async def measure() -> list[Row]:
    """Send a hundred requests at once through each client in turn, over connections that are open already."""
    server = await asyncio.start_server(_answer_late, "127.0.0.1", 0, backlog=1_024)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    ours = HttpClient()
    async with httpx.AsyncClient(trust_env=False) as theirs:
        await _cpu_us(ours, url)
        await _cpu_us(theirs, url)
        pairs = [(await _cpu_us(ours, url), await _cpu_us(theirs, url)) for _ in range(PAIRS)]
    await ours.aclose()
    server.close()
    own, other = (statistics.median(column) for column in zip(*pairs, strict=True))
    ratio = statistics.median(one / two for one, two in pairs)
    name = f"one request of the members' traffic, {UNDER_WAY} under way: CPU against httpx"
    return [Row(name, ratio, "<= 0.5", f"{own:,.0f} against {other:,.0f} us, the server's side included")]


def run() -> list[Row]:
    """Measure, on an event loop of its own."""
    return asyncio.run(measure())
