"""Drive one HTTP address with busy keep-alive connections and count what comes back."""

import asyncio
import re
import time
from dataclasses import dataclass, field
from urllib.parse import urlsplit

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
