"""Read batches of events and store them until told to stop.

In the original a shutdown signal cancels a context, the context stops the read, and a read that fails for another
reason is logged and retried at once, for ever. Here the same context stops the read, and a failed read is an error that
ends the process: the consumer's client mends by itself whatever can be mended.
"""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import replace
from itertools import chain
from typing import Final, Protocol

from patterns import Channel, Context, ContextError, ErrorGroup
from runtime.backoff import Backoff
from runtime.errors import DependencyUnavailable
from runtime.kafka_batch import Assigned, Batch, KafkaReadError
from runtime.kafka_consumer import KafkaConsumer
from runtime.logs import get_logger
from runtime.telemetry import TraceContext
from services.coupon_consumer.breaker import PoisonBreaker
from services.coupon_consumer.decode import Decoded, Poison, headers_of
from services.coupon_consumer.errors import OwnershipLostError, PoisonFloodError
from services.coupon_consumer.metrics import ConsumeMetrics
from services.coupon_consumer.position import Positions
from services.coupon_consumer.settings import BreakerSettings, RetrySettings
from services.coupon_consumer.store import Progress, Saved, Store, Work, save_by_halves

_log = get_logger(__name__)
_POISON_LINES: Final = 5

Batches = list[Batch[Decoded]]


class Handler(Protocol):
    """What becomes of what was read; `EventHandler` stores it."""

    async def handle(self, ctx: Context, work: Batches | Assigned) -> None: ...  # noqa: D102 - as there


async def consume_messages(
    ctx: Context, consumer: KafkaConsumer[Decoded], handler: Handler, *, batch_records: int
) -> None:
    """Read and handle until the context ends, which is a clean exit; a batch in hand is finished first.

    While one batch is stored the next is read and decoded, so that this process and the database work at the same time.

    Raises:
        KafkaReadError: The read failed, and not because of the context.
        OffsetOutOfRangeError: Records are gone that nobody has read.
    """
    ahead: Channel[Batches | Assigned | Exception] = Channel()
    try:
        async with ErrorGroup() as group:
            await group.go(_read_ahead, ctx, consumer, ahead, batch_records)
            async for work in ahead:
                if isinstance(work, Exception):
                    raise work
                ctx.raise_if_done()  # what was only read ahead is left to the partition's next owner
                await handler.handle(ctx, work)
    except ContextError:
        if not ctx.is_done:
            raise
    _log.info("Kafka consumer stopped")


async def _read_ahead(
    ctx: Context,
    consumer: KafkaConsumer[Decoded],
    ahead: Channel[Batches | Assigned | Exception],
    batch_records: int,
) -> None:
    """Read and decode until that ends; what ended it comes last, so that what was read before is handled first."""
    try:
        while True:
            work = await consumer.read(ctx, records_max=batch_records)
            if not isinstance(work, Assigned):
                for batch in work:
                    await batch.content.complete()
            await ahead.send(work)
    except (ContextError, KafkaReadError) as error:
        await ahead.send(error)


