"""A stand-in for confluent_kafka's Consumer, at the edge: one topic's logs, an assignment, and a script.

Each poll runs one step of the script first, as the real client runs its callbacks inside a poll.
"""

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any, cast

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from runtime.kafka_reader import Record

Step = Callable[["FakeKafkaClient"], object]
"""What happens in one poll, before it returns."""


def record(partition: int, offset: int, value: bytes | None = b"{}", key: bytes | None = b"key") -> Record:
    """Return a record as a poll returns it."""
    return Message(topic="events", partition=partition, offset=offset, key=key, value=value)


def error_event(code: int, partition: int = -1) -> Record:
    """Return an error as a poll returns it, in the place of a record."""
    return Message(topic="events", partition=partition, error=KafkaError(code))


class FakeKafkaClient:
    """The consumer: deterministic, and strict where the real one is.

    Attributes:
        calls: every call that changes something, in order.
        unready_seeks: how many seeks are refused first, as the real client does right after an assignment.
        stopped: partitions in which every seek is refused until they are assigned anew, as the real client does after
            a fetch from an offset that is gone.
    """

    def __init__(self, script: Iterable[Step], on_end: Callable[[], object]) -> None:
        self.logs: dict[int, list[Record]] = {}
        self.calls: list[tuple[Any, ...]] = []  # Any: the arguments differ by call
        self.events: deque[Record] = deque()
        self.paused: set[int] = set()
        self.positions: dict[int, int] = {}
        self.unready_seeks = 0
        self.stopped: set[int] = set()
        self.commit_error: KafkaError | None = None
        self.is_closed = False
        self.settings: dict[str, Any] = {}  # Any: as the real client takes them
        self._script = deque(script)
        self._on_end = on_end

    def build(self, settings: dict[str, Any]) -> Consumer:  # Any: as above
        """Take the settings and return this client, in the place of the real one."""
        self.settings = settings
        return cast("Consumer", self)

    # What the tests script.

    def assign_to_us(self, *partitions: int) -> None:
        """Tell of an assignment."""
        self._callbacks["on_assign"](self, [TopicPartition("events", partition) for partition in partitions])

    def revoke(self, *partitions: int) -> None:
        """Tell of a revocation in order."""
        self._callbacks["on_revoke"](self, [TopicPartition("events", partition) for partition in partitions])

    def lose(self, *partitions: int) -> None:
        """Tell of a loss without notice."""
        self._callbacks["on_lost"](self, [TopicPartition("events", partition) for partition in partitions])

    # What the real client has.

    def subscribe(self, topics: Sequence[str], **callbacks: Callable[..., None]) -> None:
        """Subscribe."""
        self._callbacks = callbacks
        self.calls.append(("subscribe", *topics))

    def unsubscribe(self) -> None:
        """Leave the group: the next poll tells of the revocation."""
        self.calls.append(("unsubscribe",))
        owned = tuple(self.positions)
        self._script.appendleft(lambda client: client.revoke(*owned))

    def consume(self, num_messages: int, timeout: float) -> list[Record]:  # noqa: ARG002 - the real one's name
        """Run one step, then return what unpaused partitions have from their positions on."""
        if num_messages == 1:
            if self._script:
                self._script.popleft()(self)
            else:
                self._on_end()
        found = [self.events.popleft() for _ in range(min(num_messages, len(self.events)))]
        for partition in sorted(self.positions.keys() - self.paused):
            for each in self.logs.get(partition, []):
                offset = cast("int", each.offset())
                if len(found) < num_messages and offset >= self.positions[partition]:
                    found.append(each)
                    self.positions[partition] = offset + 1
        return found

    def incremental_assign(self, partitions: Iterable[TopicPartition]) -> None:
        """Add partitions, to be read from their offsets."""
        self.positions.update({each.partition: each.offset for each in partitions})
        self.stopped.difference_update(each.partition for each in partitions)
        self.calls.append(("assign", *sorted(each.partition for each in partitions)))

    def assign(self, partitions: Iterable[TopicPartition]) -> None:
        """Take these partitions and no others."""
        self.positions = {each.partition: each.offset for each in partitions}
        self.stopped.clear()
        self.calls.append(("assign all", *sorted(self.positions)))

    def incremental_unassign(self, partitions: Iterable[TopicPartition]) -> None:
        """Give partitions up."""
        for each in partitions:
            self.positions.pop(each.partition, None)
        self.calls.append(("unassign", *sorted(each.partition for each in partitions)))

    def unassign(self) -> None:
        """Give all partitions up."""
        self.positions.clear()
        self.calls.append(("unassign all",))

    def pause(self, partitions: Iterable[TopicPartition]) -> None:
        """Deliver nothing from these."""
        self.paused.update(each.partition for each in partitions)

    def resume(self, partitions: Iterable[TopicPartition]) -> None:
        """Deliver from these again."""
        self.paused.difference_update(each.partition for each in partitions)

    def seek(self, partition: TopicPartition) -> None:
        """Go to an offset; refused for a partition that is not ours, or not yet ready."""
        if self.unready_seeks or partition.partition not in self.positions.keys() - self.stopped:
            self.unready_seeks = max(0, self.unready_seeks - 1)
            raise KafkaException(KafkaError(KafkaError._STATE))
        self.positions[partition.partition] = partition.offset
        self.calls.append(("seek", partition.partition, partition.offset))

    def commit(self, *, offsets: Iterable[TopicPartition], asynchronous: bool) -> None:
        """Note a commit; raise the error that the test wants."""
        assert asynchronous
        self.calls.append(("commit", *sorted((each.partition, each.offset) for each in offsets)))
        if self.commit_error is not None:
            raise KafkaException(self.commit_error)

    def get_watermark_offsets(self, partition: TopicPartition, *, cached: bool) -> tuple[int, int]:
        """Return the ends of a log."""
        assert cached
        log = self.logs.get(partition.partition, [])
        return 0, cast("int", log[-1].offset()) + 1 if log else 0

    def close(self) -> None:
        """Leave the group: what is still ours is revoked first."""
        if self.positions:
            self.revoke(*self.positions)
        self.is_closed = True
