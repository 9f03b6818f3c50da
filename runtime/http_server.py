"""The HTTP server: uvicorn's protocol under a start and a stop of our own.

The listening socket is bound before anything runs, so a port in use is an error in `server_errors`, as in the Go
original (`serverErrors <- server.ListenAndServe()`), and not a `SystemExit`. uvicorn's signal handling and its stop
are not used: they cut off keep-alive clients (measured: 8 to 100 of 100 lose a request).
"""

from __future__ import annotations

import asyncio
import contextvars
from dataclasses import dataclass
from email.utils import formatdate
from typing import Any, Final, cast

from starlette.types import ASGIApp
from uvicorn.config import Config

from patterns.channel import Channel
from runtime.acceptor import Acceptor
from runtime.background import report
from runtime.errors import WorkCutOffError
from runtime.health import Health
from runtime.http_protocol import HttpProtocol
from runtime.http_state import SWEEP_SECONDS, HttpState
from runtime.listener import open_listener
from runtime.logs import get_logger
from runtime.settings import HttpSettings

POLL_SECONDS: Final = 0.02
UNWIND_SECONDS: Final = 0.5

_log = get_logger("runtime.http")


@dataclass(frozen=True, slots=True)
class HttpStatistics:
    """Count what the server holds and has refused.

    Attributes:
        connections: open now, idle ones and streams included.
        requests: answered since the start.
        running: requests at work now.
        refused: reason to how often a connection or a request was refused before it reached the application.
    """

    connections: int
    requests: int
    running: int
    refused: dict[str, int]


@dataclass(frozen=True, slots=True)
class DrainReport:
    """Say how a drain ended: how long it took, and how many connections without a request had to be cut off."""

    seconds: float
    cut_off_connections: int


