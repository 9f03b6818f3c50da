"""Taking connections: none is lost at the stop, and running out of descriptors is only a pause."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import AsyncIterator
from typing import Any, cast

import pytest

from runtime import acceptor as acceptor_module
from runtime.acceptor import Acceptor
from runtime.listener import open_listener
from tests.support.eventually import eventually


class Greeter(asyncio.Protocol):
    """Say hello and close."""

    open = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Greet."""
        Greeter.open += 1
        writable = cast("asyncio.Transport", transport)
        writable.write(b"hello")
        writable.close()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        """Count."""
        Greeter.open -= 1


@pytest.fixture(autouse=True)
async def nobody_left() -> AsyncIterator[None]:
    """Every connection that was greeted is over at the end of the test."""
    yield
    await eventually(lambda: Greeter.open == 0)
    await asyncio.sleep(0.05)  # uvloop frees a transport after its connection is lost


async def _greeting(client: socket.socket) -> bytes:
    client.setblocking(False)
    async with asyncio.timeout(10):
        return await asyncio.get_running_loop().sock_recv(client, 5)


async def test_stop_lets_everyone_in_who_stood_in_the_queue() -> None:
    """A hundred connections made while the loop stood are all greeted, though the stop came before it turned."""
    listener = open_listener("127.0.0.1", 0)
    address = listener.getsockname()
    acceptor = Acceptor(listener, Greeter)
    clients = [socket.create_connection(address) for _ in range(100)]
    await acceptor.stop(take_queued=True)
    try:
        assert [await _greeting(client) for client in clients] == [b"hello"] * 100
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(address).close()
    finally:
        for client in clients:
            client.close()


async def test_stop_of_a_shared_socket_leaves_the_queue_to_the_others() -> None:
    """What waits in a socket that somebody else holds, too, is that one's to serve."""
    with open_listener("127.0.0.1", 0) as held:
        first = Acceptor(open_listener("", 0, listen_fd=held.fileno()), Greeter)
        with socket.create_connection(held.getsockname()) as client:
            await first.stop(take_queued=False)
            second = Acceptor(open_listener("", 0, listen_fd=held.fileno()), Greeter)
            assert await _greeting(client) == b"hello"
            second.close()


async def test_no_descriptor_left_is_a_pause_and_not_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """While accept says that there is no descriptor, clients wait in the queue; afterwards they are served."""
    monkeypatch.setattr(acceptor_module, "PAUSE_SECONDS", 0.01)

    class Listener:
        """A listening socket on a machine that has run out of descriptors."""

        def __init__(self, real: socket.socket) -> None:
            self.real = real
            self.failures = 0
            self.is_exhausted = True

        def accept(self) -> Any:  # noqa: ANN401 - as the real one's
            """Fail while there is no descriptor, as the system call does."""
            if self.is_exhausted:
                self.failures += 1
                raise OSError(errno.EMFILE, "Too many open files")
            return self.real.accept()

        def fileno(self) -> int:
            """The real one's."""
            return self.real.fileno()

        def close(self) -> None:
            """Close the real one."""
            self.real.close()

    real = open_listener("127.0.0.1", 0)
    listener = Listener(real)
    acceptor = Acceptor(listener, Greeter)  # type: ignore[arg-type]  # the three methods that are used
    with socket.create_connection(real.getsockname()) as client:
        await eventually(lambda: listener.failures >= 3)
        listener.is_exhausted = False
        assert await _greeting(client) == b"hello"
    await acceptor.stop(take_queued=True)
    acceptor.close()
