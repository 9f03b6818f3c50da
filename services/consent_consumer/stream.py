"""Run one stream under a lease: begin where it stands, read, carry, and save how far it has come."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

from patterns import Context, ContextError, ErrorGroup
from runtime.logs import get_logger
from runtime.mongo import MongoDatabase
from services.consent_consumer.change_stream import ChangeReader, iterate_change_stream
from services.consent_consumer.collection_scan import CollectionScan
from services.consent_consumer.courier import Courier, Couriers
from services.consent_consumer.dead_letters import DeadLetters
from services.consent_consumer.errors import PositionLostError
from services.consent_consumer.lease import Lease
from services.consent_consumer.metrics import ConsentMetrics, StreamMetrics
from services.consent_consumer.patience import Patience
from services.consent_consumer.position import StreamLedger, StreamLedgerStatistics
from services.consent_consumer.resync import Resync
from services.consent_consumer.salesforce import Salesforce
from services.consent_consumer.settings import ConsentConsumerSettings
from services.consent_consumer.store import MongoConsentStore, Position
from services.consent_consumer.update import UPDATES

_log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Places:
    """Where a stream's changes come from and go to, and where it remembers them."""

    database: MongoDatabase
    store: MongoConsentStore
    scan: CollectionScan
    letters: DeadLetters
    salesforce: Salesforce
    metrics: ConsentMetrics


class ConsentStream:
    """One of the two streams, which may run again and again, under one lease after another."""

    def __init__(
        self,
        name: str,
        places: Places,
        settings: ConsentConsumerSettings,
        reach: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.name = name
        self._places = places
        self._settings = settings
        self._reach = reach
        self._ledger = StreamLedger(settings.in_flight_max)
        self._reader: ChangeReader | None = None
        self._couriers: Couriers | None = None
        self._stream_metrics = StreamMetrics(places.metrics, name)
        self._patience = Patience(self._stream_metrics, settings.retry)

    async def run(self, ctx: Context, lease: Lease) -> None:
        """Carry changes until the context ends, which is a clean exit; how far it came is saved before.

        Raises:
            ContextError: The context ended before the stream had begun.
            PositionLostError: The changes from its position on are gone, and the settings say that this is the end.
            LeaseLostError: Another instance may be at work.
        """
        try:
            await self._run(ctx, lease)
        finally:
            # What this run was waiting for, and what it held, says nothing of an instance that waits for the lease.
            self._ledger = StreamLedger(self._settings.in_flight_max)
            self._patience = Patience(self._stream_metrics, self._settings.retry)

    async def check(self) -> None:
        """Return when changes flow, or would if there were any, for readiness; also while another instance works.

        Raises:
            DependencyUnavailable: A server is away; its name says which.
        """
        self._patience.check()
        if self._reader is not None:
            self._reader.check()
        if self._couriers is not None:
            self._couriers.check()

    def statistics(self) -> StreamLedgerStatistics:
        """Return how much was read, and how much of it is not settled; nothing while no run is under way."""
        return self._ledger.statistics()

    async def _run(self, ctx: Context, lease: Lease) -> None:
        begin = await self._begin(ctx, lease)
        while True:
            try:
                await self._follow(ctx, lease, begin)
            except PositionLostError as error:
                if self._settings.on_lost_token == "fail":  # noqa: S105 - a resume token, no secret
                    raise
                _log.error("The position of a stream is lost: its collection is read anew", error=str(error))
                begin = await self._resync(ctx, lease)
            else:
                return

    async def _begin(self, ctx: Context, lease: Lease) -> Position:
        """Return where the stream stands, and give it a place to stand on if it never had one."""
        store = self._places.store
        position = await self._patience.ask(ctx, lambda: store.take_position(self.name, lease.fence))
        if position is not None:
            return position
        if self._settings.start == "resync":
            return await self._resync(ctx, lease)
        position = Position(await self._patience.ask(ctx, store.cluster_time), None)
        await self._patience.ask(ctx, lambda: store.save_position(self.name, position, lease.fence))
        _log.info("A stream begins with the changes from now on", stream=self.name)
        return position

    async def _follow(self, ctx: Context, lease: Lease, begin: Position) -> None:
        settings = self._settings
        self._ledger = StreamLedger(settings.in_flight_max, begin, unsaved_max=settings.in_flight_max)
        self._reader = ChangeReader(
            self._places.database,
            self.name,
            self._ledger,
            begin,
            events_max=settings.answer_events,
            retry=settings.retry,
        )
        self._couriers = couriers = self._build_couriers(lease)
        _log.info("Change stream started", stream=self.name)
        try:
            async with ErrorGroup(ctx) as group:
                await group.go(iterate_change_stream, group.ctx, self._reader, couriers)
                await group.go(couriers.carry, group.ctx)
                await group.go(self._keep_saving, group.ctx, lease)
        finally:
            self._reader = self._couriers = None
        await self._save(lease)  # what was settled by the last call in hand

    async def _resync(self, ctx: Context, lease: Lease) -> Position:
        """Carry the whole collection as it is, and mark what Salesforce has beyond it; return where changes begin."""
        settings = self._settings
        self._ledger = ledger = StreamLedger(settings.in_flight_max)
        self._couriers = couriers = self._build_couriers(lease)
        resync = Resync(
            self.name,
            self._places.scan,
            self._places.salesforce,
            self._places.letters,
            self._patience,
            retry=settings.retry,
            documents_max=settings.resync_documents,
        )
        _log.info("A collection is read as a whole", stream=self.name)
        try:
            with ctx.with_cancel() as carrying:
                async with ErrorGroup() as group:
                    await group.go(couriers.carry, carrying)
                    position = await resync.read(ctx, ledger, couriers)
                    await ctx.run(ledger.wait_settled())
                    carrying.cancel()
            marked = await resync.mark_deleted(ctx, position, lease)
        finally:
            self._couriers = None
        await self._patience.ask(ctx, lambda: self._places.store.save_position(self.name, position, lease.fence))
        _log.info("A collection was read as a whole", stream=self.name, marked_deleted=marked)
        return position

    async def _keep_saving(self, ctx: Context, lease: Lease) -> None:
        """Save how far the stream has come, again and again, and sooner where much is settled, until the context ends.

        While no save goes through, changes are carried up to the bound of what may be read again.
        """
        try:
            while True:
                await ctx.run(self._wait_due())
                await self._patience.ask(ctx, lambda: self._save(lease))
        except ContextError:
            if not ctx.is_done:
                raise

    async def _wait_due(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(self._settings.save_seconds):
                await self._ledger.wait_due()

    async def _save(self, lease: Lease) -> None:
        position = self._ledger.savable()
        if position is not None:
            await self._places.store.save_position(self.name, position, lease.fence)
            self._ledger.saved(position)

    def _build_couriers(self, lease: Lease) -> Couriers:
        settings = self._settings
        couriers = [
            Courier(
                partial(UPDATES[self.name], self._places.salesforce),
                self._ledger,
                self._places.letters,
                lease,
                self._stream_metrics,
                retry=settings.retry,
                events_max=settings.batch_events,
                reach=self._reach,
            )
            for _ in range(settings.calls_max)
        ]
        return Couriers(couriers, settings.in_flight_max)  # which the ledger bounds, so that reading goes on
