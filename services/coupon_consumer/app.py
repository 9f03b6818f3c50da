"""Wire the consumer: the only place where its parts meet. The twin of the original's main.go.

Reading goes on in the background, `select` waits for its error or for a signal, and `kafka_shutdown` ends the context
that the read looks at; then everything is closed in order.
"""

import asyncio
import gc
import sys
from dataclasses import dataclass
from typing import Final

from patterns import Channel, Context, WaitGroup, receive, select
from runtime.background import raise_reported, run_reporting
from runtime.clean_up import Cleaner, CleanUpMetrics, Kept
from runtime.crash_point import CrashPoints
from runtime.kafka_client import ClientConfig, client_config
from runtime.kafka_consumer import KafkaConsumer
from runtime.kafka_topic import KafkaTopic
from runtime.logs import get_logger
from runtime.metrics import StatisticsCollector, registry
from runtime.postgres import PostgresPool, expose_pool, open_pool
from runtime.process import Process
from services.coupon_consumer.consume import EventHandler, consume_messages
from services.coupon_consumer.dead_letters import DeadLetters
from services.coupon_consumer.decode import Decoded
from services.coupon_consumer.metrics import ConsumeMetrics
from services.coupon_consumer.position import Positions
from services.coupon_consumer.settings import CouponConsumerSettings
from services.coupon_consumer.store import CouponStore
from services.coupon_consumer.watch import Watch

CRASH_POINTS: Final = ("after-poll", "after-insert", "after-commit", "before-kafka-commit", "in-revoke")

_READER_COUNTERS: Final = frozenset(
    {"polls", "records", "records_dropped", "assigned", "revoked", "lost", "commits_failed", "errors"}
)

# The thread takes records while the loop waits for Postgres; at the default of 5 ms each answer would reach the loop
# that much later.
_SWITCH_SECONDS: Final = 0.0005

# The records of the batches in flight are objects by the thousand, none of them garbage that only a collector finds; at
# the default of 700 it walked them so often that it took a quarter of this process's time.
_COLLECT_AFTER: Final = 100_000

_log = get_logger("coupon_consumer")


@dataclass(frozen=True, slots=True)
class Parts:
    """What `Application.run` starts and stops."""

    consumer: KafkaConsumer[Decoded]
    handler: EventHandler
    watch: Watch
    cleaner: Cleaner


class Application:
    """One member of the consumer group, from its first wait to its last closed connection."""

    def __init__(self, settings: CouponConsumerSettings) -> None:
        self._settings = settings
        self._points = CrashPoints(settings.crash, CRASH_POINTS)

    async def run(self, process: Process) -> None:
        """Consume until a signal comes or the reading fails; either way everything is closed in order.

        Raises:
            DependencyUnavailable: Postgres or the topic did not answer in time; the message has the last error.
            ContextCancelled: A signal came while they were awaited.
            KafkaReadError, OffsetOutOfRangeError: What ended the reading.
        """
        settings = self._settings
        async with open_pool(settings.postgres, application_name=settings.service) as pool:
            _log.info("Waiting for the database and the topic", seconds=settings.startup_seconds)
            await pool.wait_for_connection(process.startup)
            name = f"{settings.service}-{settings.instance}"
            client_settings = await asyncio.to_thread(client_config, settings.kafka, name=name)
            topic = KafkaTopic(client_settings, settings.consumer.topic)
            await topic.wait_for_topic(process.startup)
            parts = self._build(process, pool, topic, client_settings)

            consumer_errors: Channel[BaseException] = Channel(1)
            shutdown = process.shutdown
            kafka_ctx = process.ctx.with_cancel()
            kafka_shutdown = kafka_ctx.cancel
            background = self._start(kafka_ctx, parts, consumer_errors)
            try:
                process.health.set_ready()
                _log.info("Kafka consumer started", topic=settings.consumer.topic, group=settings.consumer.group)

                failed, stop = receive(consumer_errors), receive(shutdown)
                # In Go's original a failed read was logged and tried again at once, for ever; here it ends the process.
                if await select(failed, stop) is failed:
                    _log.error("Kafka consumer failed", error=repr(failed.value))
                    kafka_shutdown()
                    await self.graceful_shutdown(process, parts, background, pool)
                    raise failed.value
                _log.info("Received shutdown signal", signal=stop.value.name)
                kafka_shutdown()
                await self.graceful_shutdown(process, parts, background, pool)
                raise_reported(consumer_errors)  # the last batch may fail, or leaving the group
                process.ctx.raise_if_done()  # a stop that was forced did not complete
                _log.info("Application shutdown completed")
            finally:  # a forced stop cancels this function wherever it waits
                kafka_shutdown()

    async def graceful_shutdown(
        self, process: Process, parts: Parts, background: WaitGroup, pool: PostgresPool
    ) -> None:
        """Stop in order, under what is left of the grace period: the batch in hand, the group, the pool."""

        async def close_pool() -> None:
            await pool.aclose(self._settings.postgres.close_timeout_seconds)

        process.health.set_draining()
        await process.stop.run(
            ("batch in hand", background.wait), ("kafka group", parts.consumer.aclose), ("postgres", close_pool)
        )

    def _build(self, process: Process, pool: PostgresPool, topic: KafkaTopic, client_settings: ClientConfig) -> Parts:
        settings = self._settings
        place = {"group": settings.consumer.group, "topic": settings.consumer.topic}
        metrics = ConsumeMetrics(registry)
        store = CouponStore(pool, **place, reach=self._points.reach)
        consumer = KafkaConsumer(settings.consumer, client_settings, Decoded, reach=self._points.reach)
        positions = Positions(consumer, store, topic, settings.start)
        handler = EventHandler(
            consumer,
            store,
            positions,
            metrics,
            retry=settings.retry,
            breaker=settings.breaker,
            try_seconds=settings.try_timeout_seconds,
        )
        watch = Watch(
            consumer,
            positions,
            store,
            topic,
            metrics,
            check_seconds=settings.check_seconds,
            down_seconds=settings.broker_down_seconds,
        )
        process.health.add_check("postgres", pool.check)
        process.health.add_check("kafka", watch.check)
        process.health.add_check("polling", consumer.check)
        process.health.add_check("storing", handler.check)
        expose_pool(pool)
        registry.register(
            StatisticsCollector("kafka_consumer", lambda: consumer.statistics().reader, counters=_READER_COUNTERS)
        )
        registry.register(
            StatisticsCollector("kafka_ledger", lambda: consumer.statistics().ledger, counters=frozenset())
        )
        old_letters = Kept("dead letters", DeadLetters(pool, **place).remove_old, settings.dead_letters.keep_seconds)
        cleaner = Cleaner(settings.dead_letters, old_letters, metrics=CleanUpMetrics(registry))
        return Parts(consumer, handler, watch, cleaner)

    def _start(self, ctx: Context, parts: Parts, consumer_errors: Channel[BaseException]) -> WaitGroup:
        """Start the thread and the jobs beside it; what any of them cannot live with goes to `consumer_errors`."""

        async def consume(ctx: Context) -> None:
            await consume_messages(ctx, parts.consumer, parts.handler, batch_records=self._settings.batch_records)

        sys.setswitchinterval(_SWITCH_SECONDS)
        gc.freeze()
        gc.set_threshold(_COLLECT_AFTER)
        parts.consumer.start(ctx)
        background = WaitGroup()
        for work in (consume, parts.watch.run, parts.cleaner.run):
            background.go(run_reporting, consumer_errors, work, ctx)
        return background
