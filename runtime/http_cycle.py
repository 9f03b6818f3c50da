"""One request and its answer on one connection: the ASGI `receive` and `send` of uvicorn's protocol, with our rules.

Three things differ from uvicorn's own cycle: the body is whole before the application starts; a fixed-length answer
is one write; and "Connection: close" ends with our FIN, then the client's (RFC 9112 section 9.6), so that no reset
can overtake the last answer.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

from uvicorn._types import ASGI3Application, ASGIReceiveEvent, ASGISendEvent, HTTPScope
from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from runtime.logs import get_logger
from runtime.problem import Problem

if TYPE_CHECKING:
    from runtime.http_protocol import HttpProtocol

_log = get_logger("runtime.http")
_CLOSE: Final = b"connection: close\r\n\r\n"
_OURS: Final = frozenset({b"content-length", b"connection", b"transfer-encoding"})
_CHUNKED: Final = b"transfer-encoding: chunked\r\n"


class Cycle:
    """Run the application for one request.

    Cancelling its task answers 503 when nothing was answered yet: the work may or may not have been done.
    """

    __slots__ = (
        "_body",
        "_chunked",
        "_expected",
        "_gone",
        "_head",
        "_is_head_request",
        "_protocol",
        "disconnected",
        "keep_alive",
        "response_complete",
        "response_started",
        "scope",
        "task",
    )  # fmt: skip

    def __init__(self, protocol: HttpProtocol, scope: HTTPScope, body: bytes, *, keep_alive: bool) -> None:
        self._protocol = protocol
        self.scope = scope
        self._body: bytes | None = body
        self.keep_alive = keep_alive
        self.disconnected = False
        self.task: asyncio.Task[None] | None = None
        self.response_started = False
        self.response_complete = False
        self._head: bytes | None = None
        self._chunked = False
        self._expected = 0
        self._is_head_request = scope["method"] == "HEAD"
        self._gone: asyncio.Future[None] | None = None

    async def run(self, app: ASGI3Application) -> None:
        """Run the application to its end; whatever it raises is logged, and answered if nothing was."""
        try:
            await app(self.scope, self.receive, self.send)
        except asyncio.CancelledError:
            await self._answer(Problem(503, "shutting-down", headers={"retry-after": "1", "connection": "close"}))
        except Exception:  # noqa: BLE001 - the last place that can answer; the fault is in the log
            _log.exception("Unhandled error below the HTTP edge")
            await self._answer(Problem(500, "internal", headers={"connection": "close"}))
        finally:
            if self.task is not None:
                self._protocol.tasks.discard(self.task)
        if not self.response_complete and not self.disconnected:
            self._protocol.cut_off(self)

    async def _answer(self, problem: Problem) -> None:
        if self.response_started or self.disconnected:
            return
        body = problem.body()
        await self.send({"type": "http.response.start", "status": problem.status, "headers": problem.raw_headers(body)})
        await self.send({"type": "http.response.body", "body": body, "more_body": False})

    async def receive(self) -> ASGIReceiveEvent:
        """Give the whole body once, then wait for the client to leave or the answer to be complete."""
        if self._body is not None:
            body, self._body = self._body, None
            return {"type": "http.request", "body": body, "more_body": False}
        if not self.disconnected and not self.response_complete:
            if self._gone is None or self._gone.done():
                self._gone = asyncio.get_running_loop().create_future()
            await asyncio.shield(self._gone)
        return {"type": "http.disconnect"}

    def disconnect(self) -> None:
        """Learn that the client is gone: later sends are dropped."""
        self.disconnected = not self.response_complete
        self._wake()

    def _wake(self) -> None:
        if self._gone is not None and not self._gone.done():
            self._gone.set_result(None)

    async def send(self, message: ASGISendEvent) -> None:
        """Write one part of the answer; waits while the client reads too slowly, until the write limit ends it."""
        flow = self._protocol.flow
        if flow.write_paused and not self.disconnected:
            await flow.drain()
        if self.disconnected:
            return
        if not self.response_started:
            self._start(message)
        elif self.response_complete:
            raise RuntimeError(f"{message['type']} after the answer was complete")
        else:
            self._write_body(message)

    def _start(self, message: Any) -> None:  # noqa: ANN401 - ASGI messages are open dictionaries
        if message["type"] != "http.response.start":
            raise RuntimeError(f"expected http.response.start, not {message['type']}")
        status = message["status"]
        headers = message.get("headers", ())
        parts = [STATUS_LINE[status], self._protocol.server_state.date_line]
        self._expected = -1
        lines = 3
        for name, value in headers:
            if name in _OURS and self._take(name, value):
                continue
            lines += 1
            parts += (name, b": ", value, b"\r\n")
        self.response_started = True
        if self._expected < 0 and not self._is_head_request and status not in (204, 304):
            self._chunked = self.scope["http_version"] == "1.1"
            if self._chunked:
                lines += 1
                parts.append(_CHUNKED)
            else:
                self.keep_alive = False
        if self.keep_alive:
            parts.append(b"\r\n")
        else:
            lines += 1
            parts.append(_CLOSE)
        head = b"".join(parts)
        if head.count(b"\n") != lines or head.count(b"\r") != lines:
            self.response_started = False
            raise RuntimeError("line end in a response header")
        if self._expected > 0:
            self._head = head
        else:
            self._protocol.transport.write(head)

    def _take(self, name: bytes, value: bytes) -> bool:
        """Note a header that frames the answer; True for one that is ours to write."""
        if name == b"content-length":
            self._expected = int(value)
            return False
        if name == b"connection" and value.lower() == b"close":
            self.keep_alive = False
        return True

    def _write_body(self, message: Any) -> None:  # noqa: ANN401 - ASGI messages are open dictionaries
        if message["type"] != "http.response.body":
            raise RuntimeError(f"expected http.response.body, not {message['type']}")
        body = message.get("body", b"")
        is_last = not message.get("more_body", False)
        transport = self._protocol.transport
        head, self._head = self._head, None
        if self._is_head_request:
            if head is not None:
                transport.write(head)
        elif self._chunked:
            framed = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
            if is_last:
                framed += b"0\r\n\r\n"
            if framed:
                transport.write(framed)
        else:
            if self._expected >= 0:
                self._count(len(body), is_last=is_last)
            transport.write(body if head is None else head + body)
        if is_last:
            self.response_complete = True
            self._wake()
            self._protocol.on_response_complete()

    def _count(self, size: int, *, is_last: bool) -> None:
        self._expected -= size
        if self._expected < 0 or (is_last and self._expected):
            self._expected = 0
            raise RuntimeError("the body's size is not its content-length")
