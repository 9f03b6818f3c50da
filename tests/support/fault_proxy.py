"""A TCP proxy on loopback that does to connections what networks do: delay, jitter, cuts, resets, silence, crumbs."""

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from random import Random
from weakref import WeakSet

from sandbox.servers.address import LOOPBACK

_READ_BYTES = 65_536
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


@dataclass(frozen=True, slots=True)
class FaultProxyStatistics:
    """How many connections were accepted, how many are open, and how many bytes went each way."""

    accepted: int
    open: int
    bytes_up: int
    bytes_down: int


class Way:
    """One direction of all connections. Its attributes may change at any time, also under open connections.

    Attributes:
        delay_seconds: how long each piece is held back.
        jitter_seconds: up to so much is added to the delay of each piece.
        slice_bytes: the size of the pieces; None passes on what comes.
    """

    def __init__(self, random: Random) -> None:
        self.delay_seconds = 0.0
        self.jitter_seconds = 0.0
        self.slice_bytes: int | None = None
        self.bytes = 0
        self._random = random
        self._is_open = asyncio.Event()
        self._is_open.set()
        self._reset_after: int | None = None
        self._ended: WeakSet[asyncio.StreamWriter] = WeakSet()

    def swallow(self) -> None:
        """Become a black hole: nothing is passed on and nothing is closed, until `restore`."""
        self._is_open.clear()

    def restore(self) -> None:
        """Pass on again what comes, with what was held back since `swallow` first, as retransmission would."""
        self._is_open.set()

    def reset_after(self, count: int) -> None:
        """Reset the connection on which the count-th byte from now on travels, with that byte its last one."""
        self._reset_after = count

    def end(self, writer: asyncio.StreamWriter) -> None:
        """Tell a receiver that this was all; what comes for it from now on has nowhere to go."""
        self._ended.add(writer)
        with contextlib.suppress(OSError):
            writer.write_eof()

    async def carry(self, data: bytes, writer: asyncio.StreamWriter) -> None:
        """Pass bytes on as the attributes say.

        Raises:
            ConnectionResetError: it was time for a reset.
        """
        size = self.slice_bytes or len(data)
        for start in range(0, len(data), size):
            piece = data[start : start + size]
            delay = self.delay_seconds + self._random.uniform(0, self.jitter_seconds)
            await asyncio.sleep(delay)
            await self._is_open.wait()
            if writer in self._ended:
                return
            is_last = self._reset_after is not None and len(piece) >= self._reset_after
            piece = piece[: self._reset_after] if is_last else piece
            writer.write(piece)
            await writer.drain()
            self.bytes += len(piece)
            if self._reset_after is not None:
                self._reset_after = None if is_last else self._reset_after - len(piece)
            if is_last:
                raise ConnectionResetError("a reset was asked for here")


class _Link:
    """One connection through the proxy: the client's side and the server's."""

    def __init__(self, client: asyncio.StreamWriter, server: asyncio.StreamWriter) -> None:
        self.client = client
        self.server = server

    def close(self, *, is_reset: bool) -> None:
        for writer in (self.client, self.server):
            if is_reset:
                connection = writer.get_extra_info("socket")
                with contextlib.suppress(OSError):
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
                writer.transport.abort()
            else:
                writer.close()


class FaultProxy:
    """See `open_fault_proxy`. `up` is the way from clients to the server, `down` the way back."""

    def __init__(self, host: str, port: int, random: Random) -> None:
        self.up = Way(random)
        self.down = Way(random)
        self.port = 0
        self._target = (host, port)
        self._links: set[_Link] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._listener: asyncio.Server | None = None
        self._accepted = 0

    def statistics(self) -> FaultProxyStatistics:
        """Return what has happened so far."""
        return FaultProxyStatistics(self._accepted, len(self._links), self.up.bytes, self.down.bytes)

    def cut(self) -> None:
        """Close all connections in order (FIN), both sides."""
        self._close_all(is_reset=False)

    def reset(self) -> None:
        """Reset all connections (RST), both sides."""
        self._close_all(is_reset=True)

    def half_close(self, way: Way) -> None:
        """End one direction of all connections: its receiver sees the end, the other direction goes on."""
        for link in self._links:
            way.end(link.server if way is self.up else link.client)

    async def listen(self) -> None:
        """Accept connections; after `refuse` on the same port again."""
        self._listener = await asyncio.start_server(self._accept, LOOPBACK, self.port)
        self.port = self._listener.sockets[0].getsockname()[1]

    def refuse(self) -> None:
        """Refuse new connections; those that are open stay."""
        if self._listener is not None:
            self._listener.close()

    async def aclose(self) -> None:
        """Refuse new connections and reset those that are open."""
        self.refuse()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self.reset()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._accepted += 1
        task = asyncio.current_task()
        if task is not None:
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        try:
            upstream, server = await asyncio.open_connection(*self._target)
        except OSError:
            writer.close()
            return
        link = _Link(writer, server)
        self._links.add(link)
        is_reset = True
        try:
            await asyncio.gather(_pump(self.up, reader, server), _pump(self.down, upstream, writer))
            is_reset = False
        except OSError:
            pass  # one side has gone, or a reset was asked for: the other side must learn of it
        finally:
            self._links.discard(link)
            link.close(is_reset=is_reset)

    def _close_all(self, *, is_reset: bool) -> None:
        for link in list(self._links):
            link.close(is_reset=is_reset)


async def _pump(way: Way, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(_READ_BYTES):
        await way.carry(data, writer)
    if writer.can_write_eof() and not writer.is_closing():
        writer.write_eof()


@asynccontextmanager
async def open_fault_proxy(port: int, *, host: str = LOOPBACK, seed: int = 0) -> AsyncIterator[FaultProxy]:
    """Stand between clients and the server on this port; `FaultProxy.port` is where clients connect.

    It passes everything on as it comes until it is told otherwise. Leaving resets every connection.

    Args:
        port: the server's.
        host: the server's.
        seed: of the chance that jitter comes from.
    """
    proxy = FaultProxy(host, port, Random(seed))
    await proxy.listen()
    try:
        yield proxy
    finally:
        await proxy.aclose()
