"""Keep one process alive exactly as long as the process that asked for it.

Run as a script, on the standard library alone, between a starter and the program it wants:

    starter --- lifeline (a pipe on standard input) ---> keeper ---> program and its descendants

The kernel closes the lifeline whenever the starter ends, however it ends, kill -9 included; the keeper then stops the
program, kills whatever is left of its descendants, and removes the directories it was told to remove. When the keeper
itself is killed, Linux kills the program (parent-death signal). The first line on standard output is the program's
process id. The keeper's exit status is the program's, or 128 plus the number of the signal that ended it.
"""

import argparse
import contextlib
import ctypes
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_LINUX = sys.platform == "linux"
_TICK_SECONDS = 0.05


def _prctl(option: int, value: int) -> None:
    if _LINUX:
        ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0)


def die_with_parent(parent: int) -> Callable[[], None]:
    """Return what the child calls between fork and exec, after it has changed its user (a change clears the signal)."""

    def arrange() -> None:
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)

    return arrange


def _parents() -> dict[int, int]:
    """Return the parent of every process on this machine."""
    if not _LINUX:
        listing = subprocess.Popen(["/bin/ps", "-A", "-o", "pid=,ppid="], stdout=subprocess.PIPE, text=True)
        lines = [line.split() for line in listing.communicate()[0].splitlines()]
        return {int(pid): int(parent) for pid, parent in lines if int(pid) != listing.pid}  # it lists itself too
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                # The command in parentheses may hold spaces and parentheses itself: read from the last one on.
                fields = (entry / "stat").read_text(errors="replace").rpartition(")")[2].split()
                parents[int(entry.name)] = int(fields[1])
    return parents


def descendants(ancestor: int) -> list[int]:
    """Return the processes below one process, parents before their children."""
    children: dict[int, list[int]] = {}
    for pid, parent in _parents().items():
        children.setdefault(parent, []).append(pid)
    found: list[int] = []
    level = [ancestor]
    while level:
        level = [child for parent in level for child in children.get(parent, [])]
        found += level
    return found


def signal_all(pids: list[int], number: int) -> None:
    """Send a signal to each process that still exists and is ours."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)


class _Keeper:
    """Wait for whichever comes first: the end of the program, or the end of the starter."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self._arguments = arguments
        self._status: int | None = None
        self._told_to_stop = False
        self._pid = 0
        # A signal that arrives writes a byte here, so one select waits for the starter and for the program.
        self._wake, wake_writer = os.pipe()
        os.set_blocking(self._wake, False)
        os.set_blocking(wake_writer, False)
        signal.set_wakeup_fd(wake_writer, warn_on_full_buffer=False)

    def run(self) -> int:
        signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._stop_requested)
        _prctl(_PR_SET_CHILD_SUBREAPER, 1)
        self._start()
        while not self._reap() and not self._told_to_stop:
            self._wait()
        if self._status is None:
            self._stop()
            for directory in self._arguments.remove:
                shutil.rmtree(directory, ignore_errors=True)
        self._sweep()
        return 1 if self._status is None else self._status

    def _wait(self) -> None:
        readable, _, _ = select.select([0, self._wake], [], [])
        if self._wake in readable:
            with contextlib.suppress(BlockingIOError):
                os.read(self._wake, 4096)
        if 0 in readable and not os.read(0, 1):
            self._told_to_stop = True

    def _stop_requested(self, _number: int, _frame: object) -> None:
        self._told_to_stop = True

    def _start(self) -> None:
        arguments = self._arguments
        log = os.open(arguments.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        drop = arguments.user is not None
        # Kept, since a Popen that is thrown away reaps a child that has ended already, and its status with it.
        self._program = subprocess.Popen(
            arguments.command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=arguments.cwd,
            pass_fds=arguments.pass_fd,
            preexec_fn=die_with_parent(os.getpid()),  # noqa: PLW1509 - a keeper has one thread
            user=arguments.user if drop else None,
            group=arguments.group if drop else None,
            extra_groups=[] if drop else None,
        )
        self._pid = self._program.pid
        os.close(log)
        for descriptor in arguments.pass_fd:
            os.close(descriptor)
        os.write(1, f"{self._pid}\n".encode())

    def _reap(self) -> bool:
        """Collect whatever has ended, adopted orphans too; tell whether the program is among them."""
        with contextlib.suppress(ChildProcessError):
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if pid == 0:
                    break
                if pid == self._pid:
                    code = os.waitstatus_to_exitcode(status)
                    self._status = code if code >= 0 else 128 - code
        return self._status is not None

    def _stop(self) -> None:
        """Stop the program by its own signal, and by force when that takes too long."""
        signal_all(descendants(os.getpid()), signal.SIGCONT)
        signal_all([self._pid], self._arguments.stop_signal)
        give_up_at = time.monotonic() + self._arguments.grace_seconds
        while not self._reap() and time.monotonic() < give_up_at:
            time.sleep(_TICK_SECONDS)

    def _sweep(self) -> None:
        """Kill what the program left behind: as their reaper we still find its orphans below us."""
        while left := descendants(os.getpid()):
            signal_all(left, signal.SIGKILL)
            time.sleep(_TICK_SECONDS)
            self._reap()


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Keep one process alive exactly as long as its starter.")
    parser.add_argument("--log", required=True)
    parser.add_argument("--cwd", required=True)
    parser.add_argument("--user", type=int)
    parser.add_argument("--group", type=int)
    parser.add_argument("--stop-signal", type=int, default=signal.SIGTERM)
    parser.add_argument("--grace-seconds", type=float, default=10.0)
    parser.add_argument("--remove", action="append", default=[])
    parser.add_argument("--pass-fd", type=int, action="append", default=[])
    parser.add_argument("command", nargs="+")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(_Keeper(_arguments()).run())
