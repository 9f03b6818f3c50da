"""What the connections of one HTTP server share, and the phases that each of them goes through."""

from __future__ import annotations

import contextvars
import enum
import fcntl
import struct
import termios
from asyncio import Event, Transport
from collections import Counter
from typing import Final, cast

from uvicorn._types import ASGIVersions
from uvicorn.protocols.http.httptools_impl import STATUS_LINE
from uvicorn.server import ServerState

from runtime.logs import get_logger
from runtime.problem import Problem
from runtime.settings import HttpSettings
from runtime.telemetry import RequestIds

SWEEP_SECONDS: Final = 0.1
"""How often a server looks for connections that are overdue; so late may a time limit be."""
PIPELINE_MAX: Final = 16
"""How many requests may wait behind the one at work on a connection."""
REQUEST_LINE_REST: Final = 64
"""Room for the request line's verb and version, besides its target."""
CHUNKED_FACTOR: Final = 8
"""How many bytes of a connection one byte of a chunked body may take: six in the smallest chunks, the rest is spare."""
_log = get_logger("runtime.http")

ASGI: Final[ASGIVersions] = {"version": "3.0", "spec_version": "2.3"}


class Phase(enum.Enum):
    """What a connection is doing, and so which limit applies."""

    FRESH = enum.auto()
    IDLE = enum.auto()
    HEADER = enum.auto()
    BODY = enum.auto()
    BUSY = enum.auto()
    LINGER = enum.auto()
    GONE = enum.auto()


class HttpState(ServerState):
    """What all connections of one server share."""

    def __init__(self, settings: HttpSettings) -> None:
        super().__init__()
        self.settings = settings
        self.is_draining = False
        self.listener_is_closed = False
        self.stopping = Event()
        self.refused: Counter[str] = Counter()
        self.date_line = b""
        self.now = 0.0
        self.context = contextvars.copy_context()
        self._ids = RequestIds()

    def note_refusal(self, problem: Problem, reason: str, *, is_answered: bool) -> str:
        """Count a request that no application will see, leave a line, and return the id that both bear.

        As each of them costs the client its connection, so do the lines; the id is always ours, since the headers that
        may hold the client's are often what was refused.
        """
        self.refused[reason] += 1
        identity = self._ids.make()
        write = _log.info if problem.status < 500 else _log.warning
        fields = {"status": problem.status, "code": problem.code, "reason": reason, "is_answered": is_answered}
        write("Request refused", request_id=identity, **fields)
        return identity

    def last_answer(self, problem: Problem, identity: str) -> bytes:
        """Return a whole answer with a problem, the last one of its connection."""
        body = problem.body(identity)
        head = [STATUS_LINE[problem.status], self.date_line]
        for name, value in (*problem.raw_headers(body), (b"x-request-id", identity.encode())):
            head += (name, b": ", value, b"\r\n")
        return b"".join([*head, b"connection: close\r\n\r\n", body])

    def lets_go_of(self, quiet_since: float, now: float) -> bool:
        """Say whether a drain may end a connection that has been silent for so long."""
        # `quiet_since` was read off `now` as the last sweep had left it.
        return self.listener_is_closed and now - quiet_since >= self.settings.drain_lag_seconds + SWEEP_SECONDS


class RefusedError(Exception):
    """Stop the parser: the request was refused and the connection will close."""


def unread_bytes(transport: Transport) -> int:
    """Ask the kernel how much it holds that the loop has not read yet; 0 for a connection that is gone."""
    sock = transport.get_extra_info("socket")
    try:
        answer = fcntl.ioctl(sock.fileno(), termios.FIONREAD, b"\0\0\0\0")
    except OSError:
        return 0
    return cast("int", struct.unpack("i", answer)[0])
