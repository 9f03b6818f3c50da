"""The edge: ids, deadline, in-flight bound, problems, one line and one count a request."""

from __future__ import annotations

import asyncio
from collections.abc import MutableMapping
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import generate_latest
from starlette.types import ASGIApp, Receive, Scope, Send

from patterns.bubble import bubble
from runtime.errors import DependencyUnavailable
from runtime.http_edge import HttpEdge
from runtime.http_metrics import HttpMetrics
from runtime.problem import Problem, ProblemTable
from runtime.settings import HttpSettings
from runtime.telemetry import current_trace, request_id
from tests.support.asgi import Sent, call, http_scope


class Edge:
    """An edge around an application, with what it logged and counted."""

    def __init__(self, app: ASGIApp, **settings: Any) -> None:  # noqa: ANN401 - settings
        self.lines: list[MutableMapping[str, Any]] = []
        self.registry = CollectorRegistry()
        self.app = HttpEdge(
            app,
            HttpSettings(**settings),
            problems=ProblemTable(
                {KeyError: (404, "not-here"), DependencyUnavailable: (503, "dependency-unavailable")}
            ),
            metrics=HttpMetrics(self.registry),
            write_line=self.lines.append,
        )

    @property
    def metrics(self) -> str:
        """What a scrape would see."""
        return generate_latest(self.registry).decode()


async def answer(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer two bytes."""
    assert scope["type"] == "http"
    await receive()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


async def test_safe_request_id_is_kept_and_others_are_replaced() -> None:
    """A client's id of a safe form comes back; one that could not be logged as it is gets a new one instead."""
    edge = Edge(answer)
    kept = await call(edge.app, http_scope(headers=[(b"x-request-id", b"abc.DEF-1_2")]))
    assert kept.headers["x-request-id"] == "abc.DEF-1_2"
    seen = set()
    for value in (b"", b"a b", b"x" * 65, b"a\nb", b'"', b"-a", b"\xff", b"ABCDEFGHJKMNPQRS", b"x-0123456789ABCDEF"):
        sent = await call(edge.app, http_scope(headers=[(b"x-request-id", value)]))
        assert sent.headers["x-request-id"].encode() != value
        seen.add(sent.headers["x-request-id"])
    assert len(seen) == 9, "each request has an id of its own"


async def test_trace_is_continued_or_begun() -> None:
    """A good traceparent gives the trace its id and a new step; a bad one begins a new trace."""
    traces = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        traces.append((current_trace.get(), request_id.get(), scope["request_id"]))
        await answer(scope, receive, send)

    edge = Edge(app)
    trace_id = "0af7651916cd43dd8448eb211c80319c"
    good = f"00-{trace_id}-b7ad6b7169203331-01".encode()
    for value in (good, b"00-zz-1-01", b""):
        await call(edge.app, http_scope(headers=[(b"traceparent", value)]))
    first, second, third = (trace for trace, _, _ in traces)
    assert first is not None
    assert second is not None
    assert third is not None
    assert first.trace_id == trace_id
    assert first.span_id != "b7ad6b7169203331"
    assert len({trace_id, second.trace_id, third.trace_id}) == 3
    assert all(in_context == in_scope for _, in_context, in_scope in traces)


async def test_two_authorization_headers_are_as_good_as_none() -> None:
    """One is handed on, two become an empty one, none stays none."""
    seen: list[bytes | None] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope["authorization"])
        await answer(scope, receive, send)

    edge = Edge(app)
    header = (b"authorization", b"Bearer x")
    for headers in ([], [header], [(b"accept", b"a"), (b"accept", b"b"), header], [header, header]):
        await call(edge.app, http_scope(headers=headers))
    assert seen == [None, b"Bearer x", b"Bearer x", b""]


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (Problem(418, "teapot"), 418, "teapot"),
        (KeyError("secret"), 404, "not-here"),
        (RuntimeError("secret"), 500, "internal"),
        (RecursionError(), 500, "internal"),
    ],
)
async def test_whatever_a_handler_raises_becomes_a_problem(error: Exception, status: int, code: str) -> None:
    """Known errors have their answers, all others are internal and tell nothing but the request's id."""

    async def app(_scope: Scope, _receive: Receive, _send: Send) -> None:
        raise error

    edge = Edge(app)
    sent = await call(edge.app, http_scope(headers=[(b"x-request-id", b"id-1")]))
    assert (sent.status, sent.code) == (status, code)
    assert b"secret" not in sent.body
    assert b'"request_id":"id-1"' in sent.body
    assert [line["status"] for line in edge.lines] == [status]