class HttpServer:
    """Serve an ASGI application on one listening socket.

    Args:
        app: the application; it gets no lifespan events. A stream learns that it should say goodbye from
            `scope["state"]["stopping"]`, an `asyncio.Event`.
        settings: address and limits.
        health: set to draining by `drain`.
        websockets: "none", or "auto" to serve them with the library uvicorn finds.
    """

    def __init__(self, app: ASGIApp, settings: HttpSettings, health: Health, *, websockets: str = "none") -> None:
        self._settings = settings
        self._health = health
        self._config = Config(
            cast("Any", app),  # uvicorn and starlette type the same ASGI application differently
            http=HttpProtocol,
            ws=websockets,
            loop="none",
            lifespan="off",
            interface="asgi3",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
        )
        self._state = HttpState(settings)
        self._acceptor: Acceptor | None = None
        self._serving: asyncio.Task[None] | None = None
        self._address: tuple[str, int] = (settings.host, settings.port)

    @property
    def address(self) -> tuple[str, int]:
        """Host and port; the real port from `start` on when the setting says 0."""
        return self._address

    def statistics(self) -> HttpStatistics:
        """Give the counts of this moment; safe from any thread."""
        state = self._state
        return HttpStatistics(
            len(state.connections), state.total_requests, len(state.tasks), dict(state.refused.copy())
        )

    def start(self, server_errors: Channel[BaseException]) -> None:
        """Listen, and serve in the background; returns at once.

        Whatever goes wrong, now or later, arrives in `server_errors` (one error; a full channel keeps what it has).
        From here on clients can connect. Must be called from the loop that is to serve.
        """
        settings = self._settings
        try:
            listener = open_listener(
                settings.host, settings.port, listen_fd=settings.listen_fd, backlog=settings.backlog
            )
        except OSError as error:
            report(server_errors, error)
            return
        if not self._config.loaded:
            self._config.load()
        self._tick_date()
        self._state.now = asyncio.get_running_loop().time()
        name = listener.getsockname()
        self._address = (str(name[0]), int(name[1]))
        self._state.context = contextvars.copy_context()
        self._acceptor = Acceptor(listener, self._new_protocol)
        self._serving = asyncio.get_running_loop().create_task(self._watch(server_errors), name="http server")

    async def _watch(self, server_errors: Channel[BaseException]) -> None:
        loop = asyncio.get_running_loop()
        ticks = 0
        try:
            while True:
                await asyncio.sleep(SWEEP_SECONDS)
                ticks += 1
                if ticks % 10 == 0:
                    self._tick_date()
                self._sweep(loop.time())
        except Exception as error:  # noqa: BLE001 - handed to whoever waits in server_errors
            report(server_errors, error)

    def _new_protocol(self) -> HttpProtocol:
        return HttpProtocol(self._config, self._state, {"stopping": self._state.stopping})

    def _tick_date(self) -> None:
        self._state.date_line = f"date: {formatdate(usegmt=True)}\r\n".encode()
        self._state.default_headers = [(b"date", self._state.date_line[6:-2])]

    def _sweep(self, now: float) -> None:
        self._state.now = now
        for connection in tuple(self._state.connections):
            if isinstance(connection, HttpProtocol):
                connection.sweep(now)

    async def drain(self) -> DrainReport:
        """Stop without losing a request.

        1. For `drain_lag_seconds` everything is served, each answer with `Connection: close`: balancers see that
           readiness is false, and each busy keep-alive client learns that it must connect anew.
        2. The listener is closed, after every connection that the kernel had accepted for us alone was taken in.
        3. What is in flight may finish for `finish_seconds`. A connection that is silent since `drain_lag_seconds`
           and has nothing unread in the kernel gets our FIN. Streams are told by `scope["state"]["stopping"]`,
           WebSockets by close code 1012.
        4. What is left is cancelled (503 where an answer is possible) and cut, and a line says how much that was.

        Takes at most drain_lag_seconds + finish_seconds + 0.5 s. Cancelling it closes everything at once.

        Raises:
            WorkCutOffError: Requests were cut off, as `Shutdown` of Go's http.Server returns its context's error.
        """
        loop = asyncio.get_running_loop()
        began = loop.time()
        self._health.set_draining()
        if self._serving is None:
            return DrainReport(0.0, 0)
        state = self._state
        state.is_draining = True
        for connection in tuple(state.connections):
            if isinstance(connection, HttpProtocol):
                connection.begin_drain()
        try:
            await asyncio.sleep(self._settings.drain_lag_seconds)
            await self._close_listener()
            state.stopping.set()
            for connection in tuple(state.connections):
                connection.shutdown()
            finish_at = loop.time() + self._settings.finish_seconds
            # Polled, because a WebSocket leaves uvicorn's set of connections without telling anyone.
            while (state.connections or state.tasks) and loop.time() < finish_at:  # noqa: ASYNC110 - see above
                await asyncio.sleep(POLL_SECONDS)
            requests, connections = len(state.tasks), len(state.connections)
            if requests:
                await self._cancel_requests()
        finally:
            self.close()
        if requests or connections:
            _log.warning("HTTP server cut off what took too long", requests=requests, connections=connections)
        if requests:
            raise WorkCutOffError(f"{requests} requests took longer than {self._settings.finish_seconds:g} s")
        return DrainReport(loop.time() - began, connections)

    async def _close_listener(self) -> None:
        if self._acceptor is not None:
            # What waits in an inherited socket's queue is its other holders' to serve.
            await self._acceptor.stop(take_queued=self._settings.listen_fd is None)
        self._state.listener_is_closed = True

    async def _cancel_requests(self) -> None:
        tasks = tuple(self._state.tasks)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks, timeout=UNWIND_SECONDS)

    def close(self) -> None:
        """Stop now: connections are cut, requests cancelled. Idempotent; `drain` is the way that loses nothing."""
        if self._serving is not None:
            self._serving.cancel()
        if self._acceptor is not None:
            self._acceptor.close()
        for connection in tuple(self._state.connections):
            connection.transport.abort()
        for task in tuple(self._state.tasks):
            task.cancel()

    async def wait_closed(self) -> None:
        """Wait, at most half a second, until what `close` ended is gone."""
        if self._serving is not None:
            await asyncio.wait([self._serving, *self._state.tasks], timeout=UNWIND_SECONDS)
