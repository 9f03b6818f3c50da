"""Publish records to Kafka and await the broker's word for each, without ever blocking the event loop.

A thread of its own polls librdkafka for the brokers' answers and hands them to the loop once a round, however many
records they are about. In Go, kafka-go's ``WriteMessages`` blocks its goroutine for the same guarantee.
"""

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final, NamedTuple

from confluent_kafka import KafkaError, KafkaException, Producer

from runtime.errors import DeliveryUnknown, DependencyUnavailable, RecordRefusedError
from runtime.kafka_client import DEPENDENCY, ClientConfig, client_config
from runtime.kafka_poller import Batch, Delivery, Outcome, Poller
from runtime.logs import get_logger
from runtime.settings import KafkaSettings

__all__ = ["Delivery", "KafkaProducer", "KafkaProducerStatistics", "Outcome", "Record", "open_producer"]

Build = Callable[[ClientConfig], Producer]

_YIELD_EVERY: Final = 500
_ANSWER_MARGIN_SECONDS: Final = 1.0
_RECORD_OVERHEAD_BYTES: Final = 100
_REFUSALS: Final = frozenset({KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.INVALID_RECORD, KafkaError.INVALID_MSG_SIZE})

log = get_logger(__name__)


class Record(NamedTuple):
    """One record to publish; records of one key go to one partition, in the order they were given."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...] = ()

    def size_bytes(self) -> int:
        """Return what the record takes of the queue's bytes."""
        headers = sum(len(name) + len(value) for name, value in self.headers)
        return len(self.key or b"") + len(self.value or b"") + headers + _RECORD_OVERHEAD_BYTES


@dataclass(frozen=True)
class KafkaProducerStatistics:
    """Show a producer: what is under way now, and how many records ended how since the start."""

    under_way_records: int
    under_way_bytes: int
    delivered: int
    failed: int
    renewed: int


class KafkaProducer:
    """An idempotent producer with ``acks=all`` and a queue bounded by records and by bytes.

    A full queue makes ``publish`` wait, and after ``delivery_timeout_seconds`` fail without having sent anything. What
    was sent is answered within that time and a second: by a ``Delivery``, or by ``DeliveryUnknown``, since a record
    whose answer is missing may be stored all the same. A cancelled ``publish`` is such a case too. After an error
    that is fatal to the client or its producer id, the next record goes through a new one. Bound to the event loop that
    made it.
    """

    def __init__(self, settings: KafkaSettings, *, name: str = "producer", build: Build | None = None) -> None:
        self._settings = settings
        self._name = name
        self._build = build or _build
        self._loop = asyncio.get_running_loop()
        self._poller: Poller | None = None
        self._room: deque[asyncio.Future[None]] = deque()
        self._records = 0
        self._bytes = 0
        self._delivered = 0
        self._failed = 0
        self._renewed = 0
        self._is_closed = False

    async def publish(
        self, topic: str, key: bytes | None, value: bytes | None, headers: tuple[tuple[str, bytes], ...] = ()
    ) -> Delivery:
        """Publish one record; return where the broker stored it.

        Raises:
            DeliveryUnknown: no answer came in time, or the broker failed it: it may or may not be stored.
            DependencyUnavailable: the queue stayed full, the producer is closed, or its password's file cannot be read:
                it was not sent.
            RecordRefusedError: the record itself is at fault, such as its size; sending it again will not help.
        """
        (outcome,) = await self.publish_many([Record(topic, key, value, headers)])
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    async def publish_many(self, records: Sequence[Record]) -> list[Outcome]:
        """Publish records; return for each, in their order, its ``Delivery`` or the error ``publish`` would raise."""
        batch = Batch(len(records), self._loop)
        if not records:
            return []
        for index, record in enumerate(records):
            await self._hand_over(batch, index, record)
            if index % _YIELD_EVERY == _YIELD_EVERY - 1:
                await asyncio.sleep(0)
        batch.close_intake()
        try:
            async with asyncio.timeout(self._settings.delivery_timeout_seconds + _ANSWER_MARGIN_SECONDS):
                await batch.answered
        except TimeoutError:
            log.warning("Records were not answered in time", dependency=DEPENDENCY, records=batch.missing())
        outcomes = batch.outcomes(DeliveryUnknown(DEPENDENCY, "no answer in time; the record may be stored"))
        failed = sum(isinstance(outcome, Exception) for outcome in outcomes)
        self._failed += failed
        self._delivered += len(outcomes) - failed
        return outcomes

    async def check(self) -> None:
        """Return when a broker answers, for readiness.

        Raises:
            DependencyUnavailable: none did within ``check_timeout_seconds``, or none can be asked: no password.
        """
        producer = self._current().producer
        try:
            await asyncio.to_thread(producer.list_topics, timeout=self._settings.check_timeout_seconds)
        except KafkaException as error:
            raise DependencyUnavailable(DEPENDENCY, _describe(error)) from error

    def statistics(self) -> KafkaProducerStatistics:
        """Return the counts so far; safe from any thread."""
        return KafkaProducerStatistics(self._records, self._bytes, self._delivered, self._failed, self._renewed)

    async def aclose(self, timeout_seconds: float) -> None:
        """Take no more records, wait for the answers to those under way, and stop; idempotent.

        Records unanswered after ``timeout_seconds`` fail as unknown.
        """
        self._is_closed = True
        self._wake_all()
        if self._poller is None:
            return
        poller, self._poller = self._poller, None
        deadline = self._loop.time() + timeout_seconds
        while self._records > 0 and self._loop.time() < deadline:
            await self._wait_for_room(deadline)
        if self._records > 0:
            log.warning("Records were cut off at the end", dependency=DEPENDENCY, records=self._records)
        await poller.aclose()

    async def _hand_over(self, batch: Batch, index: int, record: Record) -> None:
        """Give one record to librdkafka, waiting for room in the queue; a failure becomes the record's outcome."""
        size = record.size_bytes()
        deadline = self._loop.time() + self._settings.delivery_timeout_seconds
        while not self._is_closed:
            if self._has_room(size):
                try:
                    self._current().produce(batch, index, record, size)
                except BufferError:  # librdkafka still holds records whose answers we have given up on
                    pass
                except (DependencyUnavailable, KafkaException, ValueError, TypeError) as error:
                    batch.refuse(index, _as_refusal(error))
                    return
                else:
                    self._records += 1
                    self._bytes += size
                    return
            if self._loop.time() >= deadline:
                batch.refuse(index, DependencyUnavailable(DEPENDENCY, "the queue stayed full; the record was not sent"))
                return
            await self._wait_for_room(min(deadline, self._loop.time() + 1.0))
        batch.refuse(index, DependencyUnavailable(DEPENDENCY, "the producer is closed; the record was not sent"))

    def _has_room(self, size: int) -> bool:
        records_fit = self._records < self._settings.queue_records
        return records_fit and (self._records == 0 or self._bytes + size <= self._settings.queue_bytes)

    async def _wait_for_room(self, deadline: float) -> None:
        """Return when records were answered, or at the deadline; waiters go on in the order they came."""
        waiter: asyncio.Future[None] = self._loop.create_future()
        self._room.append(waiter)
        timer = self._loop.call_at(deadline, _resolve, waiter)
        try:
            await waiter
        finally:
            timer.cancel()

    def _free(self, records: int, size: int) -> None:
        """Make room after a round of answers; called on the loop by the poller."""
        self._records -= records
        self._bytes -= size
        self._wake_all()

    def _wake_all(self) -> None:
        waiters, self._room = self._room, deque()
        for waiter in waiters:
            _resolve(waiter)

    def _current(self) -> Poller:
        """Return the poller in use; a new one at first, and after a fatal error.

        Raises:
            DependencyUnavailable: the producer is closed, or the password's file cannot be read now, which is no
                record's fault.
        """
        if self._is_closed:
            raise DependencyUnavailable(DEPENDENCY, "the producer is closed")
        if self._poller is not None and self._poller.is_fatal:
            log.warning("Kafka producer replaced", dependency=DEPENDENCY)
            self._poller.close()
            self._poller = None
            self._renewed += 1
        if self._poller is None:
            try:
                config = _producer_config(self._settings, self._name)
            except (OSError, ValueError) as error:
                detail = f"the password's file cannot be read: {type(error).__name__}"
                raise DependencyUnavailable(DEPENDENCY, detail) from error
            self._poller = Poller(self._settings, config, self._build, self._loop, self._free)
        return self._poller


