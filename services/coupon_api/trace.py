"""Time what a request does: the twin of the original's `pkg/trace`.

In Go the tracer is a slice under a mutex, one a process, and `defer tracer.Start("GetCoupon")()` records a span. Here
`start` gives the same plain function, to be called in a `finally`. Two things differ: the slice of the original grows
for ever, while here the newest spans push out the oldest; and a request can gather its own spans besides (`gather`),
which come back to the caller as the `Server-Timing` header and stand in the request's log line.
"""

import re
from collections import deque
from collections.abc import Callable, Iterable
from contextvars import ContextVar
from dataclasses import dataclass
from functools import lru_cache
from threading import Lock
from time import perf_counter
from typing import Final, NamedTuple

REQUEST_SPANS: Final = 32
"""How many spans one request gathers at most; further ones are in the tracer alone."""

_NOT_TOKEN: Final = re.compile(r"[^0-9A-Za-z!#$%&'*+.^_`|~-]")
_gathered: ContextVar[list["Span"] | None] = ContextVar("request_spans", default=None)


class Span(NamedTuple):
    """How long one call of a method took, in seconds."""

    method: str
    duration: float


@dataclass(frozen=True, slots=True)
class TracerStatistics:
    """How many spans were finished since the start, and how many of them are still kept."""

    finished: int
    kept: int
    capacity: int


class Tracer:
    """Record spans, one tracer a process; safe under tasks and threads, and bounded.

    Args:
        capacity: How many finished spans are kept, the newest ones.

    Raises:
        ValueError: The capacity is below 1.
    """

    def __init__(self, capacity: int) -> None:
        if capacity < 1:
            raise ValueError("capacity must be 1 or more")
        self._kept: deque[Span] = deque(maxlen=capacity)
        self._capacity = capacity
        self._finished = 0
        self._lock = Lock()

    def start(self, method: str) -> Callable[[], None]:
        """Start a span and return the function that finishes it, from whichever task or thread; a second call is void.

        A span that is never finished is never seen. One that ends by an exception or a cancellation counts like any
        other, as with Go's `defer`, if the function is called in a `finally`.
        """
        gathered = _gathered.get()
        begun: float | None = perf_counter()

        def finish() -> None:
            nonlocal begun
            now = perf_counter()
            with self._lock:
                if begun is None:
                    return
                span = Span(method, now - begun)
                begun = None
                self._kept.append(span)
                self._finished += 1
                if gathered is not None and len(gathered) < REQUEST_SPANS:
                    gathered.append(span)

        return finish

    def spans(self) -> list[Span]:
        """Return a copy of what is kept, oldest first; later spans do not appear in it."""
        with self._lock:
            return list(self._kept)

    def statistics(self) -> TracerStatistics:
        """Return the counts at this moment."""
        with self._lock:
            return TracerStatistics(self._finished, len(self._kept), self._capacity)


def gather() -> list[Span]:
    """Begin a list of the current task's own spans, in which those of the tasks and threads it starts appear too.

    The list follows the context: whoever runs in a copy of it adds to the same list, a sibling request never does.
    """
    spans: list[Span] = []
    _gathered.set(spans)
    return spans


def server_timing(spans: Iterable[Span]) -> str:
    """Write spans as the value of a `Server-Timing` header, in milliseconds (W3C Server Timing, section 2)."""
    return ", ".join([f"{_token(method)};dur={duration * 1_000:.3f}" for method, duration in spans])


@lru_cache(maxsize=256)
def _token(method: str) -> str:
    return _NOT_TOKEN.sub("_", method) or "_"
