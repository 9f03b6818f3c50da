"""Log lines: their shape, what is masked and escaped, and that nothing about them can stop the program."""

import json
import logging
import os
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import IO, Any, Literal

import pytest

from runtime import log_sink
from runtime.log_sink import LogSink, LogSinkStatistics
from runtime.logs import close_logs, configure_logs, flush_logs, get_logger, log_statistics, write_line
from runtime.settings import ProcessSettings
from runtime.telemetry import TraceContext, bind

Lines = Callable[[], list[dict[str, Any]]]  # Any: a log line's fields
CODE = "ABCD0123EFGH4567"


@pytest.fixture
def log(tmp_path: Path) -> Iterator[IO[str]]:
    """A file for the log, open for both."""
    with (tmp_path / "log").open("w+", encoding="utf-8", newline="") as file:
        yield file
    logging.captureWarnings(capture=False)


def read_text(log: IO[str]) -> str:
    """Return what was written to the log so far."""
    flush_logs(5)
    log.seek(0)
    return log.read()


@pytest.fixture
def lines(log: IO[str]) -> Iterator[Lines]:
    """Logs configured as JSON into a file; gives a function that returns the lines so far."""
    configure_logs(ProcessSettings(log_format="json", instance="i-1"), file_descriptor=log.fileno())
    yield lambda: [json.loads(line) for line in read_text(log).splitlines()]
    close_logs()


def test_every_line_bears_service_instance_request_and_trace(lines: Lines) -> None:
    """Ours, the standard library's and the access log's lines all have the same head."""
    trace = TraceContext.new()
    with bind(trace, "r-1"):
        get_logger("ours").info("Hello", number=1)
        logging.getLogger("uvicorn").warning("std %s", "x")
        write_line({"event": "request", "status": 200})
    get_logger("ours").info("Outside")
    *inside, outside = lines()
    assert [line["event"] for line in inside] == ["Hello", "std x", "request"]
    for line in inside:
        head = (line["service"], line["instance"], line["request_id"], line["trace_id"])
        assert head == ("process", "i-1", "r-1", trace.trace_id)
    assert inside[0]["number"] == 1
    assert [line["level"] for line in inside] == ["info", "warning", "info"]
    assert (outside["request_id"], outside["trace_id"]) == (None, None)


def test_secrets_are_masked_by_name_and_by_shape(lines: Lines) -> None:
    """Passwords, tokens, coupon codes and passwords in URLs never reach the log, whichever way they come."""
    token = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJtLTEifQ.c2lnbmF0dXJl"  # noqa: S105 - a test's own
    log = get_logger("ours")
    log.info(
        f"coupon {CODE}",
        code=CODE,
        path=f"/v1/coupons/{CODE}",
        nested={"password": "hush", "list": [CODE, {"token": "hush"}]},
    )
    log.info("x", password="hush", Authorization="hush", db_password="hush", api_key="hush")  # noqa: S106 - a test's own
    log.info("x", url="postgres://user:hush@host/db", header=f"Bearer {token}")
    logging.getLogger("std").warning("%s %s", CODE, "postgres://user:hush@host/db")
    write_line({"event": "request", "path": f"/v1/coupons/{CODE}"})
    try:
        int(CODE)
    except ValueError:
        log.exception("Failed")
    text = json.dumps(lines(), ensure_ascii=False)
    assert CODE not in text
    assert "hush" not in text
    assert token not in text
    assert text.count("ABCD…") == 7


def test_codes_are_masked_on_a_terminal_too(log: IO[str]) -> None:
    """The letters of colours and escapes before a code do not make a longer word of it."""
    configure_logs(ProcessSettings(log_format="console"), file_descriptor=log.fileno())
    try:
        for text in (CODE, f"codes:\n{CODE}", f"codes:\x1f{CODE}", f"\u2028{CODE}"):
            get_logger("ours").info(text, value=text, number=CODE)
            write_line({"event": text, "exception": text})
        shown = read_text(log)
    finally:
        close_logs()
    assert CODE not in shown
    assert shown.count("ABCD…") == 4 * 5


