"""A librdkafka producer that lives in memory: answers when a test says so."""

import threading
import time
from collections.abc import Callable
from typing import Any

from confluent_kafka import KafkaError, KafkaException

Callback = Callable[[Any, Any], None]  # Any: the library's own error and message


class FakeMessage:
    """Where a record went."""

    def __init__(self, topic: str, offset: int) -> None:
        self._topic = topic
        self._offset = offset

    def topic(self) -> str:
        """Return the topic."""
        return self._topic

    def partition(self) -> int:
        """Return the partition, always 0."""
        return 0

    def offset(self) -> int:
        """Return the offset."""
        return self._offset


class FakeProducer:
    """Keep records until ``answer_with`` is set; then every poll answers all of them.

    Attributes:
        answer_with: None keeps them waiting; "stored" or an error answers them.
        capacity: ``produce`` raises BufferError beyond it.
        raise_in_poll: raised by the next poll, once.
    """

    def __init__(self, config: dict[str, Any]) -> None:  # Any: librdkafka's names
        self.config = config
        self.answer_with: str | KafkaError | None = "stored"
        self.capacity = 1_000_000
        self.raise_in_poll: Exception | None = None
        self.stored: list[tuple[str, bytes | None, bytes | None]] = []
        self.is_purged = False
        self._waiting: list[tuple[str, bytes | None, bytes | None, Callback]] = []
        self._lock = threading.Lock()

    def produce(
        self,
        topic: str,
        value: bytes | None,
        key: bytes | None,
        *,
        headers: list[tuple[str, bytes]],
        on_delivery: Callback,
    ) -> None:
        """Keep a record."""
        if value is not None and len(value) > int(self.config["message.max.bytes"]):
            raise KafkaException(KafkaError(KafkaError.MSG_SIZE_TOO_LARGE))
        with self._lock:
            if len(self._waiting) >= self.capacity:
                raise BufferError("full")
            self._waiting.append((topic, key, value, on_delivery))
        del headers

    def poll(self, seconds: float) -> int:
        """Answer what waits, or wait a moment."""
        if self.raise_in_poll is not None:
            error, self.raise_in_poll = self.raise_in_poll, None
            raise error
        answer = KafkaError(KafkaError._PURGE_QUEUE) if self.is_purged else self.answer_with
        with self._lock:
            waiting: list[tuple[str, bytes | None, bytes | None, Callback]] = []
            if answer is not None:
                waiting, self._waiting = self._waiting, []
        for topic, key, value, on_delivery in waiting:
            if isinstance(answer, str):
                self.stored.append((topic, key, value))
                on_delivery(None, FakeMessage(topic, len(self.stored) - 1))
            else:
                on_delivery(answer, FakeMessage(topic, -1001))
        if not waiting and seconds:
            time.sleep(0.001)
        return len(waiting)

    def purge(self) -> None:
        """Answer what waits as purged, at the next poll."""
        self.is_purged = True
