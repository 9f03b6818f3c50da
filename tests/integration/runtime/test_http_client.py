"""The HTTP client on real sockets: what it sends, what it takes for an answer, and when a connection is used again."""

import asyncio
import gc
import socket
import ssl
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from runtime.http_client import HttpClient
from runtime.http_connection import HEAD_BYTES_MAX, HttpConnectError, HttpConnection, HttpExchangeError
from sandbox.servers.address import LOOPBACK, free_port
from tests.support.eventually import eventually
from tests.support.raw_server import BODY_MAX, OK, client_of, serve

BYE = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi"


async def test_requests_share_a_connection_and_say_what_they_were_told() -> None:
    """One after the other needs one connection; a length is told of a body, also of an empty one, and of none else."""
    async with serve(OK) as (server, client):
        for content in (None, b"", b"\r\n\r\n"):
            answer = await client.send("PATCH", "/a?b=c", headers={"x-y": "z"}, content=content)
            assert (answer.status, answer.body) == (200, b"hi")
        host = server.url.removeprefix("http://").encode()
        assert server.connections == 1
        head = b"PATCH /a?b=c HTTP/1.1\r\nhost: " + host + b"\r\nx-y: z\r\n"
        assert server.requests[:2] == [head + b"\r\n", head + b"content-length: 0\r\n\r\n"]
        assert server.requests[2] == head + b"content-length: 4\r\n\r\n"


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
WHOLE = {
    "a length": OK,
    "chunks": CHUNKED + b"1\r\nh\r\n1;x=y\r\ni\r\n0\r\n\r\n",
    "chunks and a trailer": CHUNKED + b"2\r\nhi\r\n0\r\nx-sum: 1\r\n\r\n",
    "until the connection ends": b"HTTP/1.1 200 OK\r\n\r\nhi",
    "an announcement before": b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nx: y\r\n\r\n" + OK,
    "HTTP/1.0": b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nhi",
}


@pytest.mark.parametrize("answer", WHOLE.values(), ids=WHOLE.keys())
async def test_an_answer_is_whole_however_its_end_is_told(answer: bytes) -> None:
    """Each of the ways that HTTP has gives the same body."""
    async with serve(answer) as (_, client):
        found = await client.send("GET", "/")
        assert (found.status, found.body) == (200, b"hi")


@pytest.mark.parametrize("length", [b"", b"Content-Length: 0\r\n", b"Content-Length: 7\r\n"])
async def test_an_answer_that_can_have_no_body_ends_with_its_head(length: bytes) -> None:
    """A 204 without a length, or with any, is whole, and nothing is waited for behind it."""
    async with serve(b"HTTP/1.1 204 No Content\r\n" + length + b"\r\n") as (_, client):
        answer = await client.send("DELETE", "/")
        assert (answer.status, answer.body) == (204, b"")


async def test_headers_come_by_small_names_and_a_body_as_it_is() -> None:
    """Those of one name are joined; a packed body is left to the caller."""
    head = b"HTTP/1.1 200 OK\r\nVia: a\r\nVIA: b\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\n"
    async with serve(head + b"\x1f\x8b") as (_, client):
        answer = await client.send("GET", "/")
        assert answer.headers == {"via": "a, b", "content-encoding": "gzip", "content-length": "2"}
        assert answer.body == b"\x1f\x8b"


