"""The admin port: `/livez`, `/readyz`, `/metrics`, from a thread of its own.

It answers while the event loop is blocked, which is when it is needed most: then `/livez` says 200 until the loop has
not turned for `stall_seconds`, and 503 from there on, `/readyz` says 503 after a second, and `/metrics` shows the
lag. Readiness is asked for each scrape, too, so that a monitor that only scrapes knows it. In Go a second `http.Server`
on the same runtime does this, since nothing there can block the others.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable
from typing import Final

import orjson

from runtime.health import Health, Readiness
from runtime.listener import open_listener
from runtime.settings import AdminSettings

REQUEST_BYTES_MAX: Final = 8192
IO_TIMEOUT_SECONDS: Final = 5.0
READINESS_TIMEOUT_SECONDS: Final = 3.0
CONNECTIONS_MAX: Final = 32
PULSE_SECONDS: Final = 0.25
UNREADY_SECONDS: Final = 1.0
STOP_SECONDS: Final = 2.0

_PHRASES: Final = {
    200: "OK",
    400: "Bad Request",
    404: "Not Found",
    405: "Method Not Allowed",
    503: "Service Unavailable",
}
_JSON: Final = "application/json"
_METRICS: Final = "text/plain; version=0.0.4; charset=utf-8"

Answer = tuple[int, str, bytes]


class AdminServer:
    """Serve liveness, readiness and metrics on a port of its own.

    One request a connection, at most 8 KiB and 5 s for it, at most 32 connections: a monitor needs no more.

    Args:
        settings: address, and how long the loop may stand still before liveness fails.
        health: whose report is served; its checks run on the loop that `start` was given.
        render_metrics: gives the Prometheus text; called in this server's thread.
    """

    def __init__(self, settings: AdminSettings, health: Health, render_metrics: Callable[[], bytes]) -> None:
        self._settings = settings
        self._health = health
        self._render_metrics = render_metrics
        self._address = (settings.host, settings.port)
        self._thread: threading.Thread | None = None
        self._own_loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._watched: asyncio.AbstractEventLoop | None = None
        self._last_turn = time.monotonic()
        self._readiness = Readiness(False, {"process": "starting"})
        self._open = 0

    @property
    def readiness(self) -> Readiness:
        """What the last question about readiness was answered, by a probe's or by a scrape's."""
        return self._readiness

    @property
    def address(self) -> tuple[str, int]:
        """Host and port; the real port from `start` on when the setting says 0."""
        return self._address

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Listen and serve; `loop` is the one whose turning is watched and on which readiness is asked.

        Raises:
            OSError: the address cannot be had.
        """
        listener = open_listener(
            self._settings.host, self._settings.port, listen_fd=self._settings.listen_fd, backlog=128
        )
        name = listener.getsockname()
        self._address = (str(name[0]), int(name[1]))
        self._watched = loop
        self._last_turn = time.monotonic()
        started = threading.Event()

        async def serve() -> None:
            self._own_loop = asyncio.get_running_loop()
            self._stop = asyncio.Event()
            server = await asyncio.start_server(self._serve_connection, sock=listener, limit=REQUEST_BYTES_MAX)
            pulse = self._own_loop.create_task(self._feel_pulse())
            started.set()
            await self._stop.wait()
            pulse.cancel()
            server.close()

        self._thread = threading.Thread(target=lambda: asyncio.run(serve()), name="admin", daemon=True)
        self._thread.start()
        started.wait(STOP_SECONDS)

    def close(self) -> None:
        """Stop serving and wait for the thread, at most 2 s. Idempotent."""
        thread, self._thread = self._thread, None
        if thread is not None and self._own_loop is not None and self._stop is not None:
            with contextlib.suppress(RuntimeError):  # the loop of a thread that died is closed
                self._own_loop.call_soon_threadsafe(self._stop.set)
            thread.join(STOP_SECONDS)

    @property
    def stalled_seconds(self) -> float:
        """How long ago the watched loop was last seen turning; up to 0.25 s in a healthy process."""
        return time.monotonic() - self._last_turn

    async def _feel_pulse(self) -> None:
        while self._watched is not None:
            with contextlib.suppress(RuntimeError):  # a closed loop no longer turns, and liveness is to show it
                self._watched.call_soon_threadsafe(self._note_turn)
            await asyncio.sleep(PULSE_SECONDS)

    def _note_turn(self) -> None:
        self._last_turn = time.monotonic()

    async def _serve_connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open += 1
        try:
            if self._open <= CONNECTIONS_MAX:
                async with asyncio.timeout(IO_TIMEOUT_SECONDS + READINESS_TIMEOUT_SECONDS):
                    await self._exchange(reader, writer)
        except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # the client is gone, too slow or too long; there is nobody to tell
        finally:
            self._open -= 1
            writer.transport.abort() if writer.transport.get_write_buffer_size() else writer.close()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with asyncio.timeout(IO_TIMEOUT_SECONDS):
            head = await reader.readuntil(b"\r\n\r\n")
        parts = head.split(b"\r\n", 1)[0].split(b" ")
        if len(parts) != 3:
            status, media_type, body = _plain(400)
        else:
            status, media_type, body = await self._answer(parts[0], parts[1].partition(b"?")[0])
        lines = [
            f"HTTP/1.1 {status} {_PHRASES[status]}",
            f"content-type: {media_type}",
            f"content-length: {len(body)}",
            "cache-control: no-store",
            "connection: close",
        ]
        if status == 405:
            lines.append("allow: GET, HEAD")
        writer.write("\r\n".join([*lines, "", ""]).encode() + (b"" if parts[0] == b"HEAD" else body))
        await writer.drain()

    async def _answer(self, method: bytes, path: bytes) -> Answer:
        routes = {b"/livez": self._answer_live, b"/readyz": self._answer_ready, b"/metrics": self._answer_metrics}
        if path not in routes:
            return _plain(404)
        if method not in (b"GET", b"HEAD"):
            return _plain(405)
        return await routes[path]()

    async def _answer_live(self) -> Answer:
        stalled = self.stalled_seconds
        is_live = stalled < self._settings.stall_seconds
        return (200 if is_live else 503), _JSON, orjson.dumps({"live": is_live, "stalled_seconds": round(stalled, 3)})

    async def _answer_ready(self) -> Answer:
        readiness = self._readiness = await self._ask_readiness()
        body = orjson.dumps({"ready": readiness.is_ready, "not_ready": readiness.not_ready})
        return (200 if readiness.is_ready else 503), _JSON, body

    async def _answer_metrics(self) -> Answer:
        self._readiness = await self._ask_readiness()
        return 200, _METRICS, self._render_metrics()

    async def _ask_readiness(self) -> Readiness:
        unknown = Readiness(False, {"event_loop": "not answering"})
        if self._watched is None or self.stalled_seconds >= UNREADY_SECONDS:
            return unknown
        report = self._health.report()
        try:
            question = asyncio.run_coroutine_threadsafe(report, self._watched)
        except RuntimeError:  # the loop is closed
            report.close()
            return unknown
        try:
            return await asyncio.wait_for(asyncio.wrap_future(question), READINESS_TIMEOUT_SECONDS)
        except TimeoutError:
            return unknown


def _plain(status: int) -> Answer:
    return status, "text/plain; charset=utf-8", f"{_PHRASES[status]}\n".encode()
