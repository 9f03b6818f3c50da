"""Send requests to one server: each is sent once, no redirect is followed, and every answer has a bound.

Go's `http.Client` sends some requests again by itself when the connection it kept turns out to be gone, follows
redirects, and reads a body for as long as there is one. Here the first two are for the caller to decide, and an answer
that is longer than it may be is no answer. It parses with what the HTTP server here parses with, and costs about a
tenth of what a general client does (docs/decisions/smaller-libraries.md).
"""

import asyncio
import socket
from collections.abc import Mapping
from functools import partial
from ssl import SSLContext
from types import TracebackType
from typing import Final, Self
from urllib.parse import urlsplit

from runtime.http_connection import HttpAnswer, HttpConnectError, HttpConnection

_PORTS: Final = {"http": 80, "https": 443}


class HttpClient:
    """Requests to one server, by HTTP/1.1, on connections that are kept: the one that was used last goes first.

    For the tasks of one event loop. It dials when it is asked to send; leaving its block closes what is not in use.

    Args:
        url: Scheme, host and port, with nothing behind them.
        tls: How the server's certificate is checked, for `https`.
        connections_max: How many requests are under way at once; more wait for their turn, first come, first served.
        connect_seconds: For a connection, from the name to the end of TLS; of several addresses each has its share.
        idle_seconds: How long an unused connection is kept; less than the server keeps it.
        answer_bytes_max: Of an answer's body, as it comes. All around it may have 64 KiB.

    Raises:
        ValueError: The URL has another scheme, or `tls` is missing, or has no use.
    """

    def __init__(
        self,
        url: str,
        *,
        tls: SSLContext | None,
        connections_max: int,
        connect_seconds: float,
        idle_seconds: float,
        answer_bytes_max: int,
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme not in _PORTS or not parts.hostname or (parts.scheme == "https") is (tls is None):
            raise ValueError("url must be http://, or https:// with tls")
        self._host = parts.hostname
        self._authority = parts.netloc
        self._port = parts.port or _PORTS[parts.scheme]
        self._tls = tls
        self._connect_seconds = connect_seconds
        self._idle_seconds = idle_seconds
        self._answer_bytes_max = answer_bytes_max
        self._turns = asyncio.Semaphore(connections_max)
        self._idle: list[HttpConnection] = []

    async def send(
        self, method: str, target: str, *, headers: Mapping[str, str] | None = None, content: bytes | None = None
    ) -> HttpAnswer:
        """Send one request, and return its whole answer, whatever its status.

        A cancel closes the request's connection; it may have been served. There is no deadline but for connecting:
        put `asyncio.timeout` around it.

        Args:
            method: In capitals; of an answer to HEAD the body would be waited for.
            target: Path and query, encoded.
            headers: Those besides host and content-length.
            content: The body; none at all is not the same as an empty one.

        Raises:
            HttpConnectError: No connection was made; nothing was sent.
            HttpExchangeError: No whole answer came; the request may have been served all the same.
            ValueError: The target or a header would break the request's head.
        """
        head = self._head(method, target, headers or {}, content)
        async with self._turns:
            connection = await self._kept() or await self._connect()
            answer = await connection.exchange(head, content or b"")
            if connection.is_usable:
                connection.idle_until = asyncio.get_running_loop().time() + self._idle_seconds
                self._idle.append(connection)
            else:
                connection.abort()
            return answer

    async def aclose(self) -> None:
        """Close every connection that is not in use. Idempotent."""
        idle, self._idle = self._idle, []
        for connection in idle:
            connection.abort()
        for connection in idle:
            await connection.wait_closed()

    async def __aenter__(self) -> Self:
        """Return the client."""
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Do as `aclose`."""
        await self.aclose()

    def _head(self, method: str, target: str, headers: Mapping[str, str], content: bytes | None) -> bytes:
        lines = [f"{method} {target} HTTP/1.1", f"host: {self._authority}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        if content is not None:
            lines.append(f"content-length: {len(content)}")
        if " " in target or not all(line.isascii() and line.isprintable() for line in lines):
            raise ValueError("target and headers must be printable ASCII, and a target without spaces")
        return "\r\n".join([*lines, "", ""]).encode()

    async def _kept(self) -> HttpConnection | None:
        """Return a connection that can be used again, if there is one, and close those above it that cannot."""
        if self._idle:
            await asyncio.sleep(0)  # the loop looks at its sockets,
            await asyncio.sleep(0)  # and has told of what it saw: an end that has come by now
        now = asyncio.get_running_loop().time()
        while self._idle:
            connection = self._idle.pop()
            if connection.is_usable and now < connection.idle_until:
                return connection
            connection.abort()
        return None

    async def _connect(self) -> HttpConnection:
        try:
            async with asyncio.timeout(self._connect_seconds) as until:
                return await self._connect_to_any(until.when() or 0.0)
        except TimeoutError:
            raise HttpConnectError(f"no connection within {self._connect_seconds:g} s") from None
        except OSError as error:
            raise HttpConnectError(f"no connection: {type(error).__name__}") from error

    async def _connect_to_any(self, ends_at: float) -> HttpConnection:
        """Try the host's addresses in their order, so that one that swallows everything does not take all the time.

        Raises:
            OSError: None of them took the connection; it is what the last one said.
        """
        loop = asyncio.get_running_loop()
        addresses = await loop.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM)
        failure = OSError("the host has no address")
        for left, (*_, address) in zip(range(len(addresses), 0, -1), addresses, strict=True):
            try:
                async with asyncio.timeout((ends_at - loop.time()) / left):
                    _, connection = await loop.create_connection(
                        partial(HttpConnection, self._answer_bytes_max),
                        str(address[0]),
                        self._port,
                        ssl=self._tls,
                        server_hostname=None if self._tls is None else self._host,
                    )
                    return connection
            except OSError as error:  # a TimeoutError is one
                failure = error
        raise failure
