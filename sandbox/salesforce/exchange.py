"""One request and whatever becomes of its connection: an answer, or what no application could send."""

from __future__ import annotations

import asyncio
import socket
import struct
from http import HTTPStatus
from typing import Final, cast

from starlette.types import Receive, Scope, Send

from runtime.http_protocol import HttpProtocol
from sandbox.salesforce.answer import Answer

CONNECTION: Final = "connection"
"""The name in `scope["state"]` of the protocol that serves the connection."""
_RESET_ON_CLOSE: Final = struct.pack("ii", 1, 0)


class Exchange:
    """A request whose body is whole; each way to end it is used at most once.

    Attributes:
        method: of the request.
        path: of the request, as it came.
        query: of the request, as it came.
        headers: the last one of each name, in lower case.
        body: of the request.
    """

    def __init__(self, scope: Scope, receive: Receive, send: Send, body: bytes) -> None:
        self.method: str = scope["method"]
        self.path = cast("bytes", scope["raw_path"]).decode("ascii")
        self.query: bytes = scope["query_string"]
        self.headers: dict[bytes, bytes] = dict(scope["headers"])
        self.body = body
        self._receive = receive
        self._send = send
        self._stopping: asyncio.Event = scope["state"]["stopping"]
        self._connection: HttpProtocol = scope["state"][CONNECTION]

    def header(self, name: bytes) -> str:
        """Return a header's text; "" where there is none."""
        return self.headers.get(name, b"").decode("latin-1")

    async def answer(self, answer: Answer) -> None:
        """Send an answer."""
        await self._send({"type": "http.response.start", "status": answer.status, "headers": answer.raw_headers()})
        await self._send({"type": "http.response.body", "body": answer.body})

    async def pause(self, seconds: float) -> None:
        """Wait so long, or until the server stops."""
        try:
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        except TimeoutError:
            pass

    async def hang(self) -> None:
        """Give no answer, until the client leaves or the server stops."""
        stopping = asyncio.ensure_future(self._stopping.wait())
        gone = asyncio.ensure_future(self._gone())
        try:
            await asyncio.wait({stopping, gone}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopping.cancel()
            gone.cancel()

    def reset(self) -> None:
        """Reset the connection: what the client gets is an error of the network."""
        connection = self._connection.transport.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        self._connection.transport.abort()

    async def half_body(self, answer: Answer) -> None:
        """Announce the whole body, send half of it, and end the connection."""
        await self._write(_head(answer, len(answer.body)) + answer.body[: len(answer.body) // 2])

    async def wrong_length(self, answer: Answer) -> None:
        """Announce half of the body, send all of it, and end the connection."""
        await self._write(_head(answer, len(answer.body) // 2) + answer.body)

    async def _write(self, data: bytes) -> None:
        self._connection.transport.write(data)
        self._connection.transport.close()
        await self._gone()  # an answer that is not whole is cut off when this ends, with what was not sent yet

    async def _gone(self) -> None:
        # The body was received before this was made, so what comes now is the end of the connection.
        await self._receive()


def _head(answer: Answer, length: int) -> bytes:
    lines = [f"HTTP/1.1 {answer.status} {HTTPStatus(answer.status).phrase}".encode()]
    headers = [(name, value) for name, value in answer.raw_headers() if name != b"content-length"]
    lines += [b"%b: %b" % header for header in (*headers, (b"content-length", str(length).encode()))]
    return b"\r\n".join([*lines, b"", b""])


async def read_exchange(scope: Scope, receive: Receive, send: Send) -> Exchange:
    """Take a request with its body."""
    message = await receive()
    return Exchange(scope, receive, send, message["body"])
