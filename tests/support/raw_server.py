"""A raw server for an HTTP client, and clients with limits of the tests."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from runtime.http_client import HttpClient
from sandbox.servers.address import LOOPBACK

BODY_MAX: Final = 100_000
OK: Final = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"
_REQUEST_END = b"\r\n\r\n"


@dataclass
class Server:
    """A server that gives each request the next of its answers, and the last one again and again.

    It closes a connection behind an answer that is not `OK`, and behind every one where it `is_curt`.
    """

    answers: list[bytes]
    url: str = ""
    connections: int = 0
    ended: int = 0
    requests: list[bytes] = field(default_factory=list)
    is_curt: bool = False
    may_answer: asyncio.Event = field(default_factory=asyncio.Event)

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer request after request."""
        self.connections += 1
        try:
            while True:
                self.requests.append(await reader.readuntil(_REQUEST_END))
                await self.may_answer.wait()
                answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
                writer.write(answer)
                await writer.drain()
                if answer != OK or self.is_curt:
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self.ended += 1
            writer.close()


def client_of(url: str, **changes: Any) -> HttpClient:  # noqa: ANN401 - its arguments
    """Return a client with limits of these tests."""
    given = {
        "tls": None,
        "connections_max": 4,
        "connect_seconds": 20,
        "idle_seconds": 60,
        "answer_bytes_max": BODY_MAX,
    }
    return HttpClient(url, **given | changes)


@asynccontextmanager
async def serve(
    *answers: bytes,
    server_tls: ssl.SSLContext | None = None,
    **changes: Any,  # noqa: ANN401 - the client's arguments
) -> AsyncIterator[tuple[Server, HttpClient]]:
    """Run a server, and a client of it; the client's end is waited for by the server."""
    server = Server(list(answers))
    server.may_answer.set()
    handlers: set[asyncio.Task[None]] = set()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        handlers.add(task)
        await server.handle(reader, writer)

    async with await asyncio.start_server(handle, LOOPBACK, 0, ssl=server_tls) as listener:
        port = listener.sockets[0].getsockname()[1]
        server.url = f"http://{LOOPBACK}:{port}" if server_tls is None else f"https://localhost:{port}"
        async with client_of(server.url, **changes) as client:
            yield server, client
        await asyncio.gather(*handlers)
