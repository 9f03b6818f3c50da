"""Write log lines from a thread of its own, so that a full disk or a stalled pipe never stops serving."""

import os
import select
import threading
import time
from dataclasses import dataclass
from typing import Final

_GATHER_SECONDS: Final = 0.005
_RETRY_SECONDS: Final = 0.05


@dataclass(frozen=True)
class LogSinkStatistics:
    """Count a sink's lines: ``dropped`` ones found the queue full or could not be written."""

    written: int
    dropped: int
    queued_bytes: int


class LogSink:
    """Write whole lines to a file descriptor, in the order they were given.

    ``write`` never blocks and never raises, from any thread: a line that finds ``queue_bytes`` waiting is dropped and
    counted, and so is one that the system will not take (a full disk). When lines get through again, one line says how
    many were lost. Lines wait at most a few milliseconds; a kill -9 may lose those.

    Go's loggers write from the calling goroutine, which a stalled pipe blocks: there one of many, here the only loop.
    """

    def __init__(self, file_descriptor: int, *, queue_bytes: int = 8 * 1024 * 1024) -> None:
        if queue_bytes < 1:
            raise ValueError("queue_bytes must be at least 1")
        self._fd = file_descriptor
        self._queue_bytes = queue_bytes
        self._lock = threading.Lock()
        self._lines: list[bytes] = []
        self._queued = 0
        self._written = 0
        self._dropped = 0
        self._unreported = 0
        self._is_torn = False
        self._wake = threading.Event()
        self._idle = threading.Event()
        self._idle.set()
        self._is_closed = False
        self._thread = threading.Thread(target=self._run, name="log-sink", daemon=True)
        self._thread.start()

    def write(self, line: bytes) -> None:
        """Queue one line, which must end in a line feed."""
        with self._lock:
            if self._is_closed or self._queued + len(line) > self._queue_bytes:
                self._dropped += 1
                self._unreported += 1
                return
            self._queued += len(line)
            self._lines.append(line)
            if self._idle.is_set():
                self._idle.clear()
        if not self._wake.is_set():
            self._wake.set()

    def flush(self, timeout_seconds: float = 1.0) -> bool:
        """Wait until every line queued before is written or dropped; False when the time ran out."""
        return self._idle.wait(timeout_seconds)

    def close(self, timeout_seconds: float = 1.0) -> None:
        """Flush within the time, then take no more lines; idempotent."""
        self.flush(timeout_seconds)
        with self._lock:
            self._is_closed = True
        self._wake.set()
        self._thread.join(timeout_seconds)

    def statistics(self) -> LogSinkStatistics:
        """Return the counts so far."""
        with self._lock:
            return LogSinkStatistics(self._written, self._dropped, self._queued)

    def _run(self) -> None:
        while True:
            self._wake.wait()
            if not self._is_closed:
                time.sleep(_GATHER_SECONDS)  # one system call for many lines under load
            self._wake.clear()
            with self._lock:
                lines, self._lines = self._lines, []
                unreported, self._unreported = self._unreported, 0
            if lines:
                self._write_out(lines, unreported)
            with self._lock:
                if not self._lines:
                    self._idle.set()
                    if self._is_closed:
                        return

    def _write_out(self, lines: list[bytes], unreported: int) -> None:
        prefix = b"\n" if self._is_torn else b""
        if unreported:
            prefix += b'{"level":"warning","event":"Log lines were dropped","lines":%d}\n' % unreported
        data = memoryview(prefix + b"".join(lines))
        done = 0
        while done < len(data):
            try:
                done += os.write(self._fd, data[done : done + 65_536])
            except BlockingIOError:
                select.select([], [self._fd], [], _RETRY_SECONDS)
            except OSError:
                break
            if self._is_closed and done < len(data) and not self._can_write():
                break
        self._settle(lines, unreported, done - len(prefix))

    def _can_write(self) -> bool:
        return bool(select.select([], [self._fd], [], 0)[1])

    def _settle(self, lines: list[bytes], unreported: int, done: int) -> None:
        """Count which lines got through; half a line on the file is ended before the next one."""
        written = 0
        for line in lines:
            if done < len(line):
                break
            done -= len(line)
            written += 1
        lost = len(lines) - written
        self._is_torn = lost > 0 and done != 0
        with self._lock:
            self._written += written
            self._dropped += lost
            self._unreported += lost + (unreported if written == 0 else 0)
            self._queued -= sum(map(len, lines))
