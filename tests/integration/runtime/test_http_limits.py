"""What one client may take: bytes, time and connections, each limit over a real socket (faults H14 and bad input)."""

from __future__ import annotations

import asyncio
import socket

import pytest
from starlette.types import Receive, Scope, Send
from structlog.testing import capture_logs

from tests.support.eventually import eventually
from tests.support.http_process import routes
from tests.support.http_serving import echo, open_server
from tests.support.raw_http import RawClient, ask

GET = b"GET /ok HTTP/1.1\r\nHost: test\r\n\r\n"
POST = b"POST /echo HTTP/1.1\r\nHost: test\r\n"


async def test_half_a_header_is_ended_with_408() -> None:
    """A request whose header does not end within the limit gets 408, however steadily its bytes drip."""
    async with open_server(header_timeout_seconds=0.3) as server, RawClient(server.address) as client:
        await client.send(b"GET /ok HTTP/1.1\r\nHost: te")
        answer = asyncio.ensure_future(client.answer())
        while not answer.done():
            client.writer.write(b"x")
            await asyncio.wait({answer}, timeout=0.05)
        assert (answer.result().status, answer.result().code) == (408, "header-timeout")
        assert answer.result().closes
        assert server.statistics().refused == {"header_timeout": 1}


async def test_half_a_body_is_ended_with_408_and_never_reaches_the_handler() -> None:
    """A body that does not come in time gets 408; the application was not called for it."""
    called: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        called.append(scope["path"])
        await routes(scope, receive, send)

    async with open_server(app, body_timeout_seconds=0.3) as server, RawClient(server.address) as client:
        await client.send(POST + b"Content-Length: 10\r\n\r\nhalf")
        answer = await client.answer()
        assert (answer.status, answer.code) == (408, "body-timeout")
        assert await client.read_to_end() == b""
    assert called == []


async def test_connection_that_says_nothing_is_closed_without_an_answer() -> None:
    """A client that connects and never sends a byte is sent away at the header's limit."""
    async with open_server(header_timeout_seconds=0.2) as server, RawClient(server.address) as client:
        assert await client.read_to_end() == b""


async def test_idle_connection_is_closed_at_its_limit() -> None:
    """A keep-alive connection without a next request ends after the idle time, in peace."""
    async with open_server(idle_timeout_seconds=0.2) as server, RawClient(server.address) as client:
        assert (await client.get()).status == 200
        assert await client.read_to_end() == b""


async def test_empty_lines_do_not_keep_an_idle_connection() -> None:
    """Line ends between requests are no request and do not move the idle limit."""
    async with open_server(idle_timeout_seconds=0.3) as server, RawClient(server.address) as client:
        assert (await client.get()).status == 200
        end = asyncio.ensure_future(client.read_to_end())
        while not end.done():
            client.writer.write(b"\r\n")
            await asyncio.wait({end}, timeout=0.05)
        assert end.result() == b""


async def test_slow_reader_is_cut_and_others_are_served() -> None:
    """A client that does not read its answer loses the connection at the write limit; the next one is served."""
    async with open_server(write_timeout_seconds=0.3) as server, RawClient(server.address) as greedy:
        greedy.writer.transport.pause_reading()  # type: ignore[attr-defined]  # the reading half is there, too
        await greedy.send(b"GET /bytes/50000000 HTTP/1.1\r\nHost: test\r\n\r\n")
        async with RawClient(server.address) as other:
            assert (await other.get()).status == 200
            await eventually(lambda: server.statistics().refused == {"write_timeout": 1})
            await eventually(lambda: server.statistics().running == 0)
            assert (await other.get()).status == 200


