"""One connection of an HTTP client: a request goes out, and its answer comes in, as often as both sides keep it."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, cast

import httptools

HEAD_BYTES_MAX: Final = 65_536
"""Of all that is no body: heads, also those of answers that come before the real one, and the framing of chunks."""

_INFORMATIONAL_MAX: Final = 199


class HttpExchangeError(ConnectionError):
    """Say why no whole answer came, in words of ours; nothing that the other side sent is in them."""


class HttpConnectError(HttpExchangeError):
    """Say that there was no connection, so that nothing was sent."""


@dataclass(frozen=True, slots=True)
class HttpAnswer:
    """A whole answer.

    Attributes:
        status: 200 or more.
        headers: by their names in small letters; several of one name are joined by commas.
        body: as it came, so still packed if its headers say so.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes = field(repr=False)


class HttpConnection(asyncio.Protocol):
    """One connection, for one exchange at a time; the parser calls its `on_` methods.

    Args:
        answer_bytes_max: Of an answer's body, as it comes.
    """

    def __init__(self, answer_bytes_max: int) -> None:
        self.idle_until = 0.0
        self._body_bytes_max = answer_bytes_max
        self._closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._transport: asyncio.Transport | None = None
        self._parser: httptools.HttpResponseParser | None = None
        self._answer: asyncio.Future[HttpAnswer] | None = None
        self._headers: dict[str, str] = {}
        self._body = bytearray()
        self._received = 0
        self._ends_with_connection = False
        self._is_kept = True

    @property
    def is_usable(self) -> bool:
        """Whether another request may go out on it."""
        return self._is_kept and self._transport is not None and not self._transport.is_closing()

    async def exchange(self, head: bytes, content: bytes) -> HttpAnswer:
        """Send a request, and return its answer; a cancel closes the connection.

        Raises:
            HttpExchangeError: No whole answer came.
        """
        if self._transport is None or not self.is_usable:
            raise HttpExchangeError("the connection was lost")
        self._is_kept = False
        self._received = 0
        self._parser = httptools.HttpResponseParser(self)  # a new one, which knows nothing of the answer before
        answer: asyncio.Future[HttpAnswer] = asyncio.get_running_loop().create_future()
        self._answer = answer
        self._transport.writelines((head, content))
        try:
            return await answer
        except BaseException:
            self.abort()
            raise
        finally:
            self._answer = None

    def abort(self) -> None:
        """Close it at once, whatever is under way. Idempotent."""
        self._is_kept = False
        if self._transport is not None:
            self._transport.abort()

    async def wait_closed(self) -> None:
        """Return when it is closed."""
        await asyncio.shield(self._closed)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Read on in the answer; what nobody waits for ends the connection."""
        if self._parser is None or self._answer is None or self._answer.done():
            self.abort()
            return
        self._received += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._fail("an answer that is no HTTP")
        if self._received > self._body_bytes_max + HEAD_BYTES_MAX or len(self._body) > self._body_bytes_max:
            self._fail("too long an answer")

    def connection_lost(self, exc: Exception | None) -> None:
        """End, and the answer with it, which is whole if its end was to be this one."""
        if exc is None and self._ends_with_connection:
            self.on_message_complete()
        self._fail("the connection was lost" if self._received == 0 else "half an answer")
        self._parser = self._transport = None  # both know this object: it would be left to the garbage collector
        self._closed.set_result(None)

    def on_message_begin(self) -> None:
        """Begin an answer, or the next one after an informational one."""
        self._is_kept = False  # also if it comes behind the answer, and nobody asked for it
        self._headers = {}
        self._body = bytearray()
        self._ends_with_connection = False

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header, or a trailer."""
        key, text = name.decode("latin-1").lower(), value.decode("latin-1")
        before = self._headers.get(key)
        self._headers[key] = text if before is None else f"{before}, {text}"

    def on_headers_complete(self) -> None:
        """Note whether the body has a length of its own."""
        self._ends_with_connection = self._headers.keys().isdisjoint(("content-length", "transfer-encoding"))

    def on_body(self, body: bytes) -> None:
        """Take a part of the body."""
        self._body += body

    def on_message_complete(self) -> None:
        """Give the answer to whoever waits for it, unless it is only the announcement of one, or too long."""
        if self._parser is None or self._transport is None or self._answer is None or self._answer.done():
            return
        status = self._parser.get_status_code()
        if status <= _INFORMATIONAL_MAX or len(self._body) > self._body_bytes_max:
            return
        # A request that is still going out was answered before it was read: the rest of it is no next request.
        self._is_kept = self._parser.should_keep_alive() and not self._transport.get_write_buffer_size()
        self._answer.set_result(HttpAnswer(status, self._headers, bytes(self._body)))

    def _fail(self, reason: str) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(HttpExchangeError(reason))
        self.abort()