async def test_what_was_the_matter_with_a_dependency_is_in_the_log_and_not_in_the_answer() -> None:
    """The request's line has it, beside what the handler put there; the client has only the code."""

    async def app(scope: Scope, _receive: Receive, _send: Send) -> None:
        scope["log_fields"] = {"server_timing": "db;dur=1"}
        raise DependencyUnavailable("postgres", "DiskFullError: no space left on /var/lib")

    edge = Edge(app)
    sent = await call(edge.app, http_scope())
    assert (sent.status, sent.code) == (503, "dependency-unavailable")
    assert b"DiskFull" not in sent.body
    [line] = edge.lines
    assert line["error"] == "postgres: DiskFullError: no space left on /var/lib"
    assert line["server_timing"] == "db;dur=1"


async def test_error_after_the_answer_began_adds_nothing_to_it() -> None:
    """Half an answer stays half: the server cuts the connection, so that the client sees it."""

    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise RuntimeError

    edge = Edge(app)
    sent = await call(edge.app, http_scope())
    assert len(sent.messages) == 1
    assert edge.lines[0]["status"] == 200


def test_deadline_answers_504_at_once_and_cancels_the_handler() -> None:
    """At its deadline a request is answered, its handler cancelled; later messages of that handler go nowhere."""
    ended: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            await asyncio.sleep(5)  # slow to roll back
            ended.append("rolled back")
            await answer(scope, receive, send)
            raise

    async def scenario() -> None:
        edge = Edge(app, request_timeout_seconds=2)
        sent = Sent()
        request = asyncio.create_task(call(edge.app, http_scope(), sent=sent))
        await asyncio.sleep(2.001)
        assert (sent.status, sent.code) == (504, "deadline-exceeded")
        assert edge.app.in_flight == 1, "a handler that is still at it keeps its place"
        await request
        assert ended == ["rolled back"]
        assert len(sent.messages) == 2
        assert edge.app.in_flight == 0
        assert edge.lines[0]["status"] == 504

    bubble(scenario)


@pytest.mark.parametrize("end", [None, RuntimeError()])
def test_deadline_is_answered_before_a_handler_that_wakes_up_with_it_ends(end: Exception | None) -> None:
    """Were the request over without its answer, the server would cut the connection."""

    async def app(_scope: Scope, _receive: Receive, _send: Send) -> None:
        try:
            await woken.wait()
        except asyncio.CancelledError:
            if end is not None:
                raise end from None
            raise

    async def scenario() -> None:
        asyncio.get_running_loop().call_later(2, woken.set)  # of two timers of one moment the earlier made fires first
        edge = Edge(app, request_timeout_seconds=2)
        sent = await call(edge.app, http_scope())
        assert (sent.status, sent.code) == (504, "deadline-exceeded")
        assert edge.lines[0]["status"] == 504

    woken = asyncio.Event()
    bubble(scenario)


