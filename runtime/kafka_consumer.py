"""Read a topic as a member of a group: one thread owns the consumer, the event loop stores what it hands over.

The thread (`runtime.kafka_reader`) never does anything slow. It hands batches over through a channel bounded by count
and by bytes; while that is full it pauses the partitions and goes on polling, so a slow database never costs the
membership. A poll is never cancelled, since a cancelled one can swallow a record: the context ends the thread's loop
within one poll's timeout.

Where to read from is not Kafka's to say. A newly assigned partition is paused and comes out of `read` as `Assigned`;
whoever stores the records answers with `place`, and the thread seeks and resumes. A Go reader may think of a goroutine
around `kafka.Reader`, whose `ReadMessage(ctx)` is `read(ctx)` here.
"""

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Generic, TypeVar

from confluent_kafka import Consumer

from patterns import Channel, Context, ContextError, EndOfChannel, WouldBlock, background, receive, select
from runtime.consumer_settings import ConsumerSettings
from runtime.kafka_batch import Assigned, Batch, KafkaReadError
from runtime.kafka_reader import BuildClient, ClientSettings, KafkaReader, ReaderStatistics, Record
from runtime.logs import get_logger
from runtime.partition_ledger import LedgerStatistics, PartitionLedger

T = TypeVar("T")

_log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class KafkaConsumerStatistics:
    """The thread, the ledger, and how many batches wait in the channel between."""

    reader: ReaderStatistics
    ledger: LedgerStatistics
    waiting_batches: int


