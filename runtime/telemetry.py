"""Carry a request's identity through tasks, HTTP and Kafka: its W3C trace and its request id.

Go hands both down in a ``context.Context``; here they live in context variables, which a task inherits from the task
that started it, so that a log line far below needs no argument. Nothing is exported to a tracing backend: the ids join
log lines of several processes.
"""

import itertools
import os
import random
import re
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final, NamedTuple

_TRACEPARENT: Final = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.ASCII)
_NO_TRACE: Final = "0" * 32
_NO_SPAN: Final = "0" * 16
_LONGEST_HEADER: Final = 512


class RequestIds:
    """Make ids for requests that bring none: a random part for whoever makes them, and a number."""

    def __init__(self) -> None:
        self._prefix = os.urandom(8).hex()
        self._numbers = itertools.count(1)

    def make(self) -> str:
        """Return the next one."""
        return f"{self._prefix}-{next(self._numbers):x}"


class TraceContext(NamedTuple):
    """Identify one step of one trace, as in https://www.w3.org/TR/trace-context/."""

    trace_id: str
    span_id: str
    is_sampled: bool = True

    @classmethod
    def new(cls) -> "TraceContext":
        """Start a trace with random ids."""
        # Unique is all they must be; and reading the system's generator would give up the interpreter lock each time.
        ids = f"{random.getrandbits(192):048x}"
        return cls(ids[:32], ids[32:])

    @classmethod
    def parse(cls, traceparent: str | bytes | None) -> "TraceContext | None":
        """Read a ``traceparent`` header; None for an absent or malformed one, which the standard says to ignore.

        A version above 00 is read as 00 with more behind, as the standard asks; ff and all-zero ids are refused.
        """
        if not traceparent or len(traceparent) > _LONGEST_HEADER:
            return None
        text = traceparent.decode("latin-1") if isinstance(traceparent, bytes) else traceparent
        match = _TRACEPARENT.fullmatch(text)
        if match is None:
            return None
        version, trace_id, span_id, flags, more = match.groups()
        if version == "ff" or (version == "00" and more) or trace_id == _NO_TRACE or span_id == _NO_SPAN:
            return None
        return cls(trace_id, span_id, int(flags, 16) & 1 == 1)

    def child(self) -> "TraceContext":
        """Return the next step of the same trace."""
        return TraceContext(self.trace_id, f"{random.getrandbits(64):016x}", self.is_sampled)

    def format(self) -> str:
        """Return the ``traceparent`` header to pass on."""
        return f"00-{self.trace_id}-{self.span_id}-{'01' if self.is_sampled else '00'}"


current_trace: Final[ContextVar[TraceContext | None]] = ContextVar("current_trace", default=None)
request_id: Final[ContextVar[str | None]] = ContextVar("request_id", default=None)


def continue_trace(traceparent: str | bytes | None) -> TraceContext:
    """Return the next step of the trace a header names, or the first step of a new one."""
    parent = TraceContext.parse(traceparent)
    return parent.child() if parent is not None else TraceContext.new()


@contextmanager
def bind(trace: TraceContext | None = None, request: str | None = None) -> Iterator[None]:
    """Put a trace and a request id in force for a block; whatever is None stays as it was."""
    trace_token = current_trace.set(trace) if trace is not None else None
    request_token = request_id.set(request) if request is not None else None
    try:
        yield
    finally:
        if request_token is not None:
            request_id.reset(request_token)
        if trace_token is not None:
            current_trace.reset(trace_token)
