"""The one ASGI layer between the server and the API: what every request gets, for as little time as possible.

Each request has an id (the client's, if it is of a safe form), continues a W3C trace, has a deadline of ours, is
counted, and leaves one line in the access log. Too many at once are answered 503 without being started. Whatever a
handler raises becomes a problem answer here and nowhere else. What the protocol refuses (a broken or oversized request)
never comes here: it has an id and a line of its own. In Go these are five nested `http.Handler`s; here each nesting
costs microseconds.
"""

from __future__ import annotations

import asyncio
import re
from time import perf_counter
from typing import Any, Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from runtime import logs
from runtime.access_log import AccessEntry, AccessLog, WriteLine
from runtime.errors import DependencyUnavailable
from runtime.http_metrics import HttpMetrics
from runtime.problem import Problem, ProblemTable, overloaded
from runtime.settings import HttpSettings
from runtime.telemetry import RequestIds, TraceContext, continue_trace, current_trace, request_id

REQUEST_ID_PATTERN: Final = re.compile(rb"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
KNOWN_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT"})
UNMATCHED: Final = "unmatched"

_log = logs.get_logger("runtime.http")


class _Exchange:
    """One request under way: what was answered so far, and, once its time is up, the task that says so."""

    __slots__ = ("_id_header", "_send", "deadline", "late_answer", "request_id", "size", "status", "task", "trace")

    def __init__(self, send: Send, identity: bytes, text: str, trace: TraceContext) -> None:
        self._send = send
        self._id_header = (b"x-request-id", identity)
        self.request_id = text
        self.trace = trace
        self.status = 0
        self.size = 0
        self.late_answer: asyncio.Task[None] | None = None
        self.deadline = 0.0
        self.task: asyncio.Task[Any] | None = None

    async def send(self, message: Message) -> None:
        """Pass an answer's part on; after the deadline's own answer nothing more is passed."""
        if self.late_answer is not None:
            return
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message["headers"] = [*message["headers"], self._id_header]
        else:
            self.size += len(message.get("body", b""))
        await self._send(message)

    async def answer(self, problem: Problem) -> None:
        """Answer a problem; the caller has made sure that nothing was answered yet."""
        body = problem.body(self.request_id)
        self.status = problem.status
        self.size = len(body)
        headers = [*problem.raw_headers(body), self._id_header]
        await self._send({"type": "http.response.start", "status": problem.status, "headers": headers})
        await self._send({"type": "http.response.body", "body": body, "more_body": False})


class HttpEdge:
    """Wrap an ASGI application.

    The deadline holds until the answer begins: then the client gets 504 at once and the handler is cancelled, so a
    handler that is slow to unwind delays nobody but keeps its place among those in flight. A handler that is
    cancelled for any other reason (the server's stop) gets 503. An answer that has begun is bounded by the server's
    write limit instead.

    For the application: `scope["request_id"]`, `scope["deadline"]` (the loop's time), `scope["authorization"]` (the
    one header's value, or None). From it: `scope["route_template"]` (for metrics and log), `scope["principal"]`, and
    `scope["log_fields"]`, a dictionary of more facts for the request's log line.
    """

    def __init__(
        self,
        app: ASGIApp,
        settings: HttpSettings,
        *,
        problems: ProblemTable,
        metrics: HttpMetrics | None = None,
        write_line: WriteLine | None = None,
    ) -> None:
        self._app = app
        self._timeout_seconds = settings.request_timeout_seconds
        self._in_flight_max = settings.in_flight_max
        self._overloaded = overloaded(settings.retry_after_seconds)
        self._problems = problems
        self._metrics = metrics if metrics is not None else HttpMetrics()
        self._metrics.watch(lambda: self._in_flight, settings.in_flight_max)
        self._access_log = AccessLog(write_line)
        self._in_flight = 0
        self._waiting: dict[_Exchange, None] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._answers: set[asyncio.Task[None]] = set()
        self._ids = RequestIds()
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def in_flight(self) -> int:
        """How many requests are at work."""
        return self._in_flight

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request to its end; never raises for what a handler did."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = perf_counter()
        exchange = self._identify(scope, send)
        if self._in_flight >= self._in_flight_max:
            await exchange.answer(self._overloaded)
            self._finish(scope, exchange, began)
            return
        self._in_flight += 1
        try:
            self._set_deadline(scope, exchange)
            await self._app(scope, receive, exchange.send)
        except asyncio.CancelledError:
            if exchange.late_answer is None:
                if not exchange.status:
                    headers = {"retry-after": "1", "connection": "close"}
                    await exchange.answer(Problem(503, "shutting-down", headers=headers))
                raise
            # A handler that was about to wake up at its deadline ends before this answer has begun; with its end the
            # server would cut the connection.
            await asyncio.wait({exchange.late_answer})
        except Exception as error:  # noqa: BLE001 - every handler's fault ends here, as an answer and in the log
            await self._fail(scope, exchange, error)
        finally:
            self._in_flight -= 1
            self._waiting.pop(exchange, None)
            self._finish(scope, exchange, began)

    def _identify(self, scope: Scope, send: Send) -> _Exchange:
        """Read the few headers that every request is asked for."""
        headers = dict(scope["headers"])
        authorization = headers.get(b"authorization")
        if authorization is not None and len(headers) != len(scope["headers"]):
            given = sum(name == b"authorization" for name, _ in scope["headers"])
            authorization = authorization if given == 1 else b""  # which of two would count?
        scope["authorization"] = authorization
        identity = headers.get(b"x-request-id")
        # An id that the log would mask (it looks like a coupon code or a token) is not taken over either.
        if identity is None or not REQUEST_ID_PATTERN.fullmatch(identity) or logs.mask_line(identity) != identity:
            text = self._ids.make()
            identity = text.encode()
        else:
            text = identity.decode()
        scope["request_id"] = text
        request_id.set(text)
        trace = continue_trace(headers.get(b"traceparent"))
        current_trace.set(trace)
        return _Exchange(send, identity, text, trace)

    # All requests have the same time, so they run out in the order of their start: one timer, the oldest's, will do.

    def _set_deadline(self, scope: Scope, exchange: _Exchange) -> None:
        loop = self._loop
        if loop is None:
            loop = self._loop = asyncio.get_running_loop()
        exchange.task = asyncio.current_task(loop)
        scope["deadline"] = exchange.deadline = loop.time() + self._timeout_seconds
        self._waiting[exchange] = None
        if self._timer is None:
            self._timer = loop.call_at(exchange.deadline, self._expire)

    def _expire(self) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        self._timer = None
        while self._waiting:
            exchange = next(iter(self._waiting))
            if exchange.status:
                del self._waiting[exchange]
            elif exchange.deadline <= now:
                del self._waiting[exchange]
                self._end(exchange)
            else:
                self._timer = loop.call_at(exchange.deadline, self._expire)
                return

    def _end(self, exchange: _Exchange) -> None:
        answer = asyncio.get_running_loop().create_task(exchange.answer(Problem(504, "deadline-exceeded")))
        exchange.late_answer = answer
        self._answers.add(answer)
        answer.add_done_callback(self._answers.discard)
        if exchange.task is not None:
            exchange.task.cancel()

    async def _fail(self, scope: Scope, exchange: _Exchange, error: Exception) -> None:
        problem = self._problems.find(error)
        if isinstance(error, DependencyUnavailable):  # the client is told nothing of it: a full disk is the operator's
            scope["log_fields"] = {**(scope.get("log_fields") or {}), "error": str(error)}
        if problem is None or exchange.status:
            _log.exception("Unhandled error in a request", error_class=type(error).__name__)
        if exchange.late_answer is not None:
            await asyncio.wait({exchange.late_answer})
        elif not exchange.status:
            await exchange.answer(problem or Problem(500, "internal"))

    def _finish(self, scope: Scope, exchange: _Exchange, began: float) -> None:
        seconds = perf_counter() - began
        method = scope["method"]
        if method not in KNOWN_METHODS:
            method = "OTHER"
        route = scope.get("route_template", UNMATCHED)
        status = exchange.status
        self._metrics.observe(method, route, status, seconds)
        principal = scope.get("principal")
        entry = AccessEntry(
            exchange.request_id,
            exchange.trace,
            method,
            route,
            status,
            seconds,
            exchange.size,
            principal.subject if principal is not None else None,
            scope.get("log_fields"),
        )
        self._access_log.write(entry, is_last=not self._in_flight)