class KafkaConsumer(Generic[T]):
    """A member of a consumer group whose records are stored elsewhere, with their offsets.

    Methods are for the loop's side. Per partition, batches come out in the order of their offsets, and nothing is left
    out between two batches of one generation.

    Args:
        client_settings: How to reach the brokers, in librdkafka's names.
        prepare: Turns a chunk of records into a batch's content, in the thread: at once and never raising, whatever a
            record may hold. What takes time is the loop's, while the database works: under one interpreter lock a busy
            thread would keep every answer waiting.
        build: Makes the client; tests give a fake.
        reach: Called with the name of each point that a crash test may want: `after-poll`, `in-revoke`,
            `before-kafka-commit`.
    """

    def __init__(
        self,
        settings: ConsumerSettings,
        client_settings: ClientSettings,
        prepare: Callable[[Sequence[Record]], T],
        *,
        build: BuildClient = Consumer,
        reach: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._settings = settings
        self._ledger = PartitionLedger(settings.queue_bytes)
        self._channel: Channel[Batch[T] | Assigned] = Channel(settings.queue_batches)
        self._reader = KafkaReader(
            settings, client_settings, self._ledger, self._channel, prepare, build=build, reach=reach
        )
        self._left_over: Batch[T] | Assigned | None = None
        self._ended = background().with_cancel()
        self._stop: Context | None = None

    def start(self, ctx: Context) -> None:
        """Start the thread; the context's end makes it leave the group and end.

        Raises:
            RuntimeError: It was started before.
        """
        if self._stop is not None:
            raise RuntimeError("a consumer starts once")
        self._stop = ctx.with_cancel()
        # A daemon: a client that hangs for ever in its close must not keep a stopped process alive.
        threading.Thread(target=self._run, args=(self._stop,), name="kafka-consumer", daemon=True).start()

    def _run(self, ctx: Context) -> None:
        try:
            self._reader.run(ctx)
        finally:
            self._ended.cancel()

    async def read(self, ctx: Context, *, records_max: int) -> list[Batch[T]] | Assigned:
        """Return what came: all batches that wait, up to about so many records, or partitions that need a position.

        It waits for the first batch only. A cancelled read has taken nothing.

        Raises:
            ContextError: The context ended: a clean exit.
            KafkaReadError: The reading failed; the cause says why.
        """
        ctx.raise_if_done()
        first = await self._first(ctx)
        if isinstance(first, Assigned):
            return first
        batches = [first]
        records = first.records
        while records < records_max:
            try:
                more = self._channel.receive_nowait()
            except (WouldBlock, EndOfChannel):
                break
            if isinstance(more, Assigned) or records + more.records > records_max:
                self._left_over = more
                break
            batches.append(more)
            records += more.records
        return batches

    async def _first(self, ctx: Context) -> Batch[T] | Assigned:
        if self._left_over is not None:
            first, self._left_over = self._left_over, None
            return first
        done, item = receive(ctx.done), receive(self._channel)
        if await select(done, item) is done:
            ctx.raise_if_done()
        if not item.ok:
            if self._reader.failure is None:
                ctx.raise_if_done()
            raise KafkaReadError("the Kafka consumer's thread ended") from self._reader.failure
        return item.value

    def place(self, partition: int, generation: int, next_offset: int) -> None:
        """Answer an `Assigned`: the thread seeks there and resumes, unless that generation is over by then."""
        self._reader.order(partition, generation, next_offset)

    @contextmanager
    def working(self, batches: list[Batch[T]]) -> Iterator[None]:
        """Take the batches of older generations out of the list; a revoke waits until the block is left.

        Keep it short: around one try to store, not around the waits between tries.
        """
        batches[:] = [batch for batch in batches if self._begin(batch)]
        begun = tuple(batches)
        try:
            yield
        finally:
            for batch in begun:
                self._ledger.end(batch.partition)

    def _begin(self, batch: Batch[T]) -> bool:
        if self._ledger.begin(batch.partition, batch.generation):
            return True
        self._ledger.give_bytes(batch.bytes)
        _log.info("Batch of an older assignment dropped", partition=batch.partition, records=batch.records)
        return False

    def settle(self, batches: Iterable[Batch[T]]) -> None:
        """Say that batches are stored: their room is free again, and Kafka's lag tools will hear of it.

        Inside the `working` block, so that a revoke that waits for the work commits it too.
        """
        for batch in batches:
            self._ledger.stored(batch.partition, batch.next_offset)
            self._ledger.give_bytes(batch.bytes)

    def drop(self, batches: Iterable[Batch[T]]) -> None:
        """Give up batches that somebody else may have stored, and what was read after them, and reposition."""
        generations: dict[int, int] = {}
        for batch in batches:
            self._ledger.give_bytes(batch.bytes)
            generations[batch.partition] = batch.generation
        self.reposition(generations)

    def reposition(self, generations: Mapping[int, int]) -> None:
        """Begin a new generation of partitions: they stand still and come out of `read` as `Assigned`.

        A partition whose generation is over already is left alone.
        """
        for partition, generation in generations.items():
            renewed = self._ledger.renew(partition, generation)
            if renewed is not None:
                self._reader.order(partition, renewed, None)

    def owned(self) -> dict[int, int]:
        """Return the partitions this member owns and their generations."""
        return self._ledger.owned()

    def ends(self) -> dict[int, int]:
        """Return the ends of partitions as the last fetches told them; no network, may be old while paused."""
        return self._reader.ends()

    def is_in_work(self, partition: int) -> bool:
        """Whether a batch of the partition is being stored at this moment."""
        return self._ledger.is_in_work(partition)

    async def check(self) -> None:
        """Return when the thread polls, for readiness.

        Raises:
            KafkaReadError: It has not for half of `max_poll_interval_seconds`: it hangs, or has ended.
        """
        silent_seconds = time.monotonic() - self._reader.statistics().last_poll_at
        if silent_seconds > self._settings.max_poll_interval_seconds / 2:
            raise KafkaReadError(f"no poll for {silent_seconds:.0f} s")

    async def aclose(self) -> None:
        """Stop the thread, leave the group, and wait for that.

        Raises:
            KafkaReadError: The thread did not end within the settings' time and is left behind; or it failed, perhaps
                only now, while it left the group, and the cause says why.
        """
        if self._stop is None:
            return
        self._stop.cancel()
        with background().with_timeout(self._settings.close_timeout_seconds) as limit:
            try:
                await limit.run(self._ended.wait())
            except ContextError:
                raise KafkaReadError("the Kafka consumer's thread did not end in time and is left behind") from None
        if self._reader.failure is not None:
            raise KafkaReadError("the Kafka consumer's thread failed") from self._reader.failure

    def statistics(self) -> KafkaConsumerStatistics:
        """Return the state of the thread, the ledger and the channel."""
        return KafkaConsumerStatistics(self._reader.statistics(), self._ledger.statistics(), len(self._channel))
