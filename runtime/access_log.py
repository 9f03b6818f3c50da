"""One line a request, at a tenth of what the general log costs: its facts are few and known to be safe.

The shape is that of every other JSON line. Lines are joined and handed to the sink together, in
this turn of the loop when nothing else is at work and after at most 5 ms otherwise.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, MutableMapping
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

import orjson

from runtime import logs
from runtime.telemetry import TraceContext

FLUSH_SECONDS: Final = 0.005
LINES_MAX: Final = 64

WriteLine = Callable[[MutableMapping[str, Any]], None]  # Any: a log field may be anything


class AccessEntry(NamedTuple):
    """The facts of one answered request.

    Everything but `more` is free of the client's input: `request_id` and `subject` have passed a pattern, `method` and
    `route` are names of ours.
    """

    request_id: str
    trace: TraceContext
    method: str
    route: str
    status: int
    seconds: float
    size: int
    subject: str | None
    more: MutableMapping[str, Any] | None  # Any: a log field may be anything


class AccessLog:
    """Write access lines to where the process's log goes; belongs to one event loop.

    Args:
        write_line: takes each line's fields instead, for tests and other logs.
    """

    def __init__(self, write_line: WriteLine | None = None) -> None:
        self._write_line = write_line
        self._lines: list[bytes] = []
        self._timer: asyncio.Handle | None = None
        self._second = -1
        self._second_text = ""
        self._heads: dict[tuple[str, str], str] = {}

    def write(self, entry: AccessEntry, *, is_last: bool) -> None:
        """Write one line, if the log's level lets it: info, or a warning for a status from 500 on.

        `is_last` says that nothing else is at work, so that nothing would be joined to it soon.
        """
        if self._write_line is not None:
            self._write_line(_fields(entry))
            return
        if (logging.INFO if entry.status < 500 else logging.WARNING) < logs.least_level():
            return
        output = logs.json_output()
        if output is None:
            logs.write_line(_fields(entry))
            return
        _, service, instance = output
        self._lines.append(self._render(entry, service, instance))
        if len(self._lines) >= LINES_MAX:
            self.flush()
        elif self._timer is None:
            loop = asyncio.get_running_loop()
            # Even then not at once: requests that came in one turn of the loop are answered in one turn, too.
            self._timer = loop.call_soon(self.flush) if is_last else loop.call_later(FLUSH_SECONDS, self.flush)

    def flush(self) -> None:
        """Hand what was joined to the sink."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        output = logs.json_output()
        if output is not None and self._lines:
            output[0].write(b"".join(self._lines))
        self._lines.clear()

    def _render(self, entry: AccessEntry, service: str, instance: str) -> bytes:
        status = entry.status
        subject = f',"subject":"{entry.subject}"' if entry.subject is not None else ""
        names = self._heads.get((service, instance))
        if names is None:
            names = orjson.dumps({"service": service, "instance": instance})[1:-1].decode()
            self._heads[service, instance] = names
        line = (
            f'{{"timestamp":"{self._now()}","level":"{"info" if status < 500 else "warning"}",{names},'
            f'"request_id":"{entry.request_id}","trace_id":"{entry.trace.trace_id}","event":"request",'
            f'"method":"{entry.method}","route":"{entry.route}","status":{status},'
            f'"duration_ms":{entry.seconds * 1000:.3f},"bytes":{entry.size}{subject}'
        )
        if not entry.more:
            return f"{line}}}\n".encode()
        more = orjson.dumps(entry.more, default=str, option=orjson.OPT_NON_STR_KEYS)
        return line.encode() + b"," + logs.mask_line(more[1:] + b"\n")

    def _now(self) -> str:
        now = time.time()
        second = int(now)
        if second != self._second:
            self._second = second
            self._second_text = datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S.")
        return f"{self._second_text}{int((now - second) * 1000):03d}+00:00"


def _fields(entry: AccessEntry) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "level": "info" if entry.status < 500 else "warning",
        "event": "request",
        "method": entry.method,
        "route": entry.route,
        "status": entry.status,
        "duration_ms": round(entry.seconds * 1000, 3),
        "bytes": entry.size,
    }
    if entry.subject is not None:
        fields["subject"] = entry.subject
    return {**fields, **(entry.more or {})}
