"""Take connections from a listening socket, and be able to stop doing so without dropping one.

asyncio's own server loses connections that it has accepted but not yet attached when it is closed, and closes the
socket with the kernel's queue still full. Here both are under control: `stop` lets every accepted connection reach
its protocol.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Callable
from typing import Final

BATCH: Final = 64
PAUSE_SECONDS: Final = 0.5
_EXHAUSTED: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


class Acceptor:
    """Hand each connection of a listening socket to a protocol of its own.

    When the process or the system has no descriptor left, it waits half a second and tries again; the clients wait in
    the kernel's queue.

    Args:
        listener: listening and non-blocking; this object closes it.
        new_protocol: makes the protocol for one connection.
    """

    def __init__(self, listener: socket.socket, new_protocol: Callable[[], asyncio.Protocol]) -> None:
        self._listener = listener
        self._new_protocol = new_protocol
        self._loop = asyncio.get_running_loop()
        self._attaching: set[asyncio.Task[None]] = set()
        self._pause: asyncio.TimerHandle | None = None
        self._is_open = True
        self._resume()

    def _resume(self) -> None:
        self._pause = None
        self._loop.add_reader(self._listener.fileno(), self._accept_some)

    def _accept_some(self) -> None:
        for _ in range(BATCH):
            if not self._accept_one():
                return

    def _accept_one(self) -> bool:
        try:
            connection, _ = self._listener.accept()
        except OSError as error:
            if error.errno in _EXHAUSTED and self._is_open:
                self._loop.remove_reader(self._listener.fileno())
                self._pause = self._loop.call_later(PAUSE_SECONDS, self._resume)
            return False
        task = self._loop.create_task(self._attach(connection), name="attach connection")
        self._attaching.add(task)
        task.add_done_callback(self._attaching.discard)
        return True

    async def _attach(self, connection: socket.socket) -> None:
        try:
            connection.setblocking(False)
            await self._loop.connect_accepted_socket(self._new_protocol, connection)
        except OSError:  # the client is gone already
            connection.close()

    async def stop(self, *, take_queued: bool) -> None:
        """Accept no more, and return when every connection taken so far has its protocol.

        Args:
            take_queued: take in what waits in the kernel's queue first, because closing a socket that nobody else holds
                resets it. With a socket that others hold, what waits there is theirs.
        """
        self._stop_listening()
        if take_queued:
            while self._accept_one():
                pass
        self._listener.close()
        if self._attaching:
            await asyncio.wait(self._attaching)

    def close(self) -> None:
        """Close the socket now. Idempotent."""
        self._stop_listening()
        self._listener.close()

    def _stop_listening(self) -> None:
        if self._is_open:
            self._is_open = False
            self._loop.remove_reader(self._listener.fileno())
        if self._pause is not None:
            self._pause.cancel()
            self._pause = None
