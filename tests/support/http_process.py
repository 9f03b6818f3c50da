"""A process that serves a few test routes, started and stopped as every service is.

It is run by `python -m tests.support.http_process`; its settings begin with HTTP_TEST_.
"""

from __future__ import annotations

import asyncio
import sys
import time
from typing import ClassVar

from pydantic_settings import SettingsConfigDict
from starlette.types import Receive, Scope, Send

from patterns import Channel, receive, select
from runtime.http_edge import HttpEdge
from runtime.http_metrics import HttpMetrics
from runtime.http_server import HttpServer
from runtime.metrics import registry
from runtime.problem import ProblemTable
from runtime.process import Process, run
from runtime.settings import HttpSettings, ProcessSettings


class Settings(ProcessSettings):
    """Settings of the test process."""

    model_config = SettingsConfigDict(env_prefix="HTTP_TEST_")
    service: ClassVar[str] = "http-test"
    http: HttpSettings = HttpSettings()


async def routes(scope: Scope, receive: Receive, send: Send) -> None:
    """Serve the test routes: an answer at once, one after two seconds, a stream, and a blocked loop."""
    path = scope["path"]
    if path in ("/events", "/events/idle"):
        await stream_events(scope, receive, send)
        return
    if path.startswith("/sleep/"):
        await asyncio.sleep(float(path.removeprefix("/sleep/")))
    if path == "/block":
        time.sleep(2)  # noqa: ASYNC251 - a loop that is blocked is what this route is for
    body = b"x" * int(path.removeprefix("/bytes/")) if path.startswith("/bytes/") else b'{"ok":true}'
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def stream_events(scope: Scope, receive: Receive, send: Send) -> None:
    """Send an event every 20 ms, or none, until the server stops, then a last one; end, too, when the client left."""
    stopping = scope["state"]["stopping"]
    await receive()
    gone = asyncio.ensure_future(receive())
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
    try:
        while not stopping.is_set() and not gone.done():
            if scope["path"] == "/events":
                await send({"type": "http.response.body", "body": b"data: tick\n\n", "more_body": True})
            await asyncio.wait({gone}, timeout=0.02)
        await send({"type": "http.response.body", "body": b"event: bye\ndata: restarting\n\n", "more_body": False})
    finally:
        gone.cancel()


class Application:
    """Serve until told to stop, in the shape every service has."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    async def run(self, process: Process) -> None:
        """Serve; an error of the server ends the process with status 1."""
        metrics = HttpMetrics(registry)
        edge = HttpEdge(routes, self._settings.http, problems=ProblemTable({}), metrics=metrics)
        server = HttpServer(edge, self._settings.http, process.health)
        metrics.watch_server(server.statistics)
        server_errors: Channel[BaseException] = Channel(1)
        server.start(server_errors)
        process.health.set_ready()
        failed, stop = receive(server_errors), receive(process.shutdown)
        chosen = await select(failed, stop)
        await process.stop.run(("http", server.drain))
        if chosen is failed:
            raise failed.value


if __name__ == "__main__":
    sys.exit(run(Settings, Application))
