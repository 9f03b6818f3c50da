"""Drive one HTTP address with busy keep-alive connections, count what comes back, and compare two that answer alike."""

import asyncio
import re
import statistics
import time
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from tests.benchmarks.report import Row

PAIRS = 7
SECONDS = 4.0
CONNECTIONS = 32

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)\r\n", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class LoadResult:
    """What one run saw: answers a second, the share that was not 200, and latencies in milliseconds."""

    requests_per_second: float
    failures: int
    p50_ms: float
    p99_ms: float


@dataclass(slots=True)
class _Tally:
    """What all connections of one run write down."""

    counting: bool = False
    stopping: bool = False
    failures: int = 0
    latencies: list[float] = field(default_factory=list)


class _Connection(asyncio.Protocol):
    """One keep-alive client: it sends the next request as soon as the last one is answered."""

    def __init__(self, request: bytes, tally: _Tally) -> None:
        self._request = request
        self._tally = tally
        self._buffer = b""
        self._sent_at = 0.0
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._send()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return
        length = _LENGTH.search(self._buffer, 0, end + 2)
        if length is None:
            self._tally.failures += 1
            self._transport.close()
            return
        if len(self._buffer) < end + 4 + int(length[1]):
            return
        if self._tally.counting:
            self._tally.latencies.append(time.perf_counter() - self._sent_at)
            self._tally.failures += not self._buffer.startswith(b"HTTP/1.1 200")
        self._buffer = b""
        if self._tally.stopping:
            self._transport.close()
        else:
            self._send()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - the signature is asyncio's
        if not self._tally.stopping:
            self._tally.failures += 1
        if not self.closed.done():
            self.closed.set_result(None)

    def _send(self) -> None:
        self._sent_at = time.perf_counter()
        self._transport.write(self._request)


async def drive(
    url: str, *, headers: dict[str, str], connections: int, seconds: float, warm_up_seconds: float = 1.0
) -> LoadResult:
    """Send GET requests to one URL over busy keep-alive connections, and measure after the warm-up.

    Closed loop: a slow server is asked less often, so the rates of two servers compare, and the latencies are those
    of a server kept busy, not of an idle one.
    """
    parts = urlsplit(url)
    lines = [
        f"GET {parts.path} HTTP/1.1",
        f"Host: {parts.netloc}",
        *(f"{name}: {value}" for name, value in headers.items()),
    ]
    request = ("\r\n".join(lines) + "\r\n\r\n").encode()
    loop = asyncio.get_running_loop()
    tally = _Tally()
    clients = []
    for _ in range(connections):
        _, client = await loop.create_connection(
            lambda: _Connection(request, tally), str(parts.hostname), int(parts.port or 80)
        )
        clients.append(client)
    await asyncio.sleep(warm_up_seconds)
    tally.counting, began = True, time.perf_counter()
    await asyncio.sleep(seconds)
    tally.counting, took = False, time.perf_counter() - began
    tally.stopping = True
    await asyncio.wait_for(asyncio.gather(*(client.closed for client in clients)), timeout=30)
    ordered = sorted(tally.latencies) or [float("nan")]
    return LoadResult(
        requests_per_second=len(tally.latencies) / took,
        failures=tally.failures,
        p50_ms=ordered[len(ordered) // 2] * 1000,
        p99_ms=ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))] * 1000,
    )


async def compare(what: str, *, bare_url: str, our_url: str, headers: dict[str, str], rate_goal: str) -> list[Row]:
    """Drive a bare application and ours in alternating pairs; compare their rates and their slowest hundredths.

    Raises:
        RuntimeError: an answer was not 200.
    """
    bare: list[LoadResult] = []
    ours: list[LoadResult] = []
    for _ in range(PAIRS):
        for url, results in ((bare_url, bare), (our_url, ours)):
            results.append(await drive(url, headers=headers, connections=CONNECTIONS, seconds=SECONDS))
    failures = sum(result.failures for result in (*bare, *ours))
    if failures:
        raise RuntimeError(f"{failures} requests were not answered with 200")
    rates = [one.requests_per_second / other.requests_per_second for one, other in zip(ours, bare, strict=True)]
    tails = [one.p99_ms / other.p99_ms for one, other in zip(ours, bare, strict=True)]
    return [
        Row(
            f"{what}: rate against a bare ASGI application",
            statistics.median(rates),
            rate_goal,
            f"{_rate(ours)} against {_rate(bare)} requests/s, {CONNECTIONS} connections; ratios {_span(rates)}",
        ),
        Row(
            f"{what}: p99 against a bare ASGI application",
            statistics.median(tails),
            "<= 3",
            f"{_p99(ours)} against {_p99(bare)} ms; ratios {_span(tails)}",
        ),
    ]


def _rate(results: list[LoadResult]) -> str:
    return f"{statistics.median(result.requests_per_second for result in results):,.0f}"


def _p99(results: list[LoadResult]) -> str:
    return f"{statistics.median(result.p99_ms for result in results):.1f}"


def _span(ratios: list[float]) -> str:
    return f"{min(ratios):.2f} to {max(ratios):.2f}"
