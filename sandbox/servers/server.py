"""What every server that is started and hurt has in common, whatever it runs in."""

from pathlib import Path
from typing import Protocol

from sandbox.servers.errors import NotOursError


class OwnedServer(Protocol):
    """A server that was started here and is ours to hurt: an embedded process, or, in tests, a container.

    Its address and what it keeps on disk stay the same over every stop and start.
    """

    @property
    def pid(self) -> int:
        """The process id of the server's first process; another one after each start."""

    @property
    def log(self) -> Path:
        """A file with what the server has written so far."""

    def freeze(self) -> None:
        """Suspend every process of the server: connections stay open, nothing answers."""

    def thaw(self) -> None:
        """Let a frozen server go on."""

    async def stop(self, number: int) -> None:
        """Send the server a signal, and wait, bounded, for its end; a frozen one is thawed first."""

    async def kill(self) -> None:
        """Kill every process of the server, and wait for their end."""

    async def start(self) -> None:
        """Start again and wait until it answers."""


class Server:
    """A running server, and the ways in which a test may hurt it; nothing here is bound to an event loop.

    Args:
        named_by: the environment variable that names a server which is not ours.
        owned: the server, when it is ours. Every way to hurt it raises `NotOursError` without.
    """

    def __init__(self, named_by: str, owned: OwnedServer | None) -> None:
        self._named_by = named_by
        self._owned = owned

    @property
    def is_ours(self) -> bool:
        """Whether this server was started here and may be stopped, restarted and frozen."""
        return self._owned is not None

    @property
    def pid(self) -> int:
        """The process id of the server's first process."""
        return self._ours.pid

    @property
    def log(self) -> Path:
        """The server's log file."""
        return self._ours.log

    def freeze(self) -> None:
        """Suspend every process of the server: connections stay open, nothing answers."""
        self._ours.freeze()

    def thaw(self) -> None:
        """Let a frozen server go on."""
        self._ours.thaw()

    async def kill(self) -> None:
        """Kill every process of the server (SIGKILL)."""
        await self._ours.kill()

    async def start(self) -> None:
        """Start again after a stop, under the same address, and wait until it answers."""
        await self._ours.start()

    @property
    def _ours(self) -> OwnedServer:
        if self._owned is None:
            raise NotOursError(f"the server named by {self._named_by} is used, not controlled")
        return self._owned
