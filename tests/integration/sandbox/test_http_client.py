"""The members' client on real sockets: connections are reused, and nothing is ever sent twice."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import httpx
import pytest

from sandbox.http_client import HttpClient
from sandbox.servers.address import LOOPBACK, free_port

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"


@dataclass
class _Server:
    """A server that gives the answers it is told, and remembers connections and requests."""

    answers: list[bytes]
    url: str = ""
    connections: int = 0
    requests: list[bytes] = field(default_factory=list)
    is_silent: bool = False

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer request after request; an answer without a length ends the connection."""
        self.connections += 1
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                self.requests.append(head)
                if self.is_silent:
                    await reader.read()
                    break
                answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
                writer.write(answer)
                if answer != OK:
                    break
        except asyncio.IncompleteReadError:
            pass
        finally:
            writer.close()


@asynccontextmanager
async def _serve(*answers: bytes, is_silent: bool = False) -> AsyncIterator[tuple[_Server, HttpClient]]:
    server = _Server(list(answers), is_silent=is_silent)
    handlers: set[asyncio.Task[None]] = set()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        handlers.add(task)
        await server.handle(reader, writer)

    client = HttpClient()
    async with await asyncio.start_server(handle, LOOPBACK, 0) as listener:
        server.url = f"http://{LOOPBACK}:{listener.sockets[0].getsockname()[1]}"
        yield server, client
        await client.aclose()
        await asyncio.gather(*handlers)


async def test_connection_is_reused() -> None:
    """Requests one after another share one connection."""
    async with _serve(OK) as (server, client):
        for _ in range(3):
            response = await client.request("GET", f"{server.url}/a?b=c", headers={"x-y": "z"}, timeout=5)
            assert (response.status_code, response.content) == (200, b"hi")
        assert server.connections == 1
        assert server.requests[0].startswith(b"GET /a?b=c HTTP/1.1\r\nhost: ")
        assert b"\r\nx-y: z\r\n" in server.requests[0]


async def test_connection_that_is_told_to_close_is_not_reused() -> None:
    """After `Connection: close` the next request has a connection of its own."""
    closing = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi"
    async with _serve(closing, OK) as (server, client):
        for _ in range(2):
            await client.request("GET", server.url, timeout=5)
        assert server.connections == 2


async def test_idle_connection_that_was_closed_is_not_used() -> None:
    """A connection that the other side closed meanwhile costs no request."""
    cut_after = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nyo"
    async with _serve(cut_after, OK) as (server, client):
        await client.request("GET", server.url, timeout=5)
        await asyncio.sleep(0.05)
        assert (await client.request("GET", server.url, timeout=5)).content == b"hi"
        assert server.connections == 2


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 200 OK\r\nContent-Le",
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhi",
    ],
    ids=["nothing", "half a head", "half a body"],
)
async def test_answer_cut_off_fails_the_request_which_is_not_sent_again(answer: bytes) -> None:
    """Whatever breaks after sending is a ReadError, and the server has seen one request."""
    async with _serve(answer) as (server, client):
        with pytest.raises(httpx.ReadError):
            await client.request("POST", server.url, content=b"{}", timeout=5)
        assert len(server.requests) == 1


async def test_refused_connection_is_told_apart() -> None:
    """A refused connection is a ConnectError: nothing was sent."""
    with pytest.raises(httpx.ConnectError):
        await HttpClient().request("GET", f"http://{LOOPBACK}:{free_port()}/", timeout=5)


async def test_answer_that_does_not_come_times_out_and_closes_its_connection() -> None:
    """After a timeout the connection is gone, so no later request reads the late answer."""
    async with _serve(OK, is_silent=True) as (server, client):
        with pytest.raises(TimeoutError):
            await client.request("GET", server.url, timeout=0.1)
        server.is_silent = False
        assert (await client.request("GET", server.url, timeout=5)).content == b"hi"
        assert server.connections == 2


@pytest.mark.parametrize("length", [b"", b"Content-Length: 0\r\n", b"Content-Length: 7\r\n"])
async def test_answer_that_can_have_no_body_ends_with_its_head(length: bytes) -> None:
    """A 204 without a length, or with any, is whole, and nothing is waited for behind it."""
    async with _serve(b"HTTP/1.1 204 No Content\r\n" + length + b"\r\n") as (server, client):
        response = await client.request("DELETE", f"{server.url}/a", timeout=5)
        assert (response.status_code, response.content) == (204, b"")
