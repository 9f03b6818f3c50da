"""Wire the consumer: the only place where its parts meet. The twin of the original's main.go and of its db/db.go.

There, two goroutines iterate two streams under one context and one wait group. A wait group only waits: when one stream
ends, for whatever reason, the other goes on, and the process is half dead with nobody told. Here the two share an error
group: the first that fails takes the other with it, and the process ends with an error, to be started again.
"""

import gc
from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import Final

from patterns import Channel, Context, ContextError, ErrorGroup, WaitGroup, receive, select
from runtime.background import raise_reported, run_reporting
from runtime.clean_up import Cleaner, CleanUpMetrics, Kept
from runtime.crash_point import CrashPoints
from runtime.dependency import wait_for_dependency
from runtime.logs import get_logger
from runtime.metrics import StatisticsCollector, registry
from runtime.mongo import MongoDatabase, expose_mongo, open_mongo
from runtime.mongo_error import DEPENDENCY
from runtime.process import Process
from services.consent_consumer.change_stream import CONSENT_DETAIL, CONSENT_MASTER
from services.consent_consumer.collection_scan import MongoCollectionScan
from services.consent_consumer.dead_letters import MongoDeadLetters
from services.consent_consumer.errors import LeaseLostError
from services.consent_consumer.lease import Lease, LeaseKeeper
from services.consent_consumer.metrics import ConsentMetrics
from services.consent_consumer.salesforce import Salesforce, open_salesforce
from services.consent_consumer.settings import ConsentConsumerSettings
from services.consent_consumer.store import CRASH_POINTS as STORE_CRASH_POINTS
from services.consent_consumer.store import MongoConsentStore
from services.consent_consumer.stream import ConsentStream, Places
from services.consent_consumer.watch import Watch

CRASH_POINTS: Final = (*STORE_CRASH_POINTS, "after-read", "before-call", "after-call")
_STREAMS: Final = (CONSENT_MASTER, CONSENT_DETAIL)

# The changes in hand are objects by the ten thousand, none of them garbage that only a collector finds; at the default
# of 700 it walked them so often that it took an eighth of this process's time.
_COLLECT_AFTER: Final = 100_000

_log = get_logger("consent_consumer")


class Application:
    """One instance, at work or waiting for the lease, from its first wait to its last closed connection."""

    def __init__(self, settings: ConsentConsumerSettings) -> None:
        self._settings = settings
        self._points = CrashPoints(settings.crash, CRASH_POINTS)

    async def run(self, process: Process) -> None:
        """Carry consents until a signal comes or a stream fails; either way everything is closed in order.

        Raises:
            DependencyUnavailable: The database did not answer in time; the message has its last error.
            IndexConflictError: An index is there in another form; the message names it.
            ContextCancelled: A signal came while the database was awaited.
            PositionLostError: A stream cannot go on, and the settings say that this is the end.
            LeaseLostError: How far the streams came last could not be saved before a stop.
        """
        settings = self._settings
        async with AsyncExitStack() as stack:
            _log.info("Waiting for the database", seconds=settings.startup_seconds)
            database = await stack.enter_async_context(
                open_mongo(process.startup, settings.mongo, application_name=settings.service)
            )
            store = MongoConsentStore(database, self._points.reach)
            await wait_for_dependency(process.startup, store.create_indexes, dependency=DEPENDENCY)
            letters = MongoDeadLetters(database, self._points.reach)
            salesforce = await stack.enter_async_context(open_salesforce(settings.salesforce))
            metrics = ConsentMetrics(registry)
            places = Places(database, store, MongoCollectionScan(database), letters, salesforce, metrics)
            streams = [ConsentStream(name, places, settings, self._points.reach) for name in _STREAMS]
            self._expose(process, database, streams)
            watch = Watch(store, letters, _STREAMS, metrics, check_seconds=settings.check_seconds)
            old_letters = Kept("dead letters", letters.remove_old, settings.dead_letters.keep_seconds)
            cleaner = Cleaner(settings.dead_letters, old_letters, metrics=CleanUpMetrics(registry))

            async def consume(ctx: Context) -> None:
                await self._consume(ctx, LeaseKeeper(store, settings.lease, settings.instance), streams)

            gc.freeze()
            gc.set_threshold(_COLLECT_AFTER)
            stream_errors: Channel[BaseException] = Channel(1)
            shutdown = process.shutdown
            with process.ctx.with_cancel() as routine_ctx:
                background = WaitGroup()
                for work in (consume, watch.run, cleaner.run):
                    background.go(run_reporting, stream_errors, work, routine_ctx)
                process.health.set_ready()

                failed, stop = receive(stream_errors), receive(shutdown)
                if await select(failed, stop) is failed:
                    _log.error("Change streams failed", error=repr(failed.value))
                    routine_ctx.cancel()
                    await self.graceful_shutdown(process, background, salesforce, database)
                    raise failed.value
                _log.info("Received shutdown signal", signal=stop.value.name)
                routine_ctx.cancel()
                await self.graceful_shutdown(process, background, salesforce, database)
                raise_reported(stream_errors)  # the last call may fail, or saving, or giving the lease back
                process.ctx.raise_if_done()  # a stop that was forced did not complete
                _log.info("Application shutdown completed")

    async def graceful_shutdown(
        self, process: Process, background: WaitGroup, salesforce: Salesforce, database: MongoDatabase
    ) -> None:
        """Stop in order, under what is left of the grace period: the calls in hand, the lease, the database."""
        process.health.set_draining()
        salesforce.close()
        await process.stop.run(("change streams", background.wait), ("mongo", database.aclose))

    async def _consume(self, ctx: Context, keeper: LeaseKeeper, streams: Sequence[ConsentStream]) -> None:
        """Wait for the lease, and work under it until the context ends or a stream fails.

        A lease that is lost ends the work, not the process: the database was away for longer than it, or this process
        slept, and another instance may be at work. So this one is the next that waits.

        Raises:
            LeaseLostError: It was lost during a stop, so what was settled last could not be saved.
            PositionLostError: as `run_streams`.
        """
        while not ctx.is_done:
            try:
                async with keeper.hold(ctx) as lease:
                    await run_streams(ctx, lease, streams)
            except LeaseLostError as error:
                if ctx.is_done:
                    raise
                _log.warning("Work ended with its lease: waiting for the next", reason=str(error))
            except ContextError:
                if not ctx.is_done:
                    raise

    def _expose(self, process: Process, database: MongoDatabase, streams: Sequence[ConsentStream]) -> None:
        process.health.add_check(DEPENDENCY, database.check)
        expose_mongo(database)
        for stream in streams:
            process.health.add_check(stream.name, stream.check)
            registry.register(
                StatisticsCollector(stream.name, stream.statistics, counters=frozenset({"registered", "settled"}))
            )


async def run_streams(ctx: Context, lease: Lease, streams: Sequence[ConsentStream]) -> None:
    """Run streams that share one fate, until the context ends.

    Raises:
        PositionLostError: A stream cannot go on; the others were ended.
        LeaseLostError: Another instance may be at work; all were ended.
        ContextError: The context ended before a stream had begun.
    """
    async with ErrorGroup(ctx) as group:
        for stream in streams:
            await group.go(stream.run, group.ctx, lease)
        await group.go(_watch_lease, group.ctx, lease)


async def _watch_lease(ctx: Context, lease: Lease) -> None:
    """End the group when the lease is lost, so that not even an idle stream outlives it."""
    lost, stop = receive(lease.lost.done), receive(ctx.done)
    if await select(lost, stop) is lost:
        raise LeaseLostError(str(lease.lost.cause))
