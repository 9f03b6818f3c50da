"""Structured logs: one line an event, JSON off a terminal and pretty on one, to the standard error stream.

Every line bears service, instance, request id and trace id; whatever the standard library's ``logging`` is given goes
the same way. Secrets and coupon codes are masked, and nothing from input gets through unescaped. A line costs the loop
no system call and can never stop it (``LogSink``). In Go this is zap or slog with a handler that reads the context.
"""

import logging
import os
import re
import traceback
from collections.abc import MutableMapping
from datetime import UTC, datetime
from typing import Any, Final, Protocol

import orjson
import structlog

from runtime.log_sink import LogSink, LogSinkStatistics
from runtime.settings import ProcessSettings
from runtime.telemetry import current_trace, request_id

Fields = MutableMapping[str, Any]  # Any: a log field may be anything; the renderer turns the unknown into text

_LEVELS: Final = {"DEBUG": logging.DEBUG, "INFO": logging.INFO, "WARNING": logging.WARNING, "ERROR": logging.ERROR}
_SECRET_KEY: Final = re.compile(r"password|passwd|secret|token|authorization|cookie|api_?key|credential", re.IGNORECASE)
_DEEPEST: Final = 8
_MASK: Final = "**********"
# No letter stands before it but that of an escape (JSON's, Python's, a URL's) or of a colour.
# Sixteen digits up to the end of a JSON number are a number's: masked, they would break the line.
_COUPON: Final = re.compile(
    rb"(?:(?<![0-9A-Za-z])|(?<=%[0-9A-Fa-f]{2})"
    rb"|(?<=\\[abfnrtv])|(?<=\\x[0-9a-f]{2})|(?<=\\u[0-9a-f]{4})|(?<=\x1b\[[0-9]m)|(?<=\x1b\[[0-9]{2}m))"
    rb"(?![0-9]{16}[,}\].e])([0-9A-HJKMNP-TV-Z]{4})[0-9A-HJKMNP-TV-Z]{12}(?![0-9A-Za-z])"
)
_CODE_TABLE: Final = bytes(67 if chr(byte) in "0123456789ABCDEFGHJKMNPQRSTVWXYZ" else 32 for byte in range(256))
_CODE_RUN: Final = b"C" * 16
_TOKEN: Final = re.compile(rb"eyJ[\w-]{4,}\.[\w-]+\.[\w-]*")
_URL_PASSWORD: Final = re.compile(rb"(://[^\s/:@\"]*:)[^\s/@\"]+@")
_INVISIBLE: Final = re.compile(rb"\x7f|\xc2[\x80-\x9f]|\xe2\x80[\x8b-\x8f\xa8-\xae]|\xe2\x81[\xa0-\xaf]|\xef\xbb\xbf")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_CONTROL_BUT_LINES: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


class Logger(Protocol):
    """Say what happened: an event in plain words, and the facts as keyword arguments."""

    def debug(self, event: str, **fields: object) -> None: ...  # noqa: D102 - named by the level
    def info(self, event: str, **fields: object) -> None: ...  # noqa: D102 - named by the level
    def warning(self, event: str, **fields: object) -> None: ...  # noqa: D102 - named by the level
    def error(self, event: str, **fields: object) -> None: ...  # noqa: D102 - named by the level
    def exception(self, event: str, **fields: object) -> None: ...  # noqa: D102 - error with the traceback in force
    def bind(self, **fields: object) -> "Logger": ...  # noqa: D102 - a logger whose lines all bear the fields


class _Output:
    """Render and write lines for one process."""

    def __init__(self, sink: LogSink, settings: ProcessSettings, *, is_json: bool) -> None:
        self.sink = sink
        self.service = settings.service
        self.instance = settings.instance
        self.level = _LEVELS[settings.log_level]
        self.is_json = is_json
        self._console = structlog.dev.ConsoleRenderer(colors=not is_json, repr_native_str=True, sort_keys=False)

    def write(self, fields: Fields) -> None:
        """Add what every line bears, render, mask and queue."""
        trace = current_trace.get()
        line: dict[str, Any] = {  # Any: as in Fields
            "timestamp": _now(),
            "level": fields.pop("level", "info"),
            "service": self.service,
            "instance": self.instance,
            "request_id": request_id.get(),
            "trace_id": trace.trace_id if trace is not None else None,
            "event": fields.pop("event", ""),
        }
        line.update(fields)
        self.sink.write(mask_line(self._render(line)))

    def _render(self, line: dict[str, Any]) -> bytes:  # Any: as in Fields
        if self.is_json:
            return _to_json(line)
        shown = {name: value for name, value in line.items() if value is not None}
        shown["event"] = _CONTROL.sub(_escaped, str(shown["event"]))
        if "exception" in shown:
            shown["exception"] = _CONTROL_BUT_LINES.sub(_escaped, str(shown["exception"]))
        shown.pop("service")
        shown.pop("instance")
        text = str(self._console(None, "", shown))
        return text.encode("utf-8", "backslashreplace") + b"\n"


def configure_logs(settings: ProcessSettings, *, file_descriptor: int = 2) -> LogSink:
    """Send every logger of the process, ours and the standard library's, to one sink; returns it to be closed.

    A second call replaces the first one's sink and closes it.
    """
    close_logs()
    is_json = settings.log_format == "json" or (settings.log_format == "auto" and not os.isatty(file_descriptor))
    sink = LogSink(file_descriptor)
    _state.output = _Output(sink, settings, is_json=is_json)
    level = _state.output.level
    structlog.configure(
        processors=[_finish],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=_NamedLogger,
        cache_logger_on_first_use=False,
    )
    root = logging.getLogger()
    for handler in root.handlers[:]:
        if isinstance(handler, _StandardHandler):
            root.removeHandler(handler)
    root.addHandler(_StandardHandler())
    root.setLevel(level)
    # At INFO it writes a line for each request that we send; our own lines say what came of it.
    logging.getLogger("httpx").setLevel(max(level, logging.WARNING))
    logging.captureWarnings(capture=True)
    return sink