@asynccontextmanager
async def open_producer(settings: KafkaSettings, *, name: str = "producer") -> AsyncIterator[KafkaProducer]:
    """Open a producer for the length of a block; leaving it waits at most ``flush_timeout_seconds`` for answers."""
    producer = KafkaProducer(settings, name=name)
    try:
        yield producer
    finally:
        await producer.aclose(settings.flush_timeout_seconds)


def _producer_config(settings: KafkaSettings, name: str) -> ClientConfig:
    timeout_ms = round(settings.delivery_timeout_seconds * 1_000)
    return {
        **client_config(settings, name=name),
        "log_level": 2,  # not librdkafka's line for each failed connection: the poller tells of these, damped
        "enable.idempotence": True,
        "acks": "all",
        "compression.type": "lz4",
        "linger.ms": settings.linger_ms,
        "message.timeout.ms": timeout_ms,
        "request.timeout.ms": timeout_ms,
        "socket.timeout.ms": max(1_000, timeout_ms),
        "message.max.bytes": settings.record_bytes,
        # Our own counts are the limit; librdkafka's are twice as wide, for records given up on but still inside.
        "queue.buffering.max.messages": min(10_000_000, settings.queue_records * 2),
        "queue.buffering.max.kbytes": min(2_097_151, settings.queue_bytes // 512 + 1),
    }


def _build(config: ClientConfig) -> Producer:
    return Producer(config, logger=logging.getLogger("librdkafka"))


def _as_refusal(error: Exception) -> Exception:
    if isinstance(error, DependencyUnavailable):
        return error
    if isinstance(error, KafkaException):
        kafka_error = error.args[0]
        if kafka_error.code() in _REFUSALS:
            return RecordRefusedError(_describe(error))
        return DependencyUnavailable(DEPENDENCY, f"{_describe(error)}; the record was not sent")
    return RecordRefusedError(f"{type(error).__name__}: {error}")


def _describe(error: KafkaException) -> str:
    kafka_error = error.args[0]
    return f"{kafka_error.name()}: {kafka_error.str()}"


def _resolve(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
