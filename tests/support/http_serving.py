"""A server in the test's own loop, for tests over real sockets."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send

from patterns import Channel
from runtime.health import Health
from runtime.http_edge import HttpEdge
from runtime.http_server import HttpServer
from runtime.problem import ProblemTable
from runtime.settings import HttpSettings
from tests.support.http_process import routes

QUICK: dict[str, Any] = {"port": 0, "drain_lag_seconds": 0.1, "linger_seconds": 0.3}


@asynccontextmanager
async def open_server(app: ASGIApp = routes, **settings: Any) -> AsyncIterator[HttpServer]:  # noqa: ANN401 - settings
    """Serve an application behind the edge, with these settings instead of the default ones; cut off at the end."""
    http = HttpSettings(**{**QUICK, **settings})
    async with serve(HttpEdge(app, http, problems=ProblemTable({})), http) as server:
        yield server


@asynccontextmanager
async def serve(app: ASGIApp, settings: HttpSettings) -> AsyncIterator[HttpServer]:
    """Serve an application as it is."""
    server_errors: Channel[BaseException] = Channel(1)
    server = HttpServer(app, settings, Health())
    server.start(server_errors)
    try:
        yield server
    finally:
        server.close()
        await server.wait_closed()
        assert len(server_errors) == 0


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with the body that came."""
    assert scope["type"] == "http"
    message = await receive()
    assert not message["more_body"]
    body = message["body"]
    headers = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})
