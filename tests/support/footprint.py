"""What a process holds, to be compared with what it held idle (L6): descriptors, threads, memory."""

import contextlib
import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.eventually import eventually
from tests.support.judgement import Judgement, Rule, judge

_PROCESSES = Path("/proc/self/fd")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True)
class Footprint:
    """What one process of this machine holds at one moment.

    Attributes:
        files: open descriptors that are no sockets.
        sockets: open sockets.
        threads: threads.
        memory_bytes: resident memory.
    """

    files: int
    sockets: int
    threads: int
    memory_bytes: int

    def judge(self, idle: "Footprint", *, more: int = 0, memory_factor: float = 1.5) -> Judgement:
        """Compare with what it held when it was idle (L6).

        Args:
            idle: what it held then.
            more: how many descriptors and threads it may hold on top (a pool that has grown to its size).
            memory_factor: how many times as much memory it may hold.
        """
        counts = ("files", "sockets", "threads")
        held = [(name, getattr(self, name), getattr(idle, name)) for name in counts]
        differences = [f"{now} {name} instead of {before}" for name, now, before in held if now > before + more]
        if self.memory_bytes > memory_factor * idle.memory_bytes:
            differences.append(f"{self.memory_bytes >> 20} MB instead of {idle.memory_bytes >> 20} MB")
        return judge(Rule.NO_LEAK, differences)


def footprint_of(pid: int) -> Footprint:
    """Look at a process; skips the test where the system does not show one.

    Raises:
        FileNotFoundError: there is no such process.
    """
    if not _PROCESSES.is_dir():
        pytest.skip("what a process holds is read from /proc")
    kinds = Counter(_target(link).startswith("socket:") for link in Path(f"/proc/{pid}/fd").iterdir())
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    threads = len(list(Path(f"/proc/{pid}/task").iterdir()))
    return Footprint(files=kinds[False], sockets=kinds[True], threads=threads, memory_bytes=pages * _PAGE_BYTES)


async def judge_settled(pid: int, idle: Footprint, *, more: int = 0, seconds: float = 20) -> Judgement:
    """Wait, bounded, until a process holds no more than when it was idle, and judge it (L6); see `Footprint.judge`."""
    with contextlib.suppress(TimeoutError):
        await eventually(lambda: footprint_of(pid).judge(idle, more=more).is_ok, seconds=seconds, pause_seconds=0.1)
    return footprint_of(pid).judge(idle, more=more)


def _target(link: Path) -> str:
    try:
        return str(link.readlink())
    except FileNotFoundError:
        return ""  # closed between the listing and the look
