"""The thread that owns a Kafka consumer: it polls, pauses, seeks and hands over, and never does anything slow."""

import logging
import operator
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeAlias, TypeVar

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Message, TopicPartition

from patterns import Channel, Context
from runtime.backoff import Backoff
from runtime.consumer_settings import ConsumerSettings
from runtime.kafka_batch import Assigned, Batch, KafkaReadError
from runtime.kafka_client import is_fatal
from runtime.log_damper import LogDamper
from runtime.logs import get_logger
from runtime.partition_ledger import PartitionLedger

T = TypeVar("T")
Record: TypeAlias = "Message[bytes, bytes]"
ClientSettings: TypeAlias = Mapping[str, Any]  # Any: the client takes numbers, texts and callbacks
BuildClient: TypeAlias = Callable[[dict[str, Any]], Consumer]  # Any: as above

_log = get_logger(__name__)
_RECORD_OVERHEAD_BYTES: Final = 256  # what a record costs in memory beside payload and key: objects, usual headers
_SEEK_SECONDS_FIRST: Final = 10.0
_SEEK_SECONDS_MOST: Final = 60.0
_REJOINS_MAX: Final = 5
_REJOINS_FORGOTTEN_SECONDS: Final = 600.0
_COUNTED: Final = ("polls", "records", "records_dropped", "assigned", "revoked", "lost", "commits_failed", "errors")
_OUT_OF_RANGE: Final = frozenset({KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE})  # noqa: SLF001 - the client's names for its local errors begin so


@dataclass(frozen=True, slots=True)
class ReaderStatistics:
    """What the thread has done since it began, and whether partitions stand still for want of room."""

    polls: int
    records: int
    records_dropped: int
    assigned: int
    revoked: int
    lost: int
    commits_failed: int
    errors: int
    is_paused: bool
    last_poll_at: float


@dataclass(slots=True)
class _Place:
    """Where reading a partition goes on, under which generation."""

    generation: int
    position: int


@dataclass(frozen=True, slots=True)
class _Order:
    """What the loop asks of the thread: go to an offset and read on, or, without one, stand still and ask."""

    partition: int
    generation: int
    offset: int | None
    asked_at: float


