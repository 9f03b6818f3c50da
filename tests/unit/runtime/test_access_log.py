"""Access lines: JSON in the shape of every other line, joined, and free of what could be read as a secret."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path
from typing import Literal

import pytest

from runtime import logs
from runtime.access_log import AccessEntry, AccessLog
from runtime.settings import ProcessSettings
from runtime.telemetry import TraceContext

TRACE = TraceContext("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331")


def _entry(status: int = 200, **more: object) -> AccessEntry:
    return AccessEntry("id-1", TRACE, "GET", "/v1/x/{id}", status, 0.0123456, 10, "m-1", more or None)


async def test_line_has_the_shape_of_the_general_log(tmp_path: Path) -> None:
    """An access line and a general one have the same leading fields in the same order; its own facts follow."""
    file = os.open(tmp_path / "log", os.O_CREAT | os.O_WRONLY)
    try:
        logs.configure_logs(ProcessSettings(log_format="json", instance="i-1"), file_descriptor=file)
        access = AccessLog()
        access.write(_entry(), is_last=True)
        access.write(_entry(503, code="ABCDEFGHJKMNPQRS", spans={"a": 1}), is_last=True)
        await asyncio.sleep(0)
        logs.get_logger("x").info("other")
    finally:
        await asyncio.to_thread(logs.close_logs)
        os.close(file)
    first, second, other = map(json.loads, (tmp_path / "log").read_text().splitlines())
    assert list(first)[:7] == list(other)[:7]
    assert {name: first[name] for name in list(first)[1:]} == {
        "level": "info", "service": "process", "instance": "i-1", "request_id": "id-1", "trace_id": TRACE.trace_id,
        "event": "request", "method": "GET", "route": "/v1/x/{id}", "status": 200, "duration_ms": 12.346, "bytes": 10,
        "subject": "m-1",
    }  # fmt: skip
    assert (second["level"], second["spans"]) == ("warning", {"a": 1})
    assert second["code"] == "ABCD…"


@pytest.mark.parametrize("log_format", ["json", "console"])
@pytest.mark.parametrize(
    ("log_level", "statuses"), [("DEBUG", [200, 503]), ("INFO", [200, 503]), ("WARNING", [503]), ("ERROR", [])]
)
async def test_level_holds_for_access_lines(
    tmp_path: Path,
    log_format: Literal["json", "console"],
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"],
    statuses: list[int],
) -> None:
    """Below the level of the setting there is no line; what a server's fault answered is a warning."""
    file = os.open(tmp_path / "log", os.O_CREAT | os.O_WRONLY)
    try:
        settings = ProcessSettings(log_format=log_format, log_level=log_level)
        logs.configure_logs(settings, file_descriptor=file)
        access = AccessLog()
        access.write(_entry(200), is_last=True)
        access.write(_entry(503), is_last=True)
        await asyncio.sleep(0)
    finally:
        await asyncio.to_thread(logs.close_logs)
        os.close(file)
    lines = (tmp_path / "log").read_text().splitlines()
    assert len(lines) == len(statuses)
    assert all(str(status) in line for status, line in zip(statuses, lines, strict=True))


async def test_lines_are_joined_while_others_are_at_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines of one turn of the loop, or of a busy moment, reach the sink as one piece; none waits for ever."""
    pieces: list[bytes] = []

    class Sink:
        """Keep what is written."""

        write = staticmethod(pieces.append)

    monkeypatch.setattr(logs, "json_output", lambda: (Sink, "s", "i"))
    access = AccessLog()
    for _ in range(3):
        access.write(_entry(), is_last=True)
    await asyncio.sleep(0)
    assert [piece.count(b"\n") for piece in pieces] == [3]
    for _ in range(70):
        access.write(_entry(), is_last=False)
    assert [piece.count(b"\n") for piece in pieces] == [3, 64]
    access.flush()
    assert [piece.count(b"\n") for piece in pieces] == [3, 64, 6]


async def test_other_log_gets_the_fields() -> None:
    """With a taker of fields of one's own nothing is rendered."""
    lines: list[object] = []
    AccessLog(lines.append).write(_entry(404, more=1), is_last=True)
    assert lines == [
        {
            "level": "info", "event": "request", "method": "GET", "route": "/v1/x/{id}", "status": 404,
            "duration_ms": 12.346, "bytes": 10, "subject": "m-1", "more": 1,
        }
    ]  # fmt: skip
