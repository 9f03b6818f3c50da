"""Requests that come in pieces, behind one another, or with an offer to upgrade: each is judged whole, on its own."""

from __future__ import annotations

import asyncio

import pytest
from starlette.types import Receive, Scope, Send

from runtime.http_protocol import HttpProtocol
from runtime.http_server import HttpServer
from runtime.http_state import Phase
from tests.support.eventually import eventually
from tests.support.http_serving import echo, open_server
from tests.support.raw_http import RawClient, ask

GET = b"GET /ok HTTP/1.1\r\nHost: test\r\n\r\n"
POST = b"POST /echo HTTP/1.1\r\nHost: test\r\n"
LARGE_HEADER = b"X: " + b"a" * 50_000 + b"\r\n"
LONG = b"x" * 40_000
UPGRADE = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA\r\n"


async def _wait_phase(server: HttpServer, phase: Phase) -> None:
    """Wait until the one connection has read so far."""

    def has_come() -> bool:
        return [c.phase for c in server._state.connections if isinstance(c, HttpProtocol)] == [phase]

    await eventually(has_come)


@pytest.mark.parametrize("is_first_apart", [True, False])
async def test_large_header_behind_another_request_is_refused_when_it_is_whole(is_first_apart: bool) -> None:
    """Begun while a request is at work, or in the same piece with it, a header is held to its limit all the same."""
    may_answer = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await may_answer.wait()
        await echo(scope, receive, send)

    async with open_server(app) as server, RawClient(server.address) as client:
        if is_first_apart:
            await client.send(GET)
            await _wait_phase(server, Phase.BUSY)
            await client.send(POST + LARGE_HEADER)
        else:
            await client.send(GET + POST + LARGE_HEADER)
        await _wait_phase(server, Phase.HEADER)
        await client.send(b"Y: 1\r\n\r\n")
        await eventually(lambda: server.statistics().refused == {"header_bytes": 1}, seconds=5)
        may_answer.set()
        assert (await client.answer()).closes
        assert await client.read_to_end() == b""


async def test_next_header_begun_with_the_end_of_a_body_is_not_charged_for_it() -> None:
    """A large body's last piece may hold half of the next request's header; both requests are served."""
    async with open_server(echo) as server, RawClient(server.address) as client:
        await client.send(POST + b"Content-Length: %d\r\n\r\n" % len(LONG))
        await _wait_phase(server, Phase.BODY)
        await client.send(LONG + GET[:20])
        assert (await client.answer()).body == LONG
        await client.send(GET[20:])
        assert (await client.answer()).status == 200
        assert server.statistics().refused == {}


@pytest.mark.parametrize(
    ("head", "body", "echoed"),
    [
        pytest.param(b"GET /ok HTTP/1.1\r\nHost: t\r\n" + UPGRADE, b"", b"", id="no body"),
        pytest.param(POST + b"Content-Length: 5\r\n" + UPGRADE, b"hello", b"hello", id="a length"),
        pytest.param(
            POST + UPGRADE + b"Transfer-Encoding: chunked\r\n", b"5\r\nhello\r\n0\r\n\r\n", b"hello", id="chunks"
        ),
        pytest.param(POST + UPGRADE + b"Content-Length: %d\r\n" % len(LONG), LONG, LONG, id="a long body"),
        pytest.param(POST + b"Connection: upgrade\r\nUpgrade: websocket\r\n", b"", b"", id="no WebSocket here"),
    ],
)
async def test_offered_upgrade_is_ignored_and_the_request_keeps_its_body(
    head: bytes, body: bytes, echoed: bytes
) -> None:
    """A request that offers h2c, as some clients always do, is answered like any other, and so is what follows it.

    It may come in one piece or in many small ones.
    """
    request = head + b"\r\n" + body
    async with open_server(echo) as server, RawClient(server.address) as client:
        await client.send(request + request + GET)
        assert [(await client.answer()).body for _ in range(3)] == [echoed, echoed, b""]
        for place in range(0, len(head) + 4, 7):
            await client.send(request[place : place + 7])
            await asyncio.sleep(0)
        await client.send(request[place + 7 :])
        assert (await client.answer()).body == echoed
        assert server.statistics().refused == {}


@pytest.mark.parametrize(
    ("request_bytes", "status", "code"),
    [
        pytest.param(POST + UPGRADE + b"Content-Length: 65537\r\n\r\n", 413, "body-too-large", id="long body"),
        pytest.param(
            POST + UPGRADE + b"".join(b"%d: %b\r\n" % (n, b"x" * 500) for n in range(60)) + b"\r\n",
            431,
            "headers-too-large",
            id="long header",
        ),
        pytest.param(b"GET /ok HTTP/1.1\r\n" + UPGRADE + b"\r\n", 400, "bad-request", id="no host"),
        pytest.param(b"CONNECT /ok HTTP/1.1\r\nHost: t\r\n\r\n", 400, "bad-request", id="connect to a path"),
        pytest.param(POST + UPGRADE + b"Expect: tea\r\n\r\n", 417, "expectation-failed", id="expectation"),
    ],
)
async def test_request_with_an_offer_is_held_to_the_same_limits(request_bytes: bytes, status: int, code: str) -> None:
    """An offer to upgrade is no way around a limit."""
    async with open_server(echo) as server:
        answer = await ask(server.address, request_bytes)
        assert (answer.status, answer.code, answer.closes) == (status, code, True)


async def test_client_that_offers_an_upgrade_and_waits_for_100_is_told_so_once() -> None:
    """Reading its header twice is not answering it twice."""
    async with open_server(echo) as server, RawClient(server.address) as client:
        await client.send(POST + UPGRADE + b"Expect: 100-continue\r\nContent-Length: 4\r\n\r\n")
        assert (await client.answer()).status == 100
        await client.send(b"body")
        assert (await client.answer()).body == b"body"