def close_logs() -> None:
    """Write out what is queued, within a second, and stop; later lines are dropped."""
    if _state.output is not None:
        _state.output.sink.close()
        _state.output = None
    root = logging.getLogger()
    for handler in root.handlers[:]:
        if isinstance(handler, _StandardHandler):
            root.removeHandler(handler)


def get_logger(name: str) -> Logger:
    """Return a logger whose lines name the part of the program they come from."""
    logger: Logger = structlog.get_logger(name)
    return logger


def write_line(fields: Fields) -> None:
    """Write one line without structlog's chain, for the access log; ``level`` and ``event`` are among the fields."""
    if _state.output is not None:
        _state.output.write(fields)


def json_output() -> tuple[LogSink, str, str] | None:
    """Return sink, service and instance for whoever renders JSON lines itself; None on a terminal or before a start."""
    output = _state.output
    return (output.sink, output.service, output.instance) if output is not None and output.is_json else None


def least_level() -> int:
    """Return the number of the level below which nothing is written, for whoever writes without structlog's chain."""
    return _state.output.level if _state.output is not None else logging.INFO


def log_statistics() -> LogSinkStatistics | None:
    """Return the counts of the sink in force, or None before ``configure_logs``."""
    return _state.output.sink.statistics() if _state.output is not None else None


def flush_logs(timeout_seconds: float = 1.0) -> None:
    """Wait, bounded, until what was logged is written: for the moment before a hard exit."""
    if _state.output is not None:
        _state.output.sink.flush(timeout_seconds)


class _State:
    """Hold the one output of the process, as the standard library holds its root logger."""

    output: _Output | None = None


_state: Final = _State()


class _NamedLogger:
    """End a chain whose last processor has written the line: only the name is of use."""

    def __init__(self, name: str = "") -> None:
        self.name = name

    def debug(self, *_: object) -> None: ...

    info = warning = error = critical = exception = msg = debug


def _finish(logger: _NamedLogger, method: str, fields: Fields) -> Fields:
    """End structlog's chain: add level and traceback, mask secrets, and write."""
    fields["level"] = "error" if method == "exception" else method
    fields["logger"] = logger.name
    error = fields.pop("exc_info", None)
    if error:
        fields["exception"] = _traceback(error)
    for name, value in fields.items():
        fields[name] = _hide(name, value, _DEEPEST)
    write_line(fields)
    raise structlog.DropEvent


class _StandardHandler(logging.Handler):
    """Give the standard library's records the shape of ours."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record; a record that cannot be formatted is written unformatted."""
        try:
            event = record.getMessage()
        except Exception:  # noqa: BLE001 - the arguments are foreign: their __str__ may raise anything
            event = str(record.msg)
        fields: Fields = {"level": record.levelname.lower(), "event": event, "logger": record.name}
        if record.exc_info:
            fields["exception"] = _traceback(record.exc_info)
        write_line(fields)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _traceback(error: object) -> str:
    if isinstance(error, BaseException):
        return "".join(traceback.format_exception(error))
    if isinstance(error, tuple):
        return "".join(traceback.format_exception(*error))
    return traceback.format_exc()


def _hide(name: str, value: object, depth: int) -> object:
    if _SECRET_KEY.search(name):
        return _MASK if value is not None else None
    if isinstance(value, dict | list | tuple):
        if depth == 0:
            return "…"
        if isinstance(value, dict):
            return {str(key): _hide(str(key), inner, depth - 1) for key, inner in value.items()}
        return [_hide("", inner, depth - 1) for inner in value]
    return value


def _to_json(line: dict[str, Any]) -> bytes:  # Any: as in Fields
    options = orjson.OPT_APPEND_NEWLINE | orjson.OPT_NON_STR_KEYS
    try:
        return orjson.dumps(line, default=_as_text, option=options)
    except (TypeError, ValueError):  # a lone surrogate, an integer beyond 64 bits, a loop of references
        safe = {str(name): _as_text(value) for name, value in line.items()}
        return orjson.dumps(safe, option=options)


def _as_text(value: object) -> str | None:
    if value is None:
        return None
    try:
        text = str(value)
    except Exception as error:  # noqa: BLE001 - a foreign __str__ may raise anything, and a log line must not
        text = f"<{type(value).__name__} whose text raised {type(error).__name__}>"
    return text.encode("utf-8", "backslashreplace").decode()


def _escaped(found: re.Match[str]) -> str:
    return f"\\x{ord(found[0]):02x}"


def mask_line(line: bytes) -> bytes:
    """Mask coupon codes, tokens and passwords, and escape what a reader could not see, in a rendered line."""
    if _CODE_RUN in line.translate(_CODE_TABLE):  # a tenth of what the expression alone costs a line without a code
        line = _COUPON.sub("\\1…".encode(), line)
    if b"eyJ" in line:
        line = _TOKEN.sub(b"**********", line)
    if b"://" in line:
        line = _URL_PASSWORD.sub(rb"\1**********@", line)
    if not line.isascii() or b"\x7f" in line:
        line = _INVISIBLE.sub(_unhide, line)
    return line


def _unhide(found: re.Match[bytes]) -> bytes:
    return b"\\u%04x" % ord(found[0].decode("utf-8"))
