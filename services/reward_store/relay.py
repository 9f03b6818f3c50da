"""Publish what the outbox holds: claim, publish, settle, and again.

    claim (a committed lease) --> the broker's word for each record --> settle (one statement for all)

No transaction is open and no connection is held while the broker is awaited. A record may reach the topic twice, when
this process dies between the broker's word and `settle`; it never fails to reach it, and consumers skip the second one
by its version. Any number of relays may run at once, in one process or in many.

In Go this would be a goroutine around a ticker; here the loop also wakes when this process commits an event.
"""

import asyncio
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Final, Protocol
from uuid import UUID

from patterns import Channel, Context, WouldBlock, receive, select
from runtime.backoff import Backoff
from runtime.errors import DependencyUnavailable
from runtime.kafka_producer import Delivery, Outcome, Record
from runtime.logs import get_logger
from services.reward_store.metrics import RelayMetrics
from services.reward_store.outbox import Claim, Outbox, OutboxRow
from services.reward_store.settings import RelaySettings

_RELEASE_SECONDS: Final = 1.0

_log = get_logger(__name__)


class Producer(Protocol):
    """Whoever brings records to the broker."""

    async def publish_many(self, records: Sequence[Record]) -> list[Outcome]:
        """Publish records and return the broker's word for each, in their order: a Delivery, or what went wrong."""


class Relay:
    """One loop from the outbox to the topic; bound to the event loop that runs it.

    Args:
        outbox: where the rows are.
        producer: where they go.
        settings: bounds and times.
        metrics: what it tells about itself.
        reach: called with the name of each crash point that is passed.
    """

    def __init__(
        self,
        outbox: Outbox,
        producer: Producer,
        settings: RelaySettings,
        metrics: RelayMetrics,
        reach: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._outbox = outbox
        self._producer = producer
        self._settings = settings
        self._metrics = metrics
        self._reach = reach
        self._nudges: Channel[None] = Channel(1)
        self._lease = timedelta(seconds=settings.lease_seconds)
        self._unmarked: list[UUID] = []

    def nudge(self) -> None:
        """Say that an event was committed, so that it need not wait for the next poll; never waits."""
        try:
            self._nudges.send_nowait(None)
        except WouldBlock:
            return  # the relay has been told and has not looked yet: one look will find both

    async def run(self, ctx: Context) -> None:
        """Publish until the context ends; then nothing new is claimed, and the batch in hand is finished.

        A database or broker that cannot do its work now is tried again, ever more slowly; any other error ends
        the relay and is the caller's to report. A cancel hands the batch's unpublished rows back.
        """
        settings = self._settings
        backoff = Backoff(settings.backoff_first_seconds, settings.backoff_most_seconds)
        while not ctx.is_done:
            try:
                claimed = await self.publish_batch()
            except DependencyUnavailable as error:
                pause = round(backoff.fail(), 3)
                self._metrics.failures.inc()
                _log.warning("Publishing failed", error=str(error), failures=backoff.failures, retry_seconds=pause)
                await select(receive(ctx.done), timeout_seconds=pause)
                continue
            backoff.reset()
            if claimed < settings.batch_rows:
                await select(receive(ctx.done), receive(self._nudges), timeout_seconds=settings.poll_interval_seconds)

    async def publish_batch(self) -> int:
        """Claim one batch, publish it and mark it, and return how many rows it had.

        Raises:
            DependencyUnavailable: the database or the broker failed; rows without the broker's word are handed back.
                What the broker took and the database could not mark is marked first thing next time.
        """
        await self._mark()
        claim = await self._outbox.claim(self._settings.batch_rows, self._lease)
        if not claim.rows:
            return 0
        self._reach("after-claim")
        try:
            outcomes = await self._producer.publish_many([_record(row) for row in claim.rows])
        except BaseException:  # a cancel, in most cases: what was sent already will be sent again
            await self._hand_back(claim, [row.id for row in claim.rows])
            raise
        words = list(zip(claim.rows, outcomes, strict=True))
        self._unmarked = [row.id for row, word in words if isinstance(word, Delivery)]
        if self._unmarked:
            self._reach("after-publish")
        refused = [(row, word) for row, word in words if not isinstance(word, Delivery | DependencyUnavailable)]
        put_off = [(row.id, word) for row, word in words if isinstance(word, DependencyUnavailable)]
        if refused:
            await self._refuse(claim, refused)
        if put_off:
            await self._hand_back(claim, [row_id for row_id, _ in put_off])
        await self._mark()
        if put_off:
            raise put_off[0][1]
        return len(claim.rows)

    async def _refuse(self, claim: Claim, refused: Sequence[tuple[OutboxRow, Exception]]) -> None:
        """Tell of rows that the broker will never take, and try them ever more seldom; else when their lease ends."""
        self._metrics.refused.inc(len(refused))
        for row, error in refused:
            _log.error("An event cannot be published", event_id=str(row.id), topic=row.topic, error=str(error))
        most = timedelta(seconds=self._settings.refused_most_seconds)
        try:
            async with asyncio.timeout(_RELEASE_SECONDS):
                await self._outbox.put_off(claim, [row.id for row, _ in refused], self._lease, most)
        except (DependencyUnavailable, TimeoutError) as error:
            _log.warning("Rows could not be put off", rows=len(refused), error=str(error))

    async def _mark(self) -> None:
        """Mark what the broker has taken, also what an earlier batch could not mark: else it would be sent again."""
        if self._unmarked:
            await self._outbox.settle(self._unmarked)
            self._metrics.published.inc(len(self._unmarked))
            self._unmarked = []

    async def _hand_back(self, claim: Claim, ids: list[UUID]) -> None:
        """Give up the lease on what was not published; should that fail, the lease ends by itself."""
        try:
            async with asyncio.timeout(_RELEASE_SECONDS):
                await self._outbox.release(claim, ids)
        except (DependencyUnavailable, TimeoutError) as error:
            _log.warning("Rows could not be handed back", rows=len(ids), error=str(error))

    async def measure(self, ctx: Context) -> None:
        """Count the backlog now and then, until the context ends."""
        while not ctx.is_done:
            try:
                backlog = await self._outbox.backlog()
            except DependencyUnavailable:
                self._metrics.unknown()
            else:
                self._metrics.show(backlog)
            await select(receive(ctx.done), timeout_seconds=self._settings.measure_interval_seconds)


def _record(row: OutboxRow) -> Record:
    headers = tuple((name, text.encode()) for name, text in row.headers.items())
    return Record(row.topic, row.key.encode(), row.payload, headers)
