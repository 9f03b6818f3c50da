"""Start a process that cannot outlive this one."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sandbox.servers import keeper
from sandbox.servers.account import Account
from sandbox.servers.errors import ServerError

_POLL_SECONDS = 0.01
_START_SECONDS = 20.0


class KeptProcess:
    """A child process that ends when this process ends, for whatever reason this process ends.

    A keeper stands between the two (see `sandbox.servers.keeper`). Nothing here is bound to an event loop: a process
    started under one loop may be signalled and awaited under another.
    """

    def __init__(self, name: str, keeper_process: "subprocess.Popen[bytes]", log: Path) -> None:
        self.name = name
        self.log = log
        self._keeper = keeper_process
        self._pid = 0

    @property
    def pid(self) -> int:
        """The process id of the program itself, not of its keeper."""
        return self._pid

    @property
    def keeper_pid(self) -> int:
        """The process id of the keeper, for tests that kill it."""
        return self._keeper.pid

    @property
    def is_running(self) -> bool:
        """Whether the program has not ended yet."""
        return self._keeper.poll() is None

    def send_signal(self, number: int) -> None:
        """Send a signal to the program alone.

        Raises:
            ProcessLookupError: the program has ended.
        """
        if not self.is_running:
            raise ProcessLookupError(f"{self.name} has ended with status {self._keeper.returncode}")
        os.kill(self._pid, number)

    def freeze(self) -> None:
        """Suspend the program and all its descendants (SIGSTOP), the program first, so that it starts no new ones."""
        os.kill(self._pid, signal.SIGSTOP)
        stopped: set[int] = set()
        while fresh := set(keeper.descendants(self._pid)) - stopped:
            keeper.signal_all(sorted(fresh), signal.SIGSTOP)
            stopped |= fresh

    def thaw(self) -> None:
        """Let a frozen program and all its descendants go on (SIGCONT)."""
        keeper.signal_all([*keeper.descendants(self._pid), self._pid], signal.SIGCONT)

    async def wait(self, timeout_seconds: float) -> int:
        """Wait until the program and everything it started have ended; return its exit status.

        The status is 128 plus the signal's number when a signal ended it. Cancellation leaves the program running.

        Raises:
            TimeoutError: it is still running after `timeout_seconds`.
        """
        give_up_at = time.monotonic() + timeout_seconds
        while (status := self._keeper.poll()) is None:
            if time.monotonic() >= give_up_at:
                raise TimeoutError(f"{self.name} is still running after {timeout_seconds:g} s; its log is {self.log}")
            await asyncio.sleep(_POLL_SECONDS)
        return status

    async def stop(self, number: int = signal.SIGTERM, *, grace_seconds: float = 10.0) -> int:
        """Send a stop signal, wait, and kill the program with all its descendants when the grace is over.

        Stopping what has ended already only returns its status. A cancellation kills at once, then propagates.
        """
        try:
            if self.is_running:
                self.thaw()
                os.kill(self._pid, number)
            return await self.wait(grace_seconds)
        except (TimeoutError, ProcessLookupError):
            return await self.kill()
        except asyncio.CancelledError:
            self._kill_all()
            raise

    async def kill(self) -> int:
        """Kill the program and all its descendants, and wait for their end."""
        self._kill_all()
        return await self.wait(_START_SECONDS)

    def _kill_all(self) -> None:
        if self.is_running:
            keeper.signal_all([self._pid, *keeper.descendants(self._pid)], signal.SIGKILL)

    async def _read_pid(self) -> None:
        """Read the program's process id, which the keeper reports once it has started the program."""
        stream = self._keeper.stdout
        if stream is None:
            raise ServerError(f"{self.name}: its keeper has no standard output")
        give_up_at = time.monotonic() + _START_SECONDS
        reported = b""
        while not reported.endswith(b"\n"):
            try:
                piece = os.read(stream.fileno(), 64)
            except BlockingIOError:
                if time.monotonic() >= give_up_at:
                    raise ServerError(f"{self.name} did not start within {_START_SECONDS:g} s") from None
                await asyncio.sleep(_POLL_SECONDS)
                continue
            if not piece:
                raise ServerError(f"{self.name} did not start; its log is {self.log}")
            reported += piece
        self._pid = int(reported)

    def _close_pipes(self) -> None:
        for stream in (self._keeper.stdin, self._keeper.stdout):
            if stream is not None:
                stream.close()

    def release(self) -> None:
        """Close the lifeline. A program that is still running is stopped by its keeper."""
        self._close_pipes()


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """What to start and how to end it.

    Attributes:
        name: what messages call it.
        command: program and arguments.
        log: file to which its output is appended.
        directory: its working directory.
        account: the account to switch to; None keeps ours.
        environment: its whole environment; None hands ours down.
        stop_signal: how the keeper stops it when this process is gone.
        grace_seconds: how long the keeper then waits before it kills.
        pass_descriptors: open descriptors (a listening socket) that it inherits under the same numbers.
        remove: directories that the keeper removes when this process is gone.
    """

    name: str
    command: Sequence[str | Path]
    log: Path
    directory: Path
    account: Account | None = None
    environment: Mapping[str, str] | None = None
    stop_signal: int = signal.SIGTERM
    grace_seconds: float = 10.0
    pass_descriptors: Sequence[int] = ()
    remove: Sequence[Path] = ()

    def keeper_command(self) -> list[str]:
        """Return the command line of the keeper that keeps this program."""
        # Isolated and without site-packages: it starts in the time of a bare interpreter and imports nothing of ours.
        command = [sys.executable, "-I", "-S", keeper.__file__, "--log", str(self.log), "--cwd", str(self.directory)]
        command += ["--stop-signal", str(int(self.stop_signal)), "--grace-seconds", str(self.grace_seconds)]
        if self.account is not None:
            command += ["--user", str(self.account.user_id), "--group", str(self.account.group_id)]
        for path in self.remove:
            command += ["--remove", str(path)]
        for descriptor in self.pass_descriptors:
            command += ["--pass-fd", str(descriptor)]
        return [*command, "--", *map(str, self.command)]


async def start_process(program: Program) -> KeptProcess:
    """Start a program that ends when this process ends.

    The program runs in a session of its own, so a Ctrl-C on the terminal reaches this process and not the program.
    Cancellation while it starts stops it again.

    Raises:
        ServerError: the program did not start.
    """
    keeper_process = subprocess.Popen(  # noqa: ASYNC220 - a fork and an exec, bound to no event loop on purpose
        program.keeper_command(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=None if program.environment is None else dict(program.environment),
        pass_fds=tuple(program.pass_descriptors),
        start_new_session=True,
    )
    process = KeptProcess(program.name, keeper_process, program.log)
    try:
        if keeper_process.stdout is not None:
            os.set_blocking(keeper_process.stdout.fileno(), False)
        await process._read_pid()  # noqa: SLF001 - the second half of this constructor, which may wait
    except BaseException:
        process.release()
        keeper_process.wait()
        raise
    return process