BROKEN = {
    "nothing": (b"", "the connection was lost"),
    "half a head": (b"HTTP/1.1 200 OK\r\nContent-Le", "half an answer"),
    "half a body": (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhi", "half an answer"),
    "half a chunk": (CHUNKED + b"9\r\nhi", "half an answer"),
    "no last chunk": (CHUNKED + b"2\r\nhi\r\n", "half an answer"),
    "an announcement alone": (b"HTTP/1.1 100 Continue\r\n\r\n", "half an answer"),
    "another protocol": (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n", "no HTTP"),
    "no HTTP": (b"220 mail at your service\r\n", "no HTTP"),
    "two lengths": (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nhi!", "no HTTP"),
}


@pytest.mark.parametrize(("answer", "reason"), BROKEN.values(), ids=BROKEN.keys())
async def test_an_answer_that_is_not_whole_is_none_and_nothing_is_sent_again(answer: bytes, reason: str) -> None:
    """Whoever asked is told what was the matter, the server has seen one request, and the next one is served."""
    async with serve(answer, OK) as (server, client):
        with pytest.raises(HttpExchangeError, match=reason):
            await client.send("GET", "/")
        assert len(server.requests) == 1
        assert (await client.send("GET", "/")).body == b"hi"


LONG = {
    "a body": b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (BODY_MAX + 1) + b"x" * (BODY_MAX + 1),
    "a body without an end": b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * (BODY_MAX + 1),
    "chunks": CHUNKED + b"1\r\nx\r\n" * (BODY_MAX + 1),
    "a header": b"HTTP/1.1 200 OK\r\nx: " + b"x" * (BODY_MAX + HEAD_BYTES_MAX),
    "headers": b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * (BODY_MAX + HEAD_BYTES_MAX),
    "announcements": b"HTTP/1.1 100 Continue\r\n\r\n" * (BODY_MAX + HEAD_BYTES_MAX),
}


@pytest.mark.parametrize("answer", LONG.values(), ids=LONG.keys())
async def test_an_answer_that_is_too_long_is_none(answer: bytes) -> None:
    """Wherever its length is, it ends with the connection, long before its own end."""
    async with serve(answer * 20) as (server, client):
        with pytest.raises(HttpExchangeError, match="too long an answer"):
            await client.send("GET", "/")
        await eventually(lambda: server.ended == 1)


async def test_an_answer_that_is_as_long_as_it_may_be_is_one() -> None:
    """The bound is exact."""
    async with serve(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % BODY_MAX + b"x" * BODY_MAX) as (_, client):
        assert len((await client.send("GET", "/")).body) == BODY_MAX


@asynccontextmanager
async def open_listener(**changes: Any) -> AsyncIterator[tuple[socket.socket, HttpClient]]:  # noqa: ANN401 - as there
    """Listen without a server, whose part the test takes itself, and open a client."""
    with socket.create_server((LOOPBACK, 0)) as listener:
        listener.settimeout(30)
        async with client_of(f"http://{LOOPBACK}:{listener.getsockname()[1]}", **changes) as client:
            yield listener, client


def answer_one(listener: socket.socket, answer: bytes) -> socket.socket:
    """Take a connection, read some of a request, answer it, and return the connection."""
    connection, _ = listener.accept()
    connection.settimeout(30)
    connection.recv(1_000)
    connection.sendall(answer)
    return connection


async def exchange(listener: socket.socket, client: HttpClient, answer: bytes, **request: Any) -> socket.socket:  # noqa: ANN401
    """Send a request, which needs a new connection, and return that when the answer was taken."""
    answering = asyncio.get_running_loop().run_in_executor(None, answer_one, listener, answer)
    assert (await client.send("POST", "/", **request)).status in (200, 413)
    return await answering


FINAL = {
    "it says so": BYE,
    "it is of the time before": b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nhi",
    "half an answer more": OK + b"HTTP/1.1",
    "another answer": OK + OK,
    "no HTTP": OK + b"\x00",
}


@pytest.mark.parametrize("answer", FINAL.values(), ids=FINAL.keys())
async def test_a_connection_that_is_to_end_or_says_more_is_not_used_again(answer: bytes) -> None:
    """The client closes it, and the next request has one of its own."""
    async with open_listener() as (listener, client):
        for _ in range(2):
            with await exchange(listener, client, answer) as connection:
                assert await asyncio.to_thread(connection.recv, 1) == b""


async def test_a_connection_that_speaks_unasked_is_not_used_again() -> None:
    """What comes while nobody waits for an answer is nobody's answer."""
    async with open_listener() as (listener, client):
        for _ in range(2):
            with await exchange(listener, client, OK) as connection:
                connection.sendall(b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n")
                assert await asyncio.to_thread(connection.recv, 1) == b""


async def test_a_connection_whose_end_has_come_by_now_is_not_used() -> None:
    """The server closed it in the very moment before the next request, which needs no second try."""
    async with open_listener() as (listener, client):
        for _ in range(3):
            (await exchange(listener, client, OK)).close()


async def test_an_answer_before_the_request_is_read_counts_and_ends_the_connection() -> None:
    """A server that refuses a long body without reading it is heard; the rest of the body is not sent to anybody."""
    refusal = b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n"
    async with open_listener() as (listener, client):
        content = bytes(64 * 1024 * 1024)
        first = await exchange(listener, client, refusal, content=content)
        with first, await exchange(listener, client, refusal, content=content) as second:
            assert first.getpeername() != second.getpeername()


async def test_an_answer_that_would_end_with_its_connection_does_not_end_with_a_broken_one() -> None:
    """A reset is no end: what came is half an answer."""

    def answer_and_reset(listener: socket.socket) -> None:
        with answer_one(listener, b"HTTP/1.1 200 OK\r\n\r\nhi") as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    async with open_listener() as (listener, client):
        answering = asyncio.get_running_loop().run_in_executor(None, answer_and_reset, listener)
        with pytest.raises(HttpExchangeError, match=r"half an answer|was lost"):
            await client.send("GET", "/")
        await answering


async def test_a_connection_that_was_idle_for_too_long_is_not_used() -> None:
    """It is closed instead, and the request goes out on a new one."""
    async with serve(OK, idle_seconds=0.01) as (server, client):
        await client.send("GET", "/")
        await asyncio.sleep(0.05)
        await client.send("GET", "/")
        assert server.connections == 2
        await eventually(lambda: server.ended == 1)


async def test_no_more_requests_are_under_way_than_may_be() -> None:
    """The others wait for their turn, and then use the connections that are there."""
    async with serve(OK, connections_max=2) as (server, client):
        server.may_answer.clear()
        sending = [asyncio.create_task(client.send("GET", "/")) for _ in range(10)]
        await eventually(lambda: len(server.requests) == 2)
        server.may_answer.set()
        assert [answer.body for answer in await asyncio.gather(*sending)] == [b"hi"] * 10
        assert server.connections == 2


async def test_a_cancel_closes_the_connection_and_nobody_gets_the_late_answer() -> None:
    """The next request has a connection of its own, and a turn."""
    async with serve(BYE, OK, connections_max=1) as (server, client):
        server.may_answer.clear()
        sending = asyncio.create_task(client.send("GET", "/"))
        await eventually(lambda: server.requests)
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
        server.may_answer.set()
        await eventually(lambda: server.ended == 1)
        assert (await client.send("GET", "/")).body == b"hi"
        assert server.connections == 2


async def test_a_refused_connection_is_told() -> None:
    """The reason has the system's name for it."""
    async with client_of(f"http://{LOOPBACK}:{free_port()}") as client:
        with pytest.raises(HttpConnectError, match="no connection: ConnectionRefusedError"):
            await client.send("GET", "/")


@asynccontextmanager
async def swallowing(port: int = 0) -> AsyncIterator[tuple[str, int]]:
    """Listen at an address where a connection is neither taken nor refused, since too many wait already."""
    address = "127.0.0.2"
    with socket.create_server((address, port), backlog=0) as listener:
        waiting = []
        try:
            for _ in range(4):
                waiting.append(socket.socket())
                waiting[-1].setblocking(False)
                waiting[-1].connect_ex(listener.getsockname())
            yield address, listener.getsockname()[1]
        finally:
            for each in waiting:
                each.close()


async def test_a_connection_that_is_neither_taken_nor_refused_has_a_deadline() -> None:
    """It is told how long was waited."""
    async with swallowing() as (address, port), client_of(f"http://{address}:{port}", connect_seconds=0.2) as client:
        with pytest.raises(HttpConnectError, match=r"no connection: TimeoutError|no connection within 0\.2 s"):
            await client.send("GET", "/")


async def test_an_address_that_swallows_connections_leaves_time_for_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two addresses the first has half of the time."""
    async with serve(OK, connect_seconds=2) as (server, client):
        port = int(server.url.rpartition(":")[2])
        async with swallowing(port) as (address, _):
            found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (host, port)) for host in (address, LOOPBACK)]

            async def find(*_: object, **__: object) -> list[Any]:
                return found

            monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", find)
            assert (await client.send("GET", "/")).body == b"hi"


@pytest.mark.parametrize(
    ("target", "headers"),
    [
        ("/a b", {}),
        ("/\r\nx: y", {}),
        ("/", {"x": "y\r\nz: secret"}),
        ("/", {"x\n": "secret"}),
        ("/", {"x": "secret\N{SNOWMAN}"}),
    ],
)
async def test_a_request_that_would_be_another_one_is_refused(target: str, headers: dict[str, str]) -> None:
    """Nothing is sent, and the error does not tell what was in it."""
    async with serve(OK) as (server, client):
        with pytest.raises(ValueError, match="printable") as caught:
            await client.send("GET", target, headers=headers)
        assert "secret" not in repr(vars(caught.value)) + repr(caught.value)
        assert not server.connections


@pytest.mark.parametrize(
    ("url", "has_tls"), [("ftp://a", False), ("http://", False), ("https://a", False), ("http://a", True)]
)
def test_a_url_and_its_tls_belong_together(url: str, has_tls: bool) -> None:
    """One without the other is a mistake that is found before anything is sent."""
    with pytest.raises(ValueError, match="url must be"):
        client_of(url, tls=ssl.create_default_context() if has_tls else None)


@pytest.mark.parametrize("answer", [OK, BYE])
async def test_requests_leave_nothing_to_the_garbage_collector(answer: bytes) -> None:
    """A collector that is called seldom lets no memory grow, whether connections are kept or not."""
    requests = 200
    async with serve(answer) as (_, client):
        await client.send("GET", "/")
        gc.collect()
        gc.disable()
        try:
            for _ in range(requests):
                await client.send("POST", "/", content=b"")
            # By its type: to ask a dead weak reference of somebody else for its class raises.
            left = [one for one in gc.get_objects() if type(one) is HttpConnection]
        finally:
            gc.enable()
        assert len(left) < requests / 10