@pytest.mark.parametrize(
    ("request_bytes", "status", "code"),
    [
        pytest.param(b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\n", 414, "target-too-long", id="long target"),
        pytest.param(
            b"GET /ok HTTP/1.1\r\nHost: test\r\nX: " + b"a" * 17_000, 431, "headers-too-large", id="one header"
        ),
        pytest.param(b"GET /ok HTTP/1.1\r\n" + b"A: b\r\n" * 70 + b"\r\n", 431, "headers-too-large", id="many headers"),
        pytest.param(
            b"GET /ok HTTP/1.1\r\nHost: test\r\n"
            + b"".join(b"%d: %b\r\n" % (n, b"x" * 500) for n in range(60))
            + b"\r\n",
            431,
            "headers-too-large",
            id="headers in sum",
        ),
        pytest.param(POST + b"Content-Length: 65537\r\n\r\n", 413, "body-too-large", id="announced body"),
        pytest.param(
            POST
            + b"Transfer-Encoding: chunked\r\n\r\n"
            + b"8000\r\n"
            + b"x" * 0x8000
            + b"\r\n8001\r\n"
            + b"x" * 0x8001,
            413,
            "body-too-large",
            id="chunked body",
        ),
        pytest.param(POST + b"Content-Length: 99999999999999999999999\r\n\r\n", 400, "bad-request", id="absurd length"),
        pytest.param(POST + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n", 400, "bad-request", id="two lengths"),
        pytest.param(
            POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            400,
            "bad-request",
            id="smuggling",
        ),
        pytest.param(POST + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", 400, "bad-request", id="bad chunk"),
        pytest.param(
            POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n",
            400,
            "transfer-coding-not-supported",
            id="unknown coding",
        ),
        pytest.param(
            POST + b"Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            400,
            "transfer-coding-not-supported",
            id="two codings",
        ),
        pytest.param(POST + b"Expect: tea\r\n\r\n", 417, "expectation-failed", id="unknown expectation"),
        pytest.param(b"GET /ok HTTP/1.1\r\n\r\n", 400, "bad-request", id="no host"),
        pytest.param(b"GET /ok HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400, "bad-request", id="two hosts"),
        pytest.param(b"GET /ok HTTP/3.7\r\nHost: a\r\n\r\n", 400, "bad-request", id="unknown version"),
        pytest.param(b"GET /ok#part HTTP/1.1\r\nHost: a\r\n\r\n", 400, "bad-request", id="fragment"),
        pytest.param(b"GET /ok HTTP/2.0\r\nHost: a\r\n\r\n", 400, "http-version-not-supported", id="HTTP/2.0"),
        pytest.param(b"BREW /pot HTTP/1.1\r\nHost: a\r\n\r\n", 400, "bad-request", id="unknown verb"),
        pytest.param(b"CONNECT a:443 HTTP/1.1\r\nHost: a\r\n\r\n", 400, "bad-request", id="connect"),
        pytest.param(b"GET /\xff\xfe HTTP/1.1\r\nHost: a\r\n\r\n", 400, "bad-request", id="path not ASCII"),
        pytest.param(b"GET /ok HTTP/1.1\r\nHost: a\r\nX\x00Y: b\r\n\r\n", 400, "bad-request", id="NUL in a header"),
        pytest.param(b"GET /ok HTTP/1.1\r\nHost: a\r\n folded: b\r\n\r\n", 400, "bad-request", id="folded header"),
        pytest.param(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400, "bad-request", id="TLS greeting"),
        pytest.param(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400, "bad-request", id="HTTP/2 preface"),
        pytest.param(b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", 400, "bad-request", id="asterisk"),
    ],
)
async def test_bad_request_gets_its_status_and_the_end(request_bytes: bytes, status: int, code: str) -> None:
    """What is no request we serve is answered with a problem, and the connection ends without a reset."""
    async with open_server(echo) as server:
        answer = await ask(server.address, request_bytes)
        assert (answer.status, answer.code) == (status, code)
        assert answer.closes
        async with RawClient(server.address) as next_client:
            assert (await next_client.get()).status == 200


async def _status_of_endless(client: RawClient) -> int:
    """Send on and on until there is an answer, which must come before it fills memory; return its status."""
    answer = asyncio.ensure_future(client.answer())
    sent = 0
    while not answer.done():
        client.writer.write(b"x" * 4096)
        sent += 4096
        await asyncio.wait({answer}, timeout=0.01)
        assert sent < 4_000_000
    return answer.result().status


async def test_single_header_that_never_ends_is_refused_before_it_fills_memory() -> None:
    """A header line sent on and on is refused soon after the limit, though the parser hands over whole lines only."""
    async with open_server() as server, RawClient(server.address) as client:
        await client.send(b"GET /ok HTTP/1.1\r\nHost: test\r\nX: ")
        assert await _status_of_endless(client) == 431


async def test_chunk_extension_that_never_ends_is_refused() -> None:
    """What stands beside a chunked body's bytes is bounded too; a body of the smallest chunks is not touched by it."""
    async with open_server(echo, body_bytes_max=1_000) as server:
        async with RawClient(server.address) as client:
            await client.send(POST + b"Transfer-Encoding: chunked\r\n\r\n1;x=")
            assert await _status_of_endless(client) == 413
        async with RawClient(server.address) as client:
            await client.send(POST + b"Transfer-Encoding: chunked\r\n\r\n")
            for _ in range(10):
                await client.send(b"1\r\nx\r\n" * 100)
                await asyncio.sleep(0)
            await client.send(b"0\r\n\r\n")
            assert (await client.answer()).body == b"x" * 1_000


async def test_body_at_the_limit_is_served_whole() -> None:
    """A body of exactly the limit, in pieces, arrives in one; so does a chunked one, and trailers are dropped."""
    body = b"x" * 65_536
    async with open_server(echo) as server, RawClient(server.address) as client:
        await client.send(POST + b"Content-Length: 65536\r\n\r\n" + body[:1])
        await asyncio.sleep(0.02)
        await client.send(body[1:])
        assert (await client.answer()).body == body
        await client.send(POST + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\nHost: evil\r\n\r\n")
        assert (await client.answer()).body == b"abcde"


async def test_client_that_waits_for_100_is_told_to_go_on() -> None:
    """Expect: 100-continue is answered before the body comes, and refused at once when the body would be too large."""
    async with open_server(echo) as server:
        async with RawClient(server.address) as client:
            await client.send(POST + b"Expect: 100-continue\r\nContent-Length: 4\r\n\r\n")
            assert (await client.answer()).status == 100
            await client.send(b"body")
            assert (await client.answer()).body == b"body"
        async with RawClient(server.address) as client:
            await client.send(POST + b"Expect: 100-continue\r\nContent-Length: 99999\r\n\r\n")
            assert (await client.answer()).status == 413


async def test_pipelined_requests_are_answered_in_order() -> None:
    """Requests sent at once come back one after the other, the last one's close included."""
    async with open_server(routes) as server, RawClient(server.address) as client:
        last = b"GET /bytes/3 HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n"
        await client.send(b"GET /bytes/1 HTTP/1.1\r\nHost: t\r\n\r\nGET /bytes/2 HTTP/1.1\r\nHost: t\r\n\r\n" + last)
        assert [len((await client.answer()).body) for _ in range(3)] == [1, 2, 3]
        assert await client.read_to_end() == b""


async def test_pipeline_without_end_is_bounded() -> None:
    """Of a thousand requests sent at once only a bounded number is taken, and the last answer says close."""
    async with open_server(routes) as server, RawClient(server.address) as client:
        await client.send(GET * 1000)
        answers = [await client.answer()]
        while not answers[-1].closes:
            answers.append(await client.answer())
        assert {answer.status for answer in answers} == {200}
        assert await client.read_to_end() == b""


async def test_garbage_behind_a_request_does_not_touch_its_answer() -> None:
    """Bytes that are no request, sent while one is at work, end the connection after that one's answer."""
    async with open_server(routes) as server, RawClient(server.address) as client:
        await client.send(b"GET /sleep/0.1 HTTP/1.1\r\nHost: test\r\n\r\n" + b"\x00\x01garbage\r\n\r\n")
        answer = await client.answer()
        assert (answer.status, answer.closes) == (200, True)
        assert await client.read_to_end() == b""


async def test_connection_beyond_the_cap_is_told_so() -> None:
    """One connection more than the cap gets 503 with Retry-After; when another one leaves, there is room again."""
    async with open_server(in_flight_max=2, connections_max=2) as server:
        async with RawClient(server.address) as first, RawClient(server.address) as second:
            assert ((await first.get()).status, (await second.get()).status) == (200, 200)
            async with RawClient(server.address) as third:
                answer = await third.answer()
                assert (answer.status, answer.code) == (503, "too-many-connections")
                assert answer.headers["retry-after"] == "1"
                assert await third.read_to_end() == b""
        await eventually(lambda: server.statistics().connections == 0)
        async with RawClient(server.address) as fourth:
            assert (await fourth.get()).status == 200


async def test_client_that_closed_its_sending_half_gets_its_answer() -> None:
    """A half-closed client still receives the answer to what it sent before."""
    async with open_server(routes) as server, RawClient(server.address) as client:
        await client.send(b"GET /sleep/0.1 HTTP/1.1\r\nHost: test\r\n\r\n")
        client.writer.write_eof()
        assert (await client.answer()).status == 200
        assert await client.read_to_end() == b""


async def test_client_that_leaves_in_the_middle_harms_nobody() -> None:
    """A reset while a handler is at work lets the handler end and leaves no connection behind."""
    async with open_server(routes) as server:
        async with RawClient(server.address) as client:
            await client.send(b"GET /sleep/0.1 HTTP/1.1\r\nHost: test\r\n\r\n")
            await asyncio.sleep(0.05)
            sock: socket.socket = client.writer.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        await eventually(lambda: server.statistics().connections == server.statistics().running == 0)
        async with RawClient(server.address) as client:
            assert (await client.get()).status == 200


async def test_head_gets_the_length_without_a_body_and_the_connection_goes_on() -> None:
    """HEAD is answered by the header alone, and the next answer on the connection is not mistaken for its body."""
    async with open_server(echo) as server, RawClient(server.address) as client:
        await client.send(b"HEAD /ok HTTP/1.1\r\nHost: test\r\n\r\n" + GET)
        head = (await client.reader.readuntil(b"\r\n\r\n")).decode()
        assert head.startswith("HTTP/1.1 200 ")
        assert (await client.answer()).status == 200


async def test_old_http_is_answered_and_closed() -> None:
    """HTTP/1.0 needs no Host and its connection ends with the answer."""
    async with open_server(routes) as server:
        answer = await ask(server.address, b"GET /ok HTTP/1.0\r\n\r\n")
        assert (answer.status, answer.closes) == (200, True)


@pytest.mark.parametrize("seed", range(20))
async def test_random_bytes_never_hurt_the_server(seed: int) -> None:
    """Whatever comes, the connection ends or waits, the server says at most 4xx, and it serves the next client."""
    import random

    source = random.Random(seed)
    pieces = [
        b"GET",
        b" ",
        b"/",
        b"HTTP/1.1",
        b"\r\n",
        b"\n",
        b":",
        b"Host: a",
        b"Content-Length: 3",
        b"\x00",
        b"chunked",
    ]
    async with open_server(echo, header_timeout_seconds=0.2, body_timeout_seconds=0.2) as server:
        async with RawClient(server.address) as client:
            await client.send(b"".join(source.choice([*pieces, source.randbytes(3)]) for _ in range(60)))
            answer = await client.read_to_end()
            assert not answer or answer[9:10] in (b"2", b"4"), answer
        async with RawClient(server.address) as next_client:
            assert (await next_client.get()).status == 200


async def test_refused_request_can_be_found_in_the_log() -> None:
    """The id in the answer's header and body is that of one line, which says why, and no two share it."""
    asked = [(b"GET /ok HTTP/1.1\r\n\r\n", 400), (POST + b"Content-Length: 99999999\r\n\r\n", 413)]
    async with open_server() as server:
        with capture_logs() as lines:
            answers = []
            for request, _ in asked:
                async with RawClient(server.address) as client:
                    await client.send(request)
                    answers.append(await client.answer())
    refused = [line for line in lines if line["event"] == "Request refused"]
    assert [(line["status"], line["is_answered"]) for line in refused] == [(status, True) for _, status in asked]
    assert [line["reason"] for line in refused] == ["malformed", "body_bytes"]
    ids = [line["request_id"] for line in refused]
    assert len(set(ids)) == 2
    assert [answer.headers["x-request-id"] for answer in answers] == ids
    assert [answer.json()["request_id"] for answer in answers] == ids


async def test_request_refused_behind_another_leaves_a_line_without_an_answer() -> None:
    """While an answer is under way the refusal can only be told by the line."""
    async with open_server() as server, RawClient(server.address) as client:
        with capture_logs() as lines:
            await client.send(b"GET /sleep/0.1 HTTP/1.1\r\nHost: test\r\n\r\nGET /ok HTTP/1.1\r\n\r\n")
            assert (await client.answer()).closes
    refused = [line for line in lines if line["event"] == "Request refused"]
    assert [(line["code"], line["is_answered"]) for line in refused] == [("bad-request", False)]