class EventHandler:
    """Stores what is read, tries again while a server is away, and says how that goes.

    A try is not cancelled by the context, so what is in hand is stored; it is bounded by `try_seconds`. The waits
    between tries are cancelled, and then the batch is left to the partition's next owner.
    """

    def __init__(
        self,
        consumer: KafkaConsumer[Decoded],
        store: Store,
        positions: Positions,
        metrics: ConsumeMetrics,
        *,
        retry: RetrySettings,
        breaker: BreakerSettings,
        try_seconds: float,
    ) -> None:
        self._consumer = consumer
        self._store = store
        self._positions = positions
        self._metrics = metrics
        self._backoff = Backoff(retry.first_seconds, retry.most_seconds)
        self._breaker = PoisonBreaker(breaker)
        self._breaker_backoff = Backoff(breaker.pause_first_seconds, breaker.pause_most_seconds)
        self._try_seconds = try_seconds
        self._failure: DependencyUnavailable | None = None
        self._wait_seconds = 0.0

    async def handle(self, ctx: Context, work: Batches | Assigned) -> None:
        """Place partitions, or store batches, however long it takes.

        Raises:
            ContextError: The context ended between two tries.
            OffsetOutOfRangeError: Records are gone that nobody has read.
        """
        if not isinstance(work, Assigned):
            await self._hold_back_flood(ctx)
        left: Batches | Assigned | None = work
        while left:
            left = await self._try(left)
            if left and self._wait_seconds:
                await ctx.run(asyncio.sleep(self._wait_seconds))

    async def _try(self, work: Batches | Assigned) -> Batches | Assigned | None:
        """Try once; return what is left to do."""
        try:
            async with asyncio.timeout(self._try_seconds):
                if isinstance(work, Assigned):
                    await self._place(work)
                    left: Batches | Assigned | None = None
                else:
                    left = await self._store_batches(work)
        except DependencyUnavailable as error:
            self._note_failure(error)
            return work
        except TimeoutError:
            # The work may be done all the same: then the next try finds its partitions moved on.
            asked = "kafka or postgres" if isinstance(work, Assigned) else "postgres"
            self._note_failure(DependencyUnavailable(asked, "no answer in time"))
            return work
        self._failure = None
        self._backoff.reset()
        self._wait_seconds = 0.0
        return left

    def _note_failure(self, error: DependencyUnavailable) -> None:
        self._failure = error
        self._wait_seconds = self._backoff.fail()
        self._metrics.tries_unavailable.inc()
        _log.warning("Waiting for a server", error=str(error), tries=self._backoff.failures)

    async def _place(self, assigned: Assigned) -> None:
        """Place what is still ours: a partition that was taken away since may be gone, and would never be placed."""
        owned = self._consumer.owned()
        ours = {partition: known for partition, known in assigned.generations.items() if owned.get(partition) == known}
        if ours:
            await self._positions.place(replace(assigned, generations=ours))

    async def _store_batches(self, batches: Batches) -> Batches | None:
        """Store what is still ours; return the rest if another member turns out to own some of it."""
        with self._consumer.working(batches):
            if not batches:
                return None
            try:
                await self._save(_work(self._positions.progress(batches), batches))
            except OwnershipLostError as error:
                self._metrics.tries_ownership_lost.inc()
                _log.warning("Ownership lost: another member stored these records", partitions=sorted(error.partitions))
                self._consumer.drop(batch for batch in batches if batch.partition in error.partitions)
                return [batch for batch in batches if batch.partition not in error.partitions]
            self._consumer.settle(batches)
        return None

    async def _save(self, work: Work) -> None:
        """Store work; whatever ends that, each part that is stored by then counts, and is not stored again."""
        began = time.perf_counter()
        parts: list[Work] = []

        def note(part: Work, saved: Saved) -> None:
            self._positions.advance(part.progress)
            self._metrics.saved(saved)
            parts.append(part)

        try:
            if work.progress:
                await save_by_halves(self._store, work, note)
        finally:
            self._note_poison(parts)
        self._metrics.done(records=len(work.rows) + len(work.poison), seconds=time.perf_counter() - began)

    def _note_poison(self, parts: Sequence[Work]) -> None:
        """Tell the breaker, and the log, what became of records: only now is known which of them Postgres refused."""
        poison = [each for part in parts for each in part.poison]
        if parts:
            self._breaker.observe(len(poison) + sum(len(part.rows) for part in parts), len(poison))
            self._metrics.breaker_open.set(self._breaker.is_open)
        _tell_of_poison(poison)

    async def _hold_back_flood(self, ctx: Context) -> None:
        if not self._breaker.is_open:
            self._breaker_backoff.reset()
            return
        seconds = self._breaker_backoff.fail()
        _log.error("Circuit breaker open: poison floods in", pause_seconds=round(seconds, 1))
        await ctx.run(asyncio.sleep(seconds))

    async def check(self) -> None:
        """Return when storing goes well, for readiness.

        Raises:
            PoisonFloodError: The circuit breaker is open.
            DependencyUnavailable: The last try failed.
        """
        if self._breaker.is_open:
            raise PoisonFloodError("too many of the last records cannot be stored")
        if self._failure is not None:
            raise DependencyUnavailable(self._failure.dependency, str(self._failure)) from self._failure


def _tell_of_poison(poison: Sequence[Poison]) -> None:
    """Write a line for the first few dead letters of a batch, with the trace each came from; the table has them all."""
    for each in poison[:_POISON_LINES]:
        values = [value for name, value in headers_of(each.record) or () if name == "traceparent"]
        trace = TraceContext.parse(values[0]) if values else None
        _log.warning(
            "Record dead-lettered",
            partition=each.record.partition(),
            offset=each.record.offset(),
            error_class=each.error_class,
            trace_id=trace.trace_id if trace is not None else None,
            others=max(0, len(poison) - _POISON_LINES),
        )


def _work(progress: Sequence[Progress], batches: Batches) -> Work:
    """Return what the batches hold, without what an earlier try stored."""
    contents = [batch.content for batch in batches]
    only = contents[0]
    work = (
        Work(progress, only.rows, only.records, only.poison)
        if len(contents) == 1
        else Work(
            progress,
            list(chain.from_iterable(content.rows for content in contents)),
            list(chain.from_iterable(content.records for content in contents)),
            list(chain.from_iterable(content.poison for content in contents)),
        )
    )
    begins = {step.partition: step.expected for step in progress}
    if any(batch.first_offset < begins.get(batch.partition, batch.next_offset) for batch in batches):
        return work.part(progress)
    return work
