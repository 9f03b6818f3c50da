"""A server from a wheel: its directory, its port and its process."""

import abc
import asyncio
import os
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from sandbox.servers.address import free_port
from sandbox.servers.directory import ServerDirectory
from sandbox.servers.errors import ServerError
from sandbox.servers.process import KeptProcess, Program, start_process

_POLL_SECONDS = 0.02
_TAIL_LINES = 5


class EmbeddedServer(abc.ABC):
    """A process that ends when this one does, in a directory of its own, on a port of loopback.

    Attributes:
        name: what messages and the log file call it.
        port: where it listens.
    """

    name: ClassVar[str]
    _environment: ClassVar[Mapping[str, str]]
    _stop_signal: ClassVar[signal.Signals]
    _stop_seconds: ClassVar[float]
    _ready_seconds: ClassVar[float]

    def __init__(self, directory: ServerDirectory) -> None:
        self.port = free_port()
        self._directory = directory
        self._log = directory.path / f"{self.name}.log"
        self._process: KeptProcess | None = None

    @abc.abstractmethod
    async def _command(self) -> list[str | Path]:
        """Return the program and its arguments."""

    @abc.abstractmethod
    async def _fault(self) -> Exception | None:
        """Ask the server something; return why it gave no answer, or None when it did."""

    @property
    def pid(self) -> int:
        """The process id of the program."""
        return self._running.pid

    @property
    def log(self) -> Path:
        """The server's log file."""
        return self._log

    def freeze(self) -> None:
        """Suspend the program and all its descendants (SIGSTOP)."""
        self._running.freeze()

    def thaw(self) -> None:
        """Let them go on (SIGCONT)."""
        self._running.thaw()

    async def stop(self, number: int) -> None:
        """Send a signal and wait; what has not ended within its grace is killed."""
        await self._running.stop(number, grace_seconds=self._stop_seconds)

    async def kill(self) -> None:
        """Kill the program and all its descendants."""
        await self._running.kill()

    async def start(self) -> None:
        """Start and wait until it answers.

        Raises:
            ServerUnavailableError: there is no program for this machine.
            ServerError: it runs already, ended while starting (the port may be taken meanwhile), or does not answer.
        """
        command = await self._command()
        if self._process is not None:
            if self._process.is_running:
                raise ServerError(f"{self.name} is running already")
            self._process.release()
        self._process = await self._launch(self.name, command)
        give_up_at = time.monotonic() + self._ready_seconds
        while True:
            fault = await self._fault()
            if not self._process.is_running:
                raise ServerError(f"{self.name} ended while starting: {self.log_tail()}")
            if fault is None:
                return
            if time.monotonic() >= give_up_at:
                raise ServerError(f"{self.name} does not answer: {fault}; {self.log_tail()}") from fault
            await asyncio.sleep(_POLL_SECONDS)

    async def close(self) -> None:
        """Stop the server if it is running, in order, and give its lifeline back."""
        if self._process is not None:
            try:
                await self._process.stop(self._stop_signal, grace_seconds=self._stop_seconds)
            finally:
                self._process.release()

    def log_tail(self) -> str:
        """Return the end of the log in one line."""
        text = self._log.read_text(errors="replace") if self._log.exists() else ""
        return " / ".join(text.splitlines()[-_TAIL_LINES:]) or "its log is empty"

    @property
    def _running(self) -> KeptProcess:
        if self._process is None or not self._process.is_running:
            raise ServerError(f"{self.name} is not running")
        return self._process

    async def _launch(self, name: str, command: list[str | Path]) -> KeptProcess:
        return await start_process(
            Program(
                name=name,
                command=command,
                log=self._log,
                directory=self._directory.path,
                account=self._directory.account,
                environment={"PATH": os.environ.get("PATH", ""), **self._environment},
                stop_signal=self._stop_signal,
                remove=self._directory.remove,
            )
        )