def test_deadlines_of_many_requests_fire_each_in_its_time() -> None:
    """One timer serves all: requests started at different times end each after its own limit."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await asyncio.sleep(float(scope["path"][1:]))
        await answer(scope, receive, send)

    async def scenario() -> None:
        edge = Edge(app, request_timeout_seconds=2)
        loop = asyncio.get_running_loop()
        ends: dict[int, tuple[float, int]] = {}

        async def ask(number: int, seconds: float) -> None:
            began = loop.time()
            sent = await call(edge.app, http_scope(path=f"/{seconds}"))
            ends[number] = (round(loop.time() - began, 3), sent.status)

        tasks = []
        for number, seconds in enumerate([60, 0.5, 60, 1.9, 60, 0.1]):
            tasks.append(asyncio.create_task(ask(number, seconds)))
            await asyncio.sleep(0.3)
        await asyncio.gather(*tasks)
        assert ends == {0: (2, 504), 1: (0.5, 200), 2: (2, 504), 3: (1.9, 200), 4: (2, 504), 5: (0.1, 200)}
        await asyncio.sleep(10)
        assert (await call(edge.app, http_scope(path="/1"))).status == 200

    bubble(scenario)


def test_answer_that_has_begun_has_no_deadline() -> None:
    """A stream may go on beyond the request's deadline."""

    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await asyncio.sleep(60)
        await send({"type": "http.response.body", "body": b"late"})

    async def scenario() -> None:
        sent = await call(Edge(app, request_timeout_seconds=2).app, http_scope())
        assert (sent.status, sent.body) == (200, b"late")

    bubble(scenario)


def test_excess_is_answered_503_without_waiting_and_room_comes_back() -> None:
    """Beyond the bound a request gets 503 with Retry-After in no time; when one ends, the next is served."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await asyncio.sleep(1)
        await answer(scope, receive, send)

    async def scenario() -> None:
        edge = Edge(app, in_flight_max=3, retry_after_seconds=4)
        loop = asyncio.get_running_loop()
        accepted = [asyncio.create_task(call(edge.app, http_scope())) for _ in range(3)]
        await asyncio.sleep(0.5)
        assert "lp_http_requests_in_flight 3.0" in edge.metrics
        for _ in range(20):
            refused = await call(edge.app, http_scope())
            assert (refused.status, refused.code, refused.headers["retry-after"]) == (503, "overloaded", "4")
        assert loop.time() == 0.5
        assert [(await task).status for task in accepted] == [200] * 3
        assert (await call(edge.app, http_scope())).status == 200

    bubble(scenario)


def test_cancelled_request_says_503_and_stays_cancelled() -> None:
    """The server's own cancel, at the end of a drain, is answered and is not swallowed."""

    async def app(_scope: Scope, _receive: Receive, _send: Send) -> None:
        await asyncio.sleep(60)

    async def scenario() -> None:
        edge, sent = Edge(app), Sent()
        request = asyncio.create_task(call(edge.app, http_scope(), sent=sent))
        await asyncio.sleep(0.1)
        request.cancel()
        with pytest.raises(asyncio.CancelledError):
            await request
        assert (sent.status, sent.code, sent.headers["connection"]) == (503, "shutting-down", "close")
        assert edge.app.in_flight == 0

    bubble(scenario)


async def test_line_and_count_name_the_route_and_nothing_the_client_wrote() -> None:
    """Path, query and unknown verbs stay out of log and metrics; the application's own facts are added."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] != "/unknown":
            scope["route_template"] = "/v1/things/{id}"
        scope["log_fields"] = {"spans": 3}
        await answer(scope, receive, send)

    edge = Edge(app)
    await call(edge.app, http_scope(path="/v1/things/secret", query=b"secret"))
    await call(edge.app, http_scope(method="SECRET", path="/unknown"))
    first, second = edge.lines
    assert (first["route"], first["method"], first["bytes"], first["spans"]) == ("/v1/things/{id}", "GET", 2, 3)
    assert (second["route"], second["method"]) == ("unmatched", "OTHER")
    assert 'lp_http_requests_total{method="OTHER",route="unmatched",status="200"} 1.0' in edge.metrics
    assert "secret" not in (str(edge.lines) + edge.metrics).lower()
