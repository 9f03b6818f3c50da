"""Write log lines from a thread of its own, so that a full disk or a stalled pipe never stops serving."""

import os
import queue
import select
import threading
import time
from dataclasses import dataclass
from typing import Final

_GATHER_SECONDS: Final = 0.005
_RETRY_SECONDS: Final = 0.05
_POLL_SECONDS: Final = 0.002
_LINE_END: Final = ord("\n")


@dataclass(frozen=True)
class LogSinkStatistics:
    """Count a sink's lines by their ends: ``dropped`` ones found the queue full or could not be written."""

    written: int
    dropped: int
    queued_bytes: int


class LogSink:
    """Write whole lines to a file descriptor, in the order they were given.

    ``write`` never blocks and never raises, from any thread and from a finalizer or signal handler that interrupts
    another ``write``: a line that finds ``queue_bytes`` waiting is dropped and counted, and so is one that the system
    will not take (a full disk). When lines get through again, one line says how many were lost. Lines wait at most a
    few milliseconds; a kill -9 may lose those.

    Go's loggers write from the calling goroutine, which a stalled pipe blocks: there one of many, here the only loop.
    """

    def __init__(self, file_descriptor: int, *, queue_bytes: int = 8 * 1024 * 1024) -> None:
        if queue_bytes < 1:
            raise ValueError("queue_bytes must be at least 1")
        self._fd = file_descriptor
        self._queue_bytes = queue_bytes
        # The collector may run a finalizer that logs at any instruction, so nothing here may wait for its own thread:
        # SimpleQueue.put is reentrant, an Event is not.
        self._lock = threading.RLock()
        self._pieces: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        # Under the lock: what was taken and refused. The sink's thread alone: what became of it.
        self._taken_bytes = self._refused = 0
        self._settled_bytes = self._written = self._lost = self._told = 0
        self._is_torn = False
        self._is_closed = False
        self._thread = threading.Thread(target=self._run, name="log-sink", daemon=True)
        self._thread.start()

    def write(self, line: bytes) -> None:
        """Queue one line or several, each with its line feed."""
        size = len(line)
        with self._lock:
            if self._is_closed or self._taken_bytes - self._settled_bytes + size > self._queue_bytes:
                self._refused += line.count(b"\n")
                return
            self._taken_bytes += size
            self._pieces.put(line)

    def flush(self, timeout_seconds: float = 1.0) -> bool:
        """Wait until every line queued before is written or dropped; False when the time ran out."""
        until = time.monotonic() + timeout_seconds
        taken_bytes = self._taken_bytes
        while self._settled_bytes < taken_bytes:
            if time.monotonic() >= until:
                return False
            time.sleep(_POLL_SECONDS)
        return True

    def close(self, timeout_seconds: float = 1.0) -> None:
        """Flush within the time, then take no more lines; idempotent."""
        self.flush(timeout_seconds)
        with self._lock:
            self._is_closed = True
        self._pieces.put(b"")  # wakes the thread
        self._thread.join(timeout_seconds)

    def statistics(self) -> LogSinkStatistics:
        """Return the counts so far."""
        queued_bytes = self._taken_bytes - self._settled_bytes
        return LogSinkStatistics(self._written, self._refused + self._lost, queued_bytes)

    def _run(self) -> None:
        is_last = False
        while not is_last:
            pieces = [self._pieces.get()]
            if not self._is_closed:
                time.sleep(_GATHER_SECONDS)  # one system call for many lines under load
            is_last = self._is_closed  # asked before the queue is emptied: nothing follows then
            while not self._pieces.empty():
                pieces.append(self._pieces.get())
            if lines := b"".join(pieces):
                self._write_out(lines)

    def _write_out(self, lines: bytes) -> None:
        prefix = b"\n" if self._is_torn else b""  # half a line on the file is ended before the next one
        dropped = self._refused + self._lost
        if dropped > self._told:
            prefix += b'{"level":"warning","event":"Log lines were dropped","lines":%d}\n' % (dropped - self._told)
        data = prefix + lines
        done = self._write_bytes(data)
        if done:
            self._is_torn = data[done - 1] != _LINE_END
        if done >= len(prefix):
            self._told = dropped
        written = data.count(b"\n", len(prefix), max(done, len(prefix)))
        self._written += written
        self._lost += lines.count(b"\n") - written
        self._settled_bytes += len(lines)

    def _write_bytes(self, data: bytes) -> int:
        """Write what the system takes, waiting for a full pipe until the close, and return how many bytes that was."""
        rest = memoryview(data)
        while rest:
            try:
                rest = rest[os.write(self._fd, rest[:65_536]) :]
            except BlockingIOError:
                select.select([], [self._fd], [], _RETRY_SECONDS)
            except OSError:
                break
            if self._is_closed and rest and not self._can_write():
                break
        return len(data) - len(rest)

    def _can_write(self) -> bool:
        return bool(select.select([], [self._fd], [], 0)[1])
