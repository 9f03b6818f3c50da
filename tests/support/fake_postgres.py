"""A Postgres server and its connections that live in memory, for tests of the pool on a virtual clock."""

import asyncio
from typing import cast

from runtime.postgres_connection import Connection


class FakeServer:
    """Open connections while it is up; count the attempts.

    Attributes:
        is_up: refuses connections when False.
        connect_seconds: how long opening one takes.
        is_frozen: neither commands nor closes end while True.
        limit: refuses connections above so many.
    """

    def __init__(self) -> None:
        self.is_up = True
        self.is_frozen = False
        self.connect_seconds = 0.001
        self.limit = 1_000
        self.attempts: list[float] = []
        self.connections: list[FakeConnection] = []

    async def connect(self) -> Connection:
        """Open a connection, or raise what the driver would."""
        self.attempts.append(asyncio.get_running_loop().time())
        await asyncio.sleep(self.connect_seconds)
        if not self.is_up:
            raise ConnectionRefusedError(111, "Connect call failed")
        if len(self.open()) >= self.limit:
            raise ConnectionRefusedError(111, "too many connections")
        connection = FakeConnection(self)
        self.connections.append(connection)
        return cast("Connection", connection)

    def open(self) -> "list[FakeConnection]":
        """Return the connections that are open."""
        return [connection for connection in self.connections if not connection.is_closed()]


class FakeConnection:
    """As much of a connection as the pool touches."""

    def __init__(self, server: FakeServer) -> None:
        self._server = server
        self._is_closed = False
        self.is_interrupted = False
        self.in_transaction = False
        self.generation = 0
        self.expires_at = 0.0
        self.idle_since = 0.0
        self.commands: list[str] = []

    def is_closed(self) -> bool:
        """Say whether it was closed or cut."""
        return self._is_closed

    def is_in_transaction(self) -> bool:
        """Say whether a transaction is open."""
        return self.in_transaction

    async def execute(self, command: str) -> str:
        """Run a command, which ends only on a server that is not frozen."""
        await self._answer()
        self.commands.append(command)
        self.in_transaction = command.startswith("begin")
        return command.upper()

    async def close(self) -> None:
        """Close in order, which ends only on a server that is not frozen."""
        await self._answer()
        self._is_closed = True

    def terminate(self) -> None:
        """Cut."""
        self._is_closed = True

    async def _answer(self) -> None:
        if self._server.is_frozen:
            await asyncio.sleep(10_000)
        await asyncio.sleep(0.001)
