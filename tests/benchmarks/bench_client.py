"""The CPU of one request through each of our two HTTP clients, against httpx.

The members' client has a hundred under way at once; that of Salesforce makes full calls, one after the other.
"""

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable
from typing import Protocol, cast

import httpx

from runtime.http_client import HttpClient as ServiceClient
from sandbox.http_client import HttpClient
from tests.benchmarks.report import Row

PAIRS = 5
UNDER_WAY = 100
ANSWER_SECONDS = 0.2
CALLS = 300
CALL_BYTES = 52_000
"""Of a call with 200 consents, as in `bench_consents`; their results are `RESULT_BYTES`."""
RESULT_BYTES = 14_000


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


async def measure_members() -> Row:
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
    return Row(name, ratio, "<= 0.5", f"{own:,.0f} against {other:,.0f} us, the server's side included")


class _CallServer(asyncio.Protocol):
    """Answers when a head and as many bytes have come as a call has."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._received = bytearray()

    def data_received(self, data: bytes) -> None:
        self._received += data
        _, _, body = self._received.partition(b"\r\n\r\n")
        if len(body) == CALL_BYTES:
            self._received.clear()
            head = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % RESULT_BYTES
            self._transport.write(head + bytes(RESULT_BYTES))


async def _call_cpu_us(call: Callable[[], Awaitable[object]]) -> float:
    began = time.process_time()
    for _ in range(CALLS):
        await call()
    return (time.process_time() - began) / CALLS * 1e6


async def measure_calls() -> Row:
    """Make calls as large as those of Salesforce through each client in turn."""
    server = await asyncio.get_running_loop().create_server(_CallServer, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    content = bytes(CALL_BYTES)
    async with (
        httpx.AsyncClient(trust_env=False) as theirs,
        ServiceClient(
            url,
            tls=None,
            connections_max=1,
            connect_seconds=5.0,
            idle_seconds=60.0,
            answer_bytes_max=RESULT_BYTES,
        ) as ours,
    ):

        async def own() -> float:
            return await _call_cpu_us(lambda: ours.send("PATCH", "/", content=content))

        async def other() -> float:
            return await _call_cpu_us(lambda: theirs.patch(url, content=content))

        await own(), await other()
        pairs = [(await own(), await other()) for _ in range(PAIRS)]
    server.close()
    one, two = (statistics.median(column) for column in zip(*pairs, strict=True))
    return Row(
        "one full call of Salesforce: CPU against httpx",
        statistics.median(one / two for one, two in pairs),
        "<= 0.5",
        f"{one:,.0f} against {two:,.0f} us, the server's side included",
    )


async def measure() -> list[Row]:
    """Measure both clients, one after the other."""
    return [await measure_members(), await measure_calls()]


def run() -> list[Row]:
    """Measure, on an event loop of its own."""
    return asyncio.run(measure())
