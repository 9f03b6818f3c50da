"""uvicorn's httptools protocol with limits, so that one client cannot hold what others need.

uvicorn times out neither half a header nor half a body, takes headers of any size, and on its stop closes connections
on which a request is on its way (all measured). Here each connection is in one phase at a time, each phase has a
deadline, and a sweep of the server ends what is overdue. Limits are exact in bytes; times are late by at most one
sweep.

Go's net/http has the same limits as fields of http.Server; its stop too loses a request that races with the close.
"""

from __future__ import annotations

import math
import urllib.parse
from asyncio import AbstractEventLoop, BaseTransport, Transport
from typing import Any, Final, cast

import httptools
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from runtime.http_cycle import Cycle
from runtime.http_head import head_problem, is_too_large, without_upgrade
from runtime.http_state import (
    ASGI,
    CHUNKED_FACTOR,
    PIPELINE_MAX,
    REQUEST_LINE_REST,
    HttpState,
    Phase,
    RefusedError,
    unread_bytes,
)
from runtime.problem import Problem, overloaded

_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"


class HttpProtocol(HttpToolsProtocol):
    """Serve one connection.

    A request is handed to the application when its body is whole, so a handler never runs for half a request. A refused
    request gets a problem answer when no other answer is under way on the connection, and the connection ends.
    """

    server_state: HttpState

    def __init__(
        self,
        config: Config,
        server_state: HttpState,
        app_state: dict[str, Any],
        _loop: AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._limits = server_state.settings
        self.phase = Phase.FRESH
        self.deadline = math.inf
        self.write_deadline = math.inf
        self.quiet_since = 0.0
        self._idle_seconds = self._limits.idle_timeout_seconds
        self._target_max = self._limits.target_bytes_max
        self._header_bytes_max = self._limits.header_bytes_max
        self._header_count_max = self._limits.header_count_max
        self._body_room = CHUNKED_FACTOR * self._limits.body_bytes_max
        self._begun = self._piece = self._fed = self._body_bytes = 0
        self._body_parts: list[bytes] = []
        self._is_deaf = self._was_idle = False
        self._cycle: Cycle | None = None
        self._queue: list[Cycle] = []

    # The connection's life

    def connection_made(self, transport: BaseTransport) -> None:
        """Begin; beyond the cap a connection is told so and closed."""
        super().connection_made(cast("Transport", transport))
        self.quiet_since = self.loop.time()
        self._enter(Phase.FRESH, self._limits.header_timeout_seconds)
        excess = len(self.connections) - self._limits.connections_max
        if excess > 0:
            if excess > self._limits.connections_max:
                self.abort("connections")
            else:
                self.refuse(overloaded(self._limits.retry_after_seconds, "too-many-connections"), "connections")

    def connection_lost(self, exc: Exception | None) -> None:
        """End; a handler still at work goes on to its end and its answer is dropped."""
        self.phase = Phase.GONE
        self.deadline = self.write_deadline = math.inf
        self.connections.discard(self)
        for cycle in self._cycles():
            cycle.disconnect()
        self._queue.clear()
        self.flow.resume_writing()
        if exc is None:
            self.transport.close()
        self.parser = None  # type: ignore[assignment]  # frees the cycle of parser and protocol, as uvicorn does

    def eof_received(self) -> bool:  # type: ignore[override]  # the base class says None, asyncio takes a bool
        """Let a client that closed its sending half have its answers; close at once when there is none to come."""
        pending = self._cycles()
        if self.phase is Phase.LINGER or not pending or pending[0].response_started:
            return False
        self._is_deaf = True
        pending[-1].keep_alive = False
        return True

    def abort(self, reason: str) -> None:
        """Drop the connection now, with a reset."""
        self.server_state.refused[reason] += 1
        self.transport.abort()

    def _enter(self, phase: Phase, seconds: float) -> None:
        self.phase = phase
        self.deadline = self.loop.time() + seconds

    def _cycles(self) -> list[Cycle]:
        """Give the requests without a complete answer, in their order."""
        first = self._cycle
        return [first, *self._queue] if first is not None and not first.response_complete else []

    # Input. A whole request usually comes in one piece, and then no clock is asked and no limit added up on its way.

    def data_received(self, data: bytes) -> None:
        """Feed the parser; input after a refusal, or after the last request we will answer, is read and dropped."""
        if self._is_deaf:
            if self._was_idle:
                self.server_state.refused["raced_with_close"] += 1
                self._was_idle = False
            return
        was = self.phase
        self._begun = 0
        self._piece = len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as pause:
            self._upgrade(data[pause.args[0] :])
        except httptools.HttpParserError:
            if not self._is_deaf:
                self.refuse(Problem(400, "bad-request"), "malformed")
        else:
            if self.phase is Phase.HEADER or self.phase is Phase.BODY:
                self._wait_for_rest(was)

    def _wait_for_rest(self, was: Phase) -> None:
        """Start the limit of a header or body that is not whole yet, and count what the parser holds of it."""
        if self._begun or self.phase is not was:
            limits = self._limits
            is_header = self.phase is Phase.HEADER
            seconds = limits.header_timeout_seconds if is_header else limits.body_timeout_seconds
            self.deadline = self.loop.time() + seconds
        if not self._begun or (self._begun == 1 and was in (Phase.FRESH, Phase.IDLE)):
            # The parser hands over whole lines; the bytes of an unfinished one are only seen here. A piece that holds
            # something of an earlier request too is left out: what it has of the header is seen when that is whole.
            self._fed += self._piece
            header_room = self._header_bytes_max + len(self.url) + REQUEST_LINE_REST
            if self.phase is Phase.HEADER and self._fed > header_room:
                self.refuse(Problem(431, "headers-too-large"), "header_bytes")
            elif self.phase is Phase.BODY and self._fed > header_room + self._body_room:
                self.refuse(Problem(413, "body-too-large"), "body_bytes")

    def _upgrade(self, rest: bytes) -> None:
        """Become a WebSocket; or read the header anew without its offer (h2c, say), and the body that follows it."""
        if self._should_upgrade():
            self.phase = Phase.GONE
            self.handle_websocket_upgrade()
            return
        parser = self.parser
        head = without_upgrade(parser.get_method(), self.url, parser.get_http_version(), self.headers)
        self.parser = httptools.HttpRequestParser(self)  # the other one is over: it took the body for another protocol
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn does
        self.data_received(head + rest)

    def on_message_begin(self) -> None:
        """Begin a request."""
        self.url = b""
        self.headers = []
        self.phase = Phase.HEADER
        self._begun += 1
        self._fed = self._body_bytes = 0
        if len(self._queue) >= PIPELINE_MAX:
            self._stop_reading(self._queue[-1])
            raise RefusedError

    def on_url(self, url: bytes) -> None:
        """Collect the target, up to its limit."""
        self.url += url
        if len(self.url) > self._target_max:
            self._refuse_parsing(Problem(414, "target-too-long"), "target_bytes")

    def on_header(self, name: bytes, value: bytes) -> None:
        """Collect a header; those after a chunked body are dropped, and bounded by the body's limit."""
        if self.phase is Phase.HEADER:
            self.headers.append((name.lower(), value))
        else:
            self._count_body(len(name) + len(value))

    def on_headers_complete(self) -> None:
        """Check what the header announces, before a byte of the body is kept."""
        headers = self.headers
        is_upgrade = self.parser.should_upgrade()
        if is_upgrade and not self._should_upgrade():
            if self.parser.get_method() != b"CONNECT":
                return  # judged when it is read again, in `_upgrade`
            self._refuse_parsing(Problem(400, "bad-request"), "malformed")
        may_be_large = not self._begun or self._piece > self._header_bytes_max or len(headers) > self._header_count_max
        if may_be_large and is_too_large(headers, self._header_bytes_max, self._header_count_max):
            self._refuse_parsing(Problem(431, "headers-too-large"), "header_bytes")
        found = dict(headers)
        version = self.parser.get_http_version()
        is_plain = version == "1.1" and b"host" in found and len(found) == len(headers)
        is_plain = is_plain and b"transfer-encoding" not in found
        if not is_plain and (problem := head_problem(headers, version)) is not None:
            self._refuse_parsing(problem, "malformed")
        length = found.get(b"content-length")
        if length is not None and int(length) > self._limits.body_bytes_max:
            self._refuse_parsing(Problem(413, "body-too-large"), "body_bytes")
        if not self.url.startswith((b"/", b"http://", b"https://")) or b"#" in self.url:
            self._refuse_parsing(Problem(400, "bad-request"), "malformed")
        url = httptools.parse_url(self.url)
        raw_path = url.path or b"/"
        path = raw_path.decode("ascii")
        self.scope = {
            "type": "http",
            "asgi": ASGI,
            "http_version": version,
            "server": self.server,
            "client": self.client,
            "scheme": self.scheme or "http",
            "root_path": "",
            "method": self.parser.get_method().decode("ascii"),
            "path": urllib.parse.unquote(path) if "%" in path else path,
            "raw_path": raw_path,
            "query_string": url.query or b"",
            "headers": headers,
            "state": self.app_state.copy(),
        }
        if not is_upgrade:
            self.phase = Phase.BODY
        expect = found.get(b"expect")
        if expect is not None:
            self._meet_expectation(expect, version)

    def _meet_expectation(self, expect: bytes, version: str) -> None:
        if expect.lower() != b"100-continue":
            self._refuse_parsing(Problem(417, "expectation-failed"), "malformed")
        if version == "1.1" and not self._cycles():
            self.transport.write(_CONTINUE)

    def on_body(self, body: bytes) -> None:
        """Keep a part of the body, up to its limit."""
        self._count_body(len(body))
        self._body_parts.append(body)

    def _count_body(self, size: int) -> None:
        self._body_bytes += size
        if self._body_bytes > self._limits.body_bytes_max:
            self._refuse_parsing(Problem(413, "body-too-large"), "body_bytes")

    def on_message_complete(self) -> None:
        """Hand the whole request to the application, or queue it behind the one at work."""
        if self.phase is Phase.HEADER:  # it offers an upgrade: `data_received` sees to it
            return
        keep_alive = self.parser.should_keep_alive() and self.scope["http_version"] == "1.1"
        body = b"".join(self._body_parts) if self._body_parts else b""
        self._body_parts.clear()
        cycle = Cycle(self, self.scope, body, keep_alive=keep_alive)
        self.phase = Phase.BUSY
        self.deadline = math.inf
        first = self._cycle
        if first is None or first.response_complete:
            cycle.keep_alive = keep_alive and not self.server_state.is_draining
            self._begin(cycle)
            return
        if self.server_state.is_draining and keep_alive:
            cycle.keep_alive = False
            # Only the last answer on a connection may say close, or those behind it would be lost.
            waiting = self._cycles()[-1]
            waiting.keep_alive = waiting.keep_alive or not waiting.response_started
        self.flow.pause_reading()
        self._queue.append(cycle)

    def _begin(self, cycle: Cycle) -> None:
        self._cycle = cycle
        # A copy of the server's context: nothing that one request binds is seen by the next on this connection.
        cycle.task = self.loop.create_task(cycle.run(self.app), context=self.server_state.context.copy())
        self.tasks.add(cycle.task)

    # Output

    def on_response_complete(self) -> None:
        """Go on: the next queued request, or wait for the client; or close, after an answer that said so."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        if self._cycle is not None and not self._cycle.keep_alive:
            self._linger()
        elif self._queue:
            self._begin(self._queue.pop(0))
        else:
            if self.phase is Phase.BUSY:
                self.phase = Phase.IDLE
                self.quiet_since = now = self.server_state.now
                self.deadline = now + self._idle_seconds
            self.flow.resume_reading()

    def pause_writing(self) -> None:
        """Start the slow reader's clock."""
        super().pause_writing()
        self.write_deadline = self.loop.time() + self._limits.write_timeout_seconds

    def resume_writing(self) -> None:
        """Stop the slow reader's clock."""
        super().resume_writing()
        self.write_deadline = math.inf

    # Ends

    def refuse(self, problem: Problem, reason: str) -> None:
        """Take no more input; answer the problem unless another answer is under way, and close after that."""
        cycles = self._cycles()
        identity = self.server_state.note_refusal(problem, reason, is_answered=not cycles)
        if cycles:
            self._stop_reading(cycles[-1])
            return
        self._is_deaf = True
        self.transport.write(self.server_state.last_answer(problem, identity))
        self._linger()

    def _refuse_parsing(self, problem: Problem, reason: str) -> None:
        self.refuse(problem, reason)
        raise RefusedError

    def _stop_reading(self, last: Cycle) -> None:
        self._is_deaf = True
        last.keep_alive = False
        self.phase = Phase.BUSY
        self.deadline = math.inf

    def _linger(self) -> None:
        """Send our FIN, then read and drop until the client's: an immediate close could reset the answer away."""
        self._is_deaf = True
        self._enter(Phase.LINGER, self._limits.linger_seconds)
        self._queue.clear()
        self.flow.resume_reading()
        if self.transport.can_write_eof():
            self.transport.write_eof()
        else:
            self.transport.close()

    def cut_off(self, cycle: Cycle) -> None:
        """End a connection whose answer cannot be completed; the client must see that it is cut."""
        if cycle is self._cycle:
            self.transport.abort()

    def sweep(self, now: float) -> None:
        """End what is overdue; the server calls this a few times a second."""
        if now >= self.write_deadline:
            self.abort("write_timeout")
        elif now >= self.deadline:
            self._expire()
        elif self.phase in (Phase.FRESH, Phase.IDLE) and self.server_state.lets_go_of(self.quiet_since, now):
            self.close_if_quiet()

    def _expire(self) -> None:
        match self.phase:
            case Phase.HEADER:
                self.refuse(Problem(408, "header-timeout"), "header_timeout")
            case Phase.BODY:
                self.refuse(Problem(408, "body-timeout"), "body_timeout")
            case Phase.LINGER if self.transport.get_write_buffer_size() == 0:
                self.transport.close()
            case Phase.LINGER:
                self.write_deadline = min(self.write_deadline, self.loop.time() + self._limits.write_timeout_seconds)
                self.deadline = math.inf
            case Phase.FRESH | Phase.IDLE:
                self.close_if_quiet()
            case _:
                self.deadline = math.inf

    def begin_drain(self) -> None:
        """Make the last answer under way the connection's last."""
        if (cycles := self._cycles()) and not cycles[-1].response_started:
            cycles[-1].keep_alive = False

    def close_if_quiet(self) -> None:
        """Close an idle connection, unless a request lies unread in the kernel: that one is served first.

        A request that is on its way at that very moment meets our FIN and is lost, unprocessed, so a client may
        repeat it (RFC 9112 section 9.3.1); HTTP/1.1 has no better way. It is counted as `raced_with_close`.
        """
        if unread_bytes(self.transport):
            return
        self._was_idle = True
        self._linger()

    def shutdown(self) -> None:
        """Do nothing: `HttpServer.drain` ends connections in an order that loses no request."""