class KafkaReader(Generic[T]):
    """The body of the thread. Only `order` and `statistics` are for other threads.

    Args:
        prepare: Turns a chunk of records into a batch's content, here in the thread; quick, and never raising.
        reach: Called with the name of each point that a crash test may want.
    """

    def __init__(
        self,
        settings: ConsumerSettings,
        client_settings: ClientSettings,
        ledger: PartitionLedger,
        channel: Channel[Batch[T] | Assigned],
        prepare: Callable[[Sequence[Record]], T],
        *,
        build: BuildClient,
        reach: Callable[[str], None],
    ) -> None:
        self.failure: Exception | None = None
        self._settings = settings
        self._client_settings = client_settings
        self._ledger = ledger
        self._channel = channel.sync
        self._prepare = prepare
        self._build = build
        self._reach = reach
        self._orders: deque[_Order] = deque()
        self._held: deque[Batch[T] | Assigned] = deque()
        self._places: dict[int, _Place] = {}
        self._is_paused = False
        self._commit_due_at = 0.0
        self._counts: dict[str, int] = dict.fromkeys(_COUNTED, 0)
        self._last_poll_at = time.monotonic()
        self._damper = LogDamper()
        self._fatal: KafkaError | None = None
        self._ends: dict[int, int] = {}
        self._joins = Backoff(_SEEK_SECONDS_FIRST, _SEEK_SECONDS_MOST)
        self._joined_at = 0.0
        self._seek_seconds = 0.0

    def order(self, partition: int, generation: int, offset: int | None) -> None:
        """Ask the thread to seek and read on from an offset, or else to stand still and ask for one."""
        self._orders.append(_Order(partition, generation, offset, time.monotonic()))

    def ends(self) -> dict[int, int]:
        """Return the ends of partitions as the last fetches told them."""
        return self._ends.copy()

    def statistics(self) -> ReaderStatistics:
        """Return what the thread has done so far; single numbers may be one step apart."""
        return ReaderStatistics(**self._counts, is_paused=self._is_paused, last_poll_at=self._last_poll_at)

    def run(self, ctx: Context) -> None:
        """Read until the context ends; close the consumer and the channel, whatever ended it.

        An error anywhere, in a callback too, ends the reading and is kept in `failure`. No record is skipped by that:
        positions move only when records are stored.
        """
        client: Consumer | None = None
        try:
            client = self._build(self._complete_settings())
            self._join(client)
            while not ctx.is_done:
                self._turn(client)
        except Exception as error:  # noqa: BLE001 - handed to the loop, which raises it
            self.failure = error
        finally:
            self._close(client)
            self._channel.close()

    def _complete_settings(self) -> dict[str, Any]:  # Any: as above
        return {
            **self._client_settings,
            **self._settings.client_settings(),
            "error_cb": self._on_error,
            "on_commit": self._on_commit,
            "logger": logging.getLogger("confluent_kafka"),
            "log_level": 2,  # not the client's line for each failed connection: `_on_error` tells of these, damped
        }

    def _join(self, client: Consumer) -> None:
        self._joined_at = time.monotonic()
        self._seek_seconds = self._joins.fail()
        client.subscribe(
            [self._settings.topic], on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost
        )

    def _close(self, client: Consumer | None) -> None:
        if client is None:
            return
        try:
            self._commit(client)
            client.close()  # calls on_revoke, which waits for work under way
        except Exception as error:  # noqa: BLE001 - kept, unless an earlier error is the cause
            self.failure = self.failure or error

    # One turn: obey, hand over, poll.

    def _turn(self, client: Consumer) -> None:
        self._obey(client)
        if time.monotonic() >= self._commit_due_at:
            self._commit(client)
            self._note_ends(client)
        timeout_seconds = self._settings.poll_timeout_seconds
        if self._hand_over(timeout_seconds):
            self._stand_still(client, is_paused=False)
            records = client.consume(1, timeout_seconds)
            if records and self._settings.chunk_records > 1:
                records += client.consume(self._settings.chunk_records - 1, 0)
        else:
            self._stand_still(client, is_paused=True)
            records = client.consume(1, 0)  # nothing comes from paused partitions: this keeps the membership alive
        self._last_poll_at = time.monotonic()
        self._counts["polls"] += 1
        if self._fatal is not None:
            raise KafkaReadError(self._fatal.str())
        if records:
            self._accept(client, records)
            self._reach("after-poll")

    def _obey(self, client: Consumer) -> None:
        for _ in range(len(self._orders)):
            order = self._orders.popleft()
            if self._ledger.generation(order.partition) != order.generation:
                continue
            if order.offset is None:
                self._stop_partition(client, order.partition, Assigned({order.partition: order.generation}))
            elif not self._seek(client, order, order.offset):
                self._orders.append(order)

    def _seek(self, client: Consumer, order: _Order, offset: int) -> bool:
        """Go to the offset and read on; False while the client is not ready to seek there."""
        try:
            client.seek(self._at(order.partition, offset))
        except KafkaException as error:
            if error.args[0].code() != KafkaError._STATE:  # noqa: SLF001 - as above
                raise
            if time.monotonic() >= max(order.asked_at, self._joined_at) + self._seek_seconds:
                self._join_anew(client)
            return False
        self._places[order.partition] = _Place(order.generation, offset)
        if not self._is_paused:
            client.resume([self._at(order.partition)])
        return True

    def _join_anew(self, client: Consumer) -> None:
        """Leave the group and join it, because a partition cannot be sought in for long: only an assignment starts it.

        A client that fetched at an offset that is gone stops reading that partition, and refuses every seek from then
        on; whether it says so depends on what was paused in the meantime. A topic made anew is the usual cause.

        Raises:
            KafkaReadError: It helped nothing several times in a row.
        """
        if time.monotonic() - self._joined_at > _REJOINS_FORGOTTEN_SECONDS:
            self._joins.reset()
        if self._joins.failures > _REJOINS_MAX:
            raise KafkaReadError("the client refuses to seek, in every new assignment too")
        _log.warning("Joining the group anew: the client refuses to seek", times=self._joins.failures)
        client.unsubscribe()
        self._join(client)

    def _hand_over(self, timeout_seconds: float) -> bool:
        """Hand over what is held, in order; False when there is no room within the time."""
        while self._held:
            item = self._held[0]
            size = 0
            if isinstance(item, Batch):
                if self._ledger.generation(item.partition) != item.generation:
                    self._held.popleft()
                    self._counts["records_dropped"] += item.records
                    continue
                size = item.bytes
            if not self._ledger.take_bytes(size, timeout_seconds):
                return False
            try:
                self._channel.send(item, timeout_seconds=timeout_seconds)
            except TimeoutError:
                self._ledger.give_bytes(size)
                return False
            self._held.popleft()
        return True

    def _stand_still(self, client: Consumer, *, is_paused: bool) -> None:
        if is_paused != self._is_paused:
            self._is_paused = is_paused
            set_all = client.pause if is_paused else client.resume
            set_all([self._at(partition) for partition in self._places])

    def _accept(self, client: Consumer, records: Sequence[Record]) -> None:
        chunks: dict[int, list[Record]] = {}
        for record in records:
            error = record.error()
            if error is not None:
                self._on_record_error(client, record, error)
                continue
            partition = record.partition()
            chunk = chunks.get(partition)  # type: ignore[arg-type] # only an error event lacks its partition
            if chunk is None:
                chunks[partition] = [record]  # type: ignore[index] # as above
            else:
                chunk.append(record)
        for partition, chunk in chunks.items():
            self._accept_chunk(client, partition, chunk)

    def _accept_chunk(self, client: Consumer, partition: int, chunk: Sequence[Record]) -> None:
        place = self._places.get(partition)
        if place is None or self._ledger.generation(partition) != place.generation:
            self._counts["records_dropped"] += len(chunk)
            return
        offsets: list[int] = [record.offset() for record in chunk]  # type: ignore[misc] # as in _accept
        if offsets[0] < place.position or any(map(operator.ge, offsets, offsets[1:])):
            _log.error("Offsets went backwards", partition=partition, position=place.position, offset=offsets[0])
            self._counts["records_dropped"] += len(chunk)
            self._lose_place(client, partition, place.generation, is_out_of_range=False)
            return
        size = sum(len(record) + len(record.key() or b"") + _RECORD_OVERHEAD_BYTES for record in chunk)
        place.position = offsets[-1] + 1
        self._counts["records"] += len(chunk)
        self._held.append(
            Batch(partition, place.generation, offsets[0], place.position, len(chunk), size, self._prepare(chunk))
        )

    def _lose_place(self, client: Consumer, partition: int, generation: int, *, is_out_of_range: bool) -> None:
        renewed = self._ledger.renew(partition, generation)
        if renewed is not None:
            self._stop_partition(client, partition, Assigned({partition: renewed}, is_out_of_range))

    def _stop_partition(self, client: Consumer, partition: int, assigned: Assigned) -> None:
        self._places.pop(partition, None)
        client.pause([self._at(partition)])
        self._held.append(assigned)

    def _at(self, partition: int, offset: int | None = None) -> TopicPartition:
        if offset is None:
            return TopicPartition(self._settings.topic, partition)
        return TopicPartition(self._settings.topic, partition, offset)

    # What the client tells, always from within a poll or the close.

    def _on_assign(self, client: Consumer, partitions: list[TopicPartition]) -> None:
        numbers = [each.partition for each in partitions]
        self._counts["assigned"] += 1
        for number in numbers:
            self._places.pop(number, None)
        generations = self._ledger.assign(numbers)
        # Not where the client would begin, at a committed offset. The first one there is, whatever its number: a fetch
        # may go out before the pause, and one from a number that is gone leaves the client unable to seek.
        starts = [self._at(number, OFFSET_BEGINNING) for number in numbers]
        if self._settings.is_cooperative:
            client.incremental_assign(starts)
        else:
            client.assign(starts)
        client.pause([self._at(number) for number in numbers])
        if numbers:
            self._held.append(Assigned(generations))
        _log.info("Partitions assigned", partitions=numbers)

    def _on_revoke(self, client: Consumer, partitions: list[TopicPartition]) -> None:
        numbers = [each.partition for each in partitions]
        self._counts["revoked"] += 1
        self._ledger.revoke(numbers)
        self._reach("in-revoke")
        began = time.monotonic()
        is_idle = self._ledger.wait_idle(numbers, self._settings.revoke_wait_seconds)
        self._commit(client)
        self._release(client, partitions)
        waited = round(time.monotonic() - began, 3)
        _log.info("Partitions revoked", partitions=numbers, waited_seconds=waited, is_work_finished=is_idle)

    def _on_lost(self, client: Consumer, partitions: list[TopicPartition]) -> None:
        """Give up at once: somebody else may own these already, so nothing is waited for and nothing committed."""
        numbers = [each.partition for each in partitions]
        self._counts["lost"] += 1
        self._ledger.revoke(numbers)
        self._ledger.take_stored(numbers)
        self._release(client, partitions)
        _log.warning("Partitions lost: ownership lost without notice", partitions=numbers)

    def _release(self, client: Consumer, partitions: list[TopicPartition]) -> None:
        for each in partitions:
            self._places.pop(each.partition, None)
        if self._settings.is_cooperative:
            client.incremental_unassign(partitions)
        else:
            client.unassign()

    def _on_record_error(self, client: Consumer, record: Record, error: KafkaError) -> None:
        partition = record.partition()
        place = self._places.get(partition) if partition is not None else None
        if error.code() in _OUT_OF_RANGE:
            if partition is not None and place is not None:
                self._lose_place(client, partition, place.generation, is_out_of_range=True)
            return
        self._on_error(error)

    def _on_error(self, error: KafkaError) -> None:
        """Note an error of the client: a fatal one ends the reading, all others the client mends by itself."""
        self._counts["errors"] += 1
        if is_fatal(error):
            self._fatal = error
        if self._damper.is_news(error.name()):
            _log.warning("Kafka client reports an error", error=error.name(), detail=error.str())

    def _commit(self, client: Consumer) -> None:
        """Tell Kafka's lag tools how far the rows are stored, without waiting and without caring."""
        self._commit_due_at = time.monotonic() + self._settings.commit_interval_seconds
        stored = self._ledger.take_stored()
        if not stored:
            return
        self._reach("before-kafka-commit")
        try:
            client.commit(offsets=[self._at(*each) for each in stored.items()], asynchronous=True)
        except KafkaException as error:
            self._on_commit(error.args[0], [])

    def _note_ends(self, client: Consumer) -> None:
        for partition in self._places:
            _, high = client.get_watermark_offsets(self._at(partition), cached=True)
            self._ends[partition] = high

    def _on_commit(self, error: KafkaError | None, partitions: list[TopicPartition]) -> None:  # noqa: ARG002 - fixed by the client
        if error is None:
            self._damper.forget("commit")
            return
        self._counts["commits_failed"] += 1
        if self._damper.is_news("commit"):
            _log.warning("Kafka commit failed: no effect on data", error=error.name())
