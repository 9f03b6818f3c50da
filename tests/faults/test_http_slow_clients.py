"""Clients that send or read a byte at a time: each is ended at its limit, and nobody else notices (H14)."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Iterator
from pathlib import Path
from signal import Signals
from socket import socket
from typing import Any

import pytest

from runtime.listener import open_listener
from tests.support.busy_clients import BusyClients
from tests.support.eventually import eventually
from tests.support.fault_report import FaultReport
from tests.support.footprint import footprint_of
from tests.support.http_instance import HttpInstance, open_instance
from tests.support.judgement import judge_end, judge_time
from tests.support.raw_http import RawClient

EACH = 50
LIMIT_SECONDS = 1.0
DRIP_SECONDS = 0.1
HEADER = b"GET /ok HTTP/1.1\r\nhost: test\r\nx-slow: "
BODY = b"POST /ok HTTP/1.1\r\nhost: test\r\ncontent-length: 60000\r\n\r\n"
# Large blocks go back to the system at once: else the allocator keeps hundreds of megabytes of them, or none.
UNKEPT = {"MALLOC_MMAP_THRESHOLD_": "131072"}
CUT = 'lp_http_refused_total{reason="write_timeout"}'
LARGE = b"GET /bytes/10000000 HTTP/1.1\r\nhost: test\r\n\r\n"


@pytest.fixture
def listener() -> Iterator[socket]:
    """A listening socket that the test holds and hands down."""
    with open_listener("127.0.0.1", 0) as listener:
        yield listener


async def _drip(address: tuple[str, int], beginning: bytes) -> str:
    """Send the beginning of a request and then a byte at a time; return the status and the code of the answer."""
    async with RawClient(address) as client:
        await client.send(beginning)
        answer = asyncio.ensure_future(client.answer())
        while not answer.done():
            client.writer.write(b"x")
            await asyncio.wait({answer}, timeout=DRIP_SECONDS)
        return f"{answer.result().status} {answer.result().code}"


async def _leave_unread(address: tuple[str, int], are_cut: asyncio.Event) -> str:
    """Ask for much, read nothing until the server has cut those who do so, then read; return how the answer ended."""
    async with RawClient(address) as client:
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]  # the reading half is there, too
        await client.send(LARGE)
        await are_cut.wait()
        client.writer.transport.resume_reading()  # type: ignore[attr-defined]  # as above
        try:
            answer = await client.answer()
        except (ConnectionResetError, asyncio.IncompleteReadError):
            return "cut"
        return f"{answer.status}"


def _slow_clients(address: tuple[str, int], are_cut: asyncio.Event) -> Iterator[Awaitable[str]]:
    for _ in range(EACH):
        yield _drip(address, HEADER)
        yield _drip(address, BODY)
        yield _leave_unread(address, are_cut)


async def _metric(instance: HttpInstance, name: str) -> float:
    """Return a metric's value; 0 as long as there is none."""
    lines = (await instance.ask_admin("/metrics")).body.decode().splitlines()
    return next((float(line.rpartition(" ")[2]) for line in lines if line.startswith(f"{name} ")), 0.0)


async def _storm(instance: HttpInstance, address: tuple[str, int]) -> tuple[BusyClients, Counter[str]]:
    """Let slow and busy clients come, and wait until all have gone; return the busy ones and the slow ones' ends."""
    wanted = await _metric(instance, CUT) + EACH
    are_cut = asyncio.Event()

    async def is_cut() -> bool:
        return await _metric(instance, CUT) >= wanted

    async def is_idle() -> bool:
        return await _metric(instance, "lp_http_connections") == 0

    async with BusyClients(address, 20, pause_seconds=0.01) as clients:
        slow = asyncio.gather(*_slow_clients(address, are_cut))
        await eventually(is_cut, seconds=30, pause_seconds=0.1)
        are_cut.set()
        ends = Counter(await slow)
        await clients.wait_answers(200)
    await eventually(is_idle, seconds=30)
    return clients, ends


@pytest.mark.fault("H14", f"{EACH} clients each that drip a header, drip a body, never read; 20 busy ones beside them")
async def test_slow_clients_are_ended_at_their_limit_and_harm_nobody(
    listener: socket, tmp_path: Path, fault_report: FaultReport
) -> None:
    """Slow headers and bodies get 408, slow readers are cut, the others get every answer, and nothing stays open."""
    address = listener.getsockname()
    limits: dict[str, Any] = {f"http__{name}_timeout_seconds": LIMIT_SECONDS for name in ("header", "body", "write")}
    async with open_instance(listener, tmp_path, variables=UNKEPT, **limits) as instance:
        await instance.wait_ready()
        async with BusyClients(address, 20) as clients:
            await clients.wait_answers(200)
        idle = footprint_of(instance.process.pid)
        began = asyncio.get_running_loop().time()
        clients, ends = await _storm(instance, address)
        seconds = asyncio.get_running_loop().time() - began
        fault_report.judge(
            clients.judge(),
            footprint_of(instance.process.pid).judge(idle, more=3),
            judge_time("ending the slow ones", seconds, at_most=40),
        )
        instance.process.send_signal(Signals.SIGTERM)
        fault_report.judge(judge_end("the server", *await instance.end(), wanted=(0, "Process stopped")))
    assert ends == {"408 header-timeout": EACH, "408 body-timeout": EACH, "cut": EACH}
    fault_report.measure(slowest_answer_to_others=f"{clients.slowest_seconds * 1_000:.0f} ms")