@pytest.mark.parametrize(
    "harmless", ["019abc12-1234-7abc-8def-0123456789ab", "ABCD0123EFGH45678", "abcd0123efgh4567", "m-1"]
)
def test_what_only_resembles_a_code_is_left_alone(lines: Lines, harmless: str) -> None:
    """Ids, longer and lower-case words stay readable."""
    get_logger("ours").info("x", value=harmless)
    assert lines()[0]["value"] == harmless


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_nothing_from_input_gets_through_unescaped(
    log: IO[str], log_format: Literal["json", "console"], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Line feeds, terminal sequences, direction marks and lone surrogates make neither a new line nor a control."""
    # Ours alone is to take the line: pytest would send it on in its report, and a lone surrogate cannot be encoded.
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    configure_logs(ProcessSettings(log_format=log_format), file_descriptor=log.fileno())
    try:
        evil = "a\nb\r\x1b[31mred\x7f\x9b31m\u2028\u202e\ud800\x00"
        get_logger("ours").info(evil, value=evil, deep={"k": evil})
        logging.getLogger("std").error("%s", evil)
        write_line({"event": "request", "path": evil})
        text = read_text(log)
    finally:
        close_logs()
    assert len(text.splitlines()) == 3
    for line in text.splitlines():
        assert "\x1b[31mred" not in line
        assert "\x1b" not in line or log_format == "console"  # there the renderer's own colours
        assert not {"\r", "\x00", "\x7f", "\x9b", "\u2028", "\u202e"} & set(line)


class Hostile:
    """An object whose text raises."""

    def __str__(self) -> str:
        raise RuntimeError("no text")

    __repr__ = __str__


def test_values_that_cannot_be_rendered_make_a_line_all_the_same(lines: Lines, monkeypatch: pytest.MonkeyPatch) -> None:
    """Huge numbers, unknown and hostile objects and loops of references never raise into the program."""
    root = logging.getLogger()  # the test runner's own handlers on it do raise
    monkeypatch.setattr(root, "handlers", [h for h in root.handlers if type(h).__module__ == "runtime.logs"])
    loop: dict[str, object] = {}
    loop["self"] = loop
    log = get_logger("ours")
    log.info("huge", value=2**70)
    log.info("unknown", value=object())
    log.info("loop", value=loop)
    log.info("hostile", value=Hostile())
    log.info("bytes", value=b"\xff")
    logging.getLogger("std").error("%d", "no number")
    logging.getLogger("std").error("%s", Hostile())
    assert [line["event"] for line in lines()] == ["huge", "unknown", "loop", "hostile", "bytes", "%d", "%s"]


def test_a_traceback_becomes_part_of_its_line(lines: Lines) -> None:
    """An exception logged through either door is one line with the traceback inside."""
    try:
        int("boom")
    except ValueError as error:
        get_logger("ours").exception("First")
        get_logger("ours").error("Second", exc_info=error)
        logging.getLogger("std").exception("Third")
    first, second, third = lines()
    assert all("ValueError: invalid literal" in line["exception"] for line in (first, second, third))
    assert {line["level"] for line in (first, second, third)} == {"error"}


def test_levels_below_the_setting_are_left_out(lines: Lines) -> None:
    """At INFO neither door lets debug lines through."""
    get_logger("ours").debug("no")
    logging.getLogger("std").debug("no")
    get_logger("ours").info("yes")
    assert [line["event"] for line in lines()] == ["yes"]


def test_http_client_is_heard_from_warnings_on(lines: Lines) -> None:
    """Its line for each request that went well is left out."""
    logging.getLogger("httpx").info("HTTP Request: POST http://127.0.0.1/")
    logging.getLogger("httpx").warning("odd")
    assert [line["event"] for line in lines()] == ["odd"]


def test_a_stalled_reader_never_blocks_a_writer_and_the_loss_is_told() -> None:
    """With the pipe full and the queue full lines are dropped and counted; when it drains, one line says how many."""
    read_end, write_end = os.pipe()
    sink = LogSink(write_end, queue_bytes=200_000)
    try:
        line = b"x" * 999 + b"\n"
        for _ in range(1_000):
            sink.write(line)
        dropped = sink.statistics().dropped
        assert 500 < dropped < 1_000
        seen = bytearray()
        reader = threading.Thread(target=_drain, args=(read_end, seen))
        reader.start()
        assert sink.flush(5)
        sink.write(b"last\n")
        assert sink.flush(5)
        statistics = sink.statistics()
    finally:
        sink.close()
        os.close(write_end)
    reader.join()
    os.close(read_end)
    assert statistics.queued_bytes == 0
    assert statistics.written + statistics.dropped == 1_001
    assert b'"event":"Log lines were dropped","lines":%d}\n' % dropped in seen
    assert seen.endswith(b"last\n")
    assert seen.count(b"x" * 999 + b"\n") == 1_000 - dropped


def _drain(read_end: int, seen: bytearray) -> None:
    while data := os.read(read_end, 65_536):
        seen.extend(data)


def test_a_full_disk_loses_lines_and_nothing_else() -> None:
    """Writing to a device that is always full drops every line, counts it, and raises nowhere."""
    full = os.open("/dev/full", os.O_WRONLY)
    sink = LogSink(full)
    try:
        for _ in range(100):
            sink.write(b"line\n")
        assert sink.flush(5)
        assert sink.statistics().dropped == 100
        assert sink.statistics().queued_bytes == 0
    finally:
        sink.close()
        os.close(full)


class _Interrupter:
    """Write to the sink between any two lines of its own code, as a finalizer does that logs; a hundred times."""

    def __init__(self) -> None:
        self.sink: LogSink | None = None
        self.writes = 0
        self._is_inside = False

    def __call__(self, frame: FrameType, event: str, _: object) -> "_Interrupter | None":
        """Trace one thread, for ``sys.settrace``."""
        if frame.f_code.co_filename != log_sink.__file__ or self._is_inside:
            return None
        if event == "line" and self.sink is not None and self.writes < 100:
            self.writes += 1
            self._is_inside = True
            self.sink.write(b"late\n")
            self._is_inside = False
        return self


def test_a_finalizer_that_logs_in_the_middle_of_the_sinks_work_blocks_nobody() -> None:
    """The collector runs one wherever it likes: in a thread that writes, and in the sink's own; no line is lost."""
    null = os.open("/dev/null", os.O_WRONLY)
    in_writer, in_sink = _Interrupter(), _Interrupter()
    threading.settrace(in_sink)
    try:
        sink = LogSink(null)
    finally:
        threading.settrace(None)
    in_writer.sink = in_sink.sink = sink

    def write() -> None:
        sys.settrace(in_writer)
        for _ in range(50):
            sink.write(b"line\n")

    writer = threading.Thread(target=write, daemon=True)
    writer.start()
    writer.join(4)
    assert not writer.is_alive()
    assert sink.flush(4)
    written = 50 + in_writer.writes + in_sink.writes
    assert (in_writer.writes, sink.statistics()) == (100, LogSinkStatistics(written, 0, 0))
    assert in_sink.writes > 5
    sink.close()
    os.close(null)


def test_joined_lines_count_each(log: IO[str]) -> None:
    """Lines that are given as one piece are counted one by one, written or dropped."""
    sink = LogSink(log.fileno(), queue_bytes=1_000)
    sink.write(b"line\n" * 64)
    assert sink.flush(5)
    sink.write(b"line\n" * 640)
    assert (sink.statistics().written, sink.statistics().dropped) == (64, 640)
    sink.write(b"line\n")
    sink.close()
    log.seek(0)
    lines = log.readlines()
    assert len(lines) == 64 + 1 + 1
    assert '"event":"Log lines were dropped","lines":640}' in lines[64]


def test_lines_after_the_close_are_dropped_without_an_error(lines: Lines) -> None:
    """A late thread may still log; nothing happens."""
    get_logger("ours").info("before")
    assert [line["event"] for line in lines()] == ["before"]
    close_logs()
    get_logger("ours").info("after")
    write_line({"event": "after"})
    assert log_statistics() is None


def test_many_threads_write_whole_lines(lines: Lines) -> None:
    """Eight threads with a hundred lines each give eight hundred whole lines, each thread's in its order."""

    def write(number: int) -> None:
        for count in range(100):
            get_logger("ours").info("x", thread=number, count=count)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    all_lines = lines()
    assert len(all_lines) == 800
    for number in range(8):
        assert [line["count"] for line in all_lines if line["thread"] == number] == list(range(100))
