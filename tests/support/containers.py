"""PostgreSQL, MongoDB and Apache Kafka in containers, behind the same face as the embedded servers."""

import asyncio
import contextlib
import functools
import gc
import os
import secrets
import signal
import tempfile
import time
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final

from sandbox.servers import KafkaServer, MongoServer, PostgresServer, ServerError
from sandbox.servers.address import LOOPBACK, free_port
from sandbox.servers.kafka import broker_fault
from sandbox.servers.mongo import REPLICA_SET, initiate, mongo_fault
from sandbox.servers.postgres import SERVER_SETTINGS, WITHOUT_FSYNC, postgres_fault

if TYPE_CHECKING:
    from testcontainers.core.container import DockerContainer

POSTGRES_IMAGE: Final = "postgres:17"
MONGO_IMAGE: Final = "mongo:8"
KAFKA_IMAGE: Final = "apache/kafka:4.1.1"
_READY_SECONDS: Final = 90.0
_STOP_SECONDS: Final = 30
_POLL_SECONDS: Final = 0.1
_FREEZE_TRIES: Final = 10
_PAUSED: Final = "paused"

# One broker that is its own controller. It is advertised under its port on this machine's loopback, and speaks with
# itself over a listener of its own. The first join waits for nobody, as a test's members come one by one.
_KAFKA_SETTINGS: Final = {
    "KAFKA_NODE_ID": "1",
    "KAFKA_PROCESS_ROLES": "broker,controller",
    "KAFKA_CONTROLLER_QUORUM_VOTERS": "1@localhost:9093",
    "KAFKA_CONTROLLER_LISTENER_NAMES": "CONTROLLER",
    "KAFKA_INTER_BROKER_LISTENER_NAME": "INTERNAL",
    "KAFKA_LISTENER_SECURITY_PROTOCOL_MAP": "CONTROLLER:PLAINTEXT,INTERNAL:PLAINTEXT,HOST:PLAINTEXT",
    "KAFKA_LISTENERS": "HOST://:9092,INTERNAL://:19092,CONTROLLER://:9093",
    "KAFKA_OFFSETS_TOPIC_REPLICATION_FACTOR": "1",
    "KAFKA_OFFSETS_TOPIC_NUM_PARTITIONS": "4",
    "KAFKA_TRANSACTION_STATE_LOG_REPLICATION_FACTOR": "1",
    "KAFKA_TRANSACTION_STATE_LOG_MIN_ISR": "1",
    "KAFKA_AUTO_CREATE_TOPICS_ENABLE": "false",
    "KAFKA_GROUP_INITIAL_REBALANCE_DELAY_MS": "0",
    "KAFKA_GROUP_CONSUMER_MIN_SESSION_TIMEOUT_MS": "6000",
    "KAFKA_GROUP_CONSUMER_SESSION_TIMEOUT_MS": "6000",
    "KAFKA_GROUP_CONSUMER_MIN_HEARTBEAT_INTERVAL_MS": "1000",
    "KAFKA_GROUP_CONSUMER_HEARTBEAT_INTERVAL_MS": "1000",
    "KAFKA_HEAP_OPTS": "-Xms128m -Xmx384m",
    # The quick compiler alone: a broker of a test lives for minutes, and starts in half the time.
    "KAFKA_JVM_PERFORMANCE_OPTS": "-XX:+UseSerialGC -XX:TieredStopAtLevel=1",
}


def _stay_on_loopback() -> None:
    """Tell the library, before it is imported, not to go over the bridge where this machine is a container itself."""
    if Path("/.dockerenv").exists():
        os.environ.setdefault("TESTCONTAINERS_CONNECTION_MODE", "docker_host")
        os.environ.setdefault("TESTCONTAINERS_HOST_OVERRIDE", "localhost")


@functools.cache
def engine_fault() -> str | None:
    """Return why no container engine answers, in one line, or None when one does; asked once a run."""
    _stay_on_loopback()
    from docker.errors import DockerException  # type: ignore[import-untyped] # it ships no types
    from testcontainers.core.docker_client import DockerClient

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        try:
            client = DockerClient().client
            client.ping()
            client.close()
        except DockerException as error:
            fault = " ".join(str(error).split())
        else:
            return None
        gc.collect()  # its socket, which it leaves open when nobody answers
    return fault


