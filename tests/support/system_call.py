"""Let the system calls of a running process fail: by strace, or by taking its descriptors away."""

import asyncio
import contextlib
import re
import resource
import shutil
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Final

import pytest

_STREAMS: Final = 3
_ATTACH_SECONDS: Final = 20.0
_ATTACHED: Final = re.compile(rb"Process \d+ attached")


@contextlib.asynccontextmanager
async def open_injection(pids: Sequence[int], fault: str, *, path: Path | None = None) -> AsyncIterator[None]:
    """Let system calls of these processes, and of what they start meanwhile, fail until the block is left.

    Skips the test where there is no strace, or where it may not look at other processes.

    Args:
        pids: the processes, each with all of its threads.
        fault: which calls and how they fail, in strace's words: `write:error=ENOSPC`.
        path: only calls on this file; None for all.
    """
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    calls = fault.partition(":")[0]
    command = ["strace", "-f", "-o", "/dev/null", "-e", f"trace={calls}", "-e", f"inject={fault}"]
    command += ["-P", str(path)] if path is not None else []
    command += [word for pid in pids for word in ("-p", str(pid))]
    strace = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.PIPE)
    try:
        await asyncio.wait_for(_wait_attached(strace, len(pids)), _ATTACH_SECONDS)
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            strace.terminate()
        if strace.stderr is not None:
            await strace.stderr.read()
        await strace.wait()


def injected(fault: str, *, path: Path | None = None) -> tuple[str, ...]:
    """Return what a command is started under so that system calls of it fail, or kill it, from its start on.

    Skips the test where there is no strace. The arguments are those of `open_injection`.
    """
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    calls = fault.partition(":")[0]
    only = ("-P", str(path)) if path is not None else ()
    # Where the kernel stops at these calls alone, a signal is lost in a thread that has made one before (strace 6.1).
    stops = () if ":signal=" in fault else ("--seccomp-bpf",)
    return "strace", "-f", *stops, "-qqq", "-o", "/dev/null", "-e", f"trace={calls}", "-e", f"inject={fault}", *only


async def _wait_attached(strace: asyncio.subprocess.Process, processes: int) -> None:
    """Wait until strace says that it holds so many processes."""
    said: list[bytes] = []
    while sum(bool(_ATTACHED.search(line)) for line in said) < processes:
        line = await strace.stderr.readline() if strace.stderr is not None else b""
        if not line:
            pytest.skip(f"strace cannot hold another process: {b' '.join(said).decode(errors='replace')}")
        said.append(line)


@contextlib.contextmanager
def no_more_descriptors(pid: int) -> Iterator[None]:
    """Let a process open nothing more (EMFILE) until the block is left, not even where it closes something meanwhile.

    The limit is on the number of a new descriptor, and below this one all are in use: the standard streams. Skips the
    test where another process's limits cannot be set.
    """
    if not hasattr(resource, "prlimit"):
        pytest.skip("only Linux lets one process set the limits of another")
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (_STREAMS, before[1]))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, before)
