"""Admin ports are asked on real sockets; whatever goes wrong there is one kind of failure, and comes in time."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from sandbox.instance import Endpoint, Service
from sandbox.probe import ProbeFailed, probe
from sandbox.servers.address import LOOPBACK, free_port


@asynccontextmanager
async def _server(answer: bytes | None) -> AsyncIterator[str]:
    """Give these bytes to whoever asks and close, or keep silent until they leave; the base URL comes out."""
    handled = asyncio.Event()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        if answer is None:
            await reader.read()
        else:
            writer.write(answer)
        writer.close()
        await writer.wait_closed()
        handled.set()

    async with await asyncio.start_server(handle, LOOPBACK, 0) as server:
        yield f"http://{LOOPBACK}:{server.sockets[0].getsockname()[1]}"
        await handled.wait()


async def test_answer_comes_with_status_and_body() -> None:
    """Status and body are what the server sent."""
    async with _server(b"HTTP/1.1 503 Service Unavailable\r\nX: y\r\n\r\nnot yet") as url:
        assert await probe(f"{url}/readyz") == (503, "not yet")


@pytest.mark.parametrize("answer", [None, b"", b"nonsense"], ids=["silence", "nothing", "nonsense"])
async def test_no_answer_is_a_failed_probe(answer: bytes | None) -> None:
    """Silence, an empty answer and one that is not HTTP all fail the probe."""
    async with _server(answer) as url:
        with pytest.raises(ProbeFailed):
            await probe(f"{url}/readyz", timeout_seconds=0.3)


async def test_nobody_listening_is_a_failed_probe() -> None:
    """A refused connection fails the probe."""
    with pytest.raises(ProbeFailed, match="ConnectionRefusedError"):
        await probe(f"http://{LOOPBACK}:{free_port()}/")


@pytest.mark.parametrize(
    ("metrics", "total"),
    [
        (b"lag 3\n", 3.0),
        (b'lag{partition="0"} 3\nlag{partition="1"} 4.5\nlag_max 100\n', 7.5),
        (b'lag{partition="0"} NaN\nlag{partition="1"} 4\n', 4.0),
        (b"lag NaN\n", None),
        (b"# HELP lag How far.\n", None),
    ],
    ids=["plain", "labelled", "partly unknown", "unknown", "missing"],
)
async def test_metric_is_summed_over_its_labels(metrics: bytes, total: float | None) -> None:
    """An instance's metric is the sum of its known samples, and None where there is none."""
    async with _server(b"HTTP/1.1 200 OK\r\n\r\n" + metrics) as url:
        assert await Endpoint("one", Service.COUPON_API, None, url).total("lag") == total