class ContainerServer:
    """A container that is ours: it keeps its port on loopback and its files over every stop and start.

    Args:
        fault: asks the server something; returns why it gave no answer, or None when it did.
    """

    def __init__(self, container: "DockerContainer", fault: Callable[[], Awaitable[Exception | None]]) -> None:
        self._container = container
        self._fault = fault
        self._log = Path(tempfile.gettempdir()) / f"container-{secrets.token_hex(6)}.log"

    @property
    def pid(self) -> int:
        """The process id of its first process, as the engine's machine counts; 0 while it is stopped."""
        return int(self._state("Pid"))

    @property
    def log(self) -> Path:
        """A file with what it has written so far, made anew for each look."""
        self._log.write_bytes(self._container.get_wrapped_container().logs())
        return self._log

    def freeze(self) -> None:
        """Suspend all its processes (`docker pause`).

        Raises:
            APIError: the engine could not, several times: one that waits for a busy disk cannot be suspended.
        """
        from docker.errors import APIError

        for _ in range(_FREEZE_TRIES - 1):
            with contextlib.suppress(APIError):
                self._container.get_wrapped_container().pause()
                return
            time.sleep(_POLL_SECONDS)
        self._container.get_wrapped_container().pause()

    def thaw(self) -> None:
        """Let them go on (`docker unpause`)."""
        if self._state("Status") == _PAUSED:
            self._container.get_wrapped_container().unpause()

    async def stop(self, number: int) -> None:
        """Send its first process a signal and wait; what has not ended within its grace is killed."""
        await asyncio.to_thread(self._end, number)

    async def kill(self) -> None:
        """Kill all its processes."""
        await asyncio.to_thread(self._end, signal.SIGKILL)

    async def start(self) -> None:
        """Start it, the first time or again, and wait until it answers.

        Raises:
            ServerError: it ended while starting, or does not answer in time.
        """
        await asyncio.to_thread(self._begin)
        give_up_at = time.monotonic() + _READY_SECONDS
        while (fault := await self._fault()) is not None:
            if time.monotonic() >= give_up_at or not await asyncio.to_thread(self._is_running):
                raise ServerError(f"{self._container.image} does not answer: {fault}; its log: {self._tail()}")
            await asyncio.sleep(_POLL_SECONDS)

    async def close(self) -> None:
        """Remove it with its volumes, whatever state it is in."""
        await asyncio.to_thread(self._container.stop)
        self._log.unlink(missing_ok=True)

    def _begin(self) -> None:
        if self._container.status == "not_started":
            self._container.start()
        elif self._is_running():
            raise ServerError(f"{self._container.image} is running already")
        else:
            self._container.get_wrapped_container().start()

    def _end(self, number: int) -> None:
        from requests.exceptions import RequestException

        self.thaw()
        container = self._container.get_wrapped_container()
        container.kill(signal=number)
        try:
            container.wait(timeout=_STOP_SECONDS)
        except RequestException:  # so the library tells of its timeout
            container.kill()
            container.wait(timeout=_STOP_SECONDS)

    def _is_running(self) -> bool:
        return self._state("Status") in {"running", _PAUSED}

    def _state(self, name: str) -> str:
        container = self._container.get_wrapped_container()
        container.reload()
        return str(container.attrs["State"][name])

    def _tail(self) -> str:
        return " / ".join(self.log.read_text(errors="replace").splitlines()[-5:])


def _container(image: str, port: int, inside: int, **environment: str) -> "DockerContainer":
    _stay_on_loopback()
    from testcontainers.core.container import DockerContainer

    container = DockerContainer(image).with_envs(**environment)
    container.ports[f"{inside}/tcp"] = (LOOPBACK, port)  # type: ignore[assignment] # with_bind_ports takes no address
    return container


@contextlib.asynccontextmanager
async def open_postgres_container() -> AsyncIterator[PostgresServer]:
    """Start PostgreSQL in a container, without fsync as the embedded one, and remove it on leaving.

    Raises:
        ServerError: it did not start.
    """
    port, password = free_port(), secrets.token_urlsafe(18)
    url = f"postgresql://postgres:{password}@{LOOPBACK}:{port}/postgres"
    container = _container(
        POSTGRES_IMAGE, port, 5432, POSTGRES_PASSWORD=password, POSTGRES_INITDB_ARGS="--no-sync"
    ).with_command([word for each in (SERVER_SETTINGS | WITHOUT_FSYNC).items() for word in ("-c", "=".join(each))])
    server = ContainerServer(container, lambda: postgres_fault(url))
    try:
        await server.start()
        yield PostgresServer(url, server)
    finally:
        await server.close()


# The nodes of a set know one another by a key in a file that nobody but the server's own account may read.
_MONGO_COMMAND: Final = (
    'printf %s "$KEY" >/tmp/key && chmod 400 /tmp/key && chown mongodb /tmp/key && exec docker-entrypoint.sh mongod '
    f'--replSet {REPLICA_SET} --keyFile /tmp/key --bind_ip_all --port "$PORT" --wiredTigerCacheSizeGB 0.25 --quiet'
)


@contextlib.asynccontextmanager
async def open_mongo_container() -> AsyncIterator[MongoServer]:
    """Start MongoDB in a container, as a replica set of one node, and remove it on leaving.

    It listens under the same port inside and outside, so that the name it has in its set is right for everybody.

    Raises:
        ServerError: it did not start.
    """
    port, password = free_port(), secrets.token_hex(18)
    url = f"mongodb://root:{password}@{LOOPBACK}:{port}/?directConnection=true"
    container = _container(
        MONGO_IMAGE,
        port,
        port,
        MONGO_INITDB_ROOT_USERNAME="root",
        MONGO_INITDB_ROOT_PASSWORD=password,
        KEY=password,
        PORT=str(port),
    ).with_kwargs(entrypoint=["bash", "-c", _MONGO_COMMAND])
    server = ContainerServer(container, lambda: mongo_fault(LOOPBACK, port))
    try:
        await server.start()
        await initiate(url, [f"{LOOPBACK}:{port}"])
        yield MongoServer(url, server)
    finally:
        await server.close()


@contextlib.asynccontextmanager
async def open_kafka_container() -> AsyncIterator[KafkaServer]:
    """Start Apache Kafka in a container, and remove it on leaving.

    Raises:
        ServerError: it did not start.
    """
    port = free_port()
    bootstrap = f"{LOOPBACK}:{port}"
    advertised = f"HOST://{bootstrap},INTERNAL://localhost:19092"
    container = _container(KAFKA_IMAGE, port, 9092, KAFKA_ADVERTISED_LISTENERS=advertised, **_KAFKA_SETTINGS)
    server = ContainerServer(container, lambda: asyncio.to_thread(broker_fault, bootstrap))
    try:
        await server.start()
        yield KafkaServer(bootstrap, server)
    finally:
        await server.close()
