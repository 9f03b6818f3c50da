"""Wire reward_store: the only place where its parts meet. The twin of the original's main.go."""

import asyncio
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Final

from patterns import Channel, receive, select
from runtime.api import build_api
from runtime.auth import TokenVerifier
from runtime.background import Work, raise_reported, run_reporting
from runtime.clean_up import Cleaner, CleanUpMetrics, Kept
from runtime.crash_point import CrashPoints
from runtime.http_metrics import HttpMetrics
from runtime.http_server import HttpServer
from runtime.kafka_producer import KafkaProducer, open_producer
from runtime.logs import get_logger
from runtime.metrics import StatisticsCollector, registry
from runtime.postgres import PostgresPool, expose_pool, open_pool
from runtime.process import Process
from services.reward_store.canceller import Canceller
from services.reward_store.coupon_api import CouponApi, open_coupon_api
from services.reward_store.metrics import CancelMetrics, RelayMetrics
from services.reward_store.relay import Relay
from services.reward_store.routes import DOMAIN_ERRORS, build_routes
from services.reward_store.settings import RewardStoreSettings
from services.reward_store.store import PostgresOutbox, PostgresRewardStore

CRASH_POINTS: Final = (
    "after-begin",
    "after-key",
    "after-insert",
    "after-commit",
    "after-claim",
    "after-publish",
    "after-cancelling",
    "after-coupon-cancelled",
    "after-give-back",
    "after-cancelled",
)

_PRODUCER_COUNTERS: Final = frozenset({"delivered", "failed", "renewed"})

_log = get_logger("reward_store")


@dataclass(frozen=True, slots=True)
class _Parts:
    """What the service is made of, once everything is open."""

    pool: PostgresPool
    producer: KafkaProducer
    server: HttpServer
    background: dict[str, Work]


class Application:
    """The service from its first wait to its last closed connection.

    Only Postgres is awaited at the start, and only Postgres is part of readiness: with the broker or coupon_api away a
    member can still look and redeem, events wait in the outbox, and cancellations wait for the finisher. Taking all
    replicas out of service for that would make an outage of a delay.
    """

    def __init__(self, settings: RewardStoreSettings) -> None:
        self._settings = settings
        self._reach = CrashPoints(settings.crash, CRASH_POINTS).reach

    async def run(self, process: Process) -> None:
        """Serve and relay until a signal comes or something fails; either way everything is closed in order.

        Raises:
            DependencyUnavailable: The database did not answer in time; the message has its last error.
            ContextCancelled: A signal came while the database was awaited.
            OSError: The port is in use, or whatever else the server or the background work ended with.
        """
        settings = self._settings
        async with AsyncExitStack() as stack:
            pool = await stack.enter_async_context(open_pool(settings.postgres, application_name=settings.service))
            producer = await stack.enter_async_context(open_producer(settings.kafka, name=settings.service))
            coupon_api = await stack.enter_async_context(open_coupon_api(settings.coupon_api))
            _log.info("Waiting for the database", seconds=settings.startup_seconds)
            await pool.wait_for_connection(process.startup)
            process.health.add_check("postgres", pool.check)
            parts = self._build(process, pool, producer, coupon_api)
            server = parts.server

            server_errors: Channel[BaseException] = Channel(1)
            shutdown = process.shutdown
            working = stack.enter_context(process.stop.ctx.with_cancel())
            server.start(server_errors)
            tasks = [
                asyncio.create_task(run_reporting(server_errors, work, working), name=name)
                for name, work in parts.background.items()
            ]
            try:
                process.health.set_ready()
                _log.info("Starting HTTP server", host=server.address[0], port=server.address[1])

                failed, stop = receive(server_errors), receive(shutdown)
                # Go's original calls Fatal in the first branch, past all deferred calls; here both lead to the stop.
                if await select(failed, stop) is failed:
                    _log.error("Server failed", error=repr(failed.value))
                    working.cancel(failed.value)
                    await self.graceful_shutdown(process, parts, tasks)
                    raise failed.value
                _log.info("Received shutdown signal", signal=stop.value.name)
                await self.graceful_shutdown(process, parts, tasks)
                raise_reported(server_errors)  # the original reads the channel no more, and ends with 0
                process.ctx.raise_if_done()  # a stop that was forced did not complete
                _log.info("Application shutdown completed")
            finally:  # a forced stop cancels this function wherever it waits
                for task in tasks:
                    task.cancel()
                server.close()

    async def graceful_shutdown(self, process: Process, parts: _Parts, tasks: list[asyncio.Task[None]]) -> None:
        """Stop in order, under what is left of the grace period.

        The background work has been told already and takes nothing new: it finishes its batch, or hands it back. Then
        HTTP drains, and then the connections are closed in the reverse order of their opening.
        """
        settings = self._settings

        async def finish_work() -> None:
            _, late = await asyncio.wait(tasks, timeout=settings.relay.finish_seconds)
            for task in late:
                task.cancel()
            if late:  # nothing is lost by it: what was not finished stands in the database for the next process
                _log.warning("Background work cut off", work=sorted(task.get_name() for task in late))
                await asyncio.wait(late)

        async def close_producer() -> None:
            await parts.producer.aclose(settings.kafka.flush_timeout_seconds)

        async def close_pool() -> None:
            await parts.pool.aclose(settings.postgres.close_timeout_seconds)

        process.health.set_draining()
        await process.stop.run(
            ("background work", finish_work),
            ("http server", parts.server.drain),
            ("kafka producer", close_producer),
            ("postgres", close_pool),
        )

    def _build(self, process: Process, pool: PostgresPool, producer: KafkaProducer, coupon_api: CouponApi) -> _Parts:
        settings, reach = self._settings, self._reach
        store = PostgresRewardStore(pool, settings.relay.topic, reach)
        outbox = PostgresOutbox(pool)
        relay = Relay(outbox, producer, settings.relay, RelayMetrics(registry), reach)
        canceller = Canceller(store, coupon_api, settings.cancel, CancelMetrics(registry), reach)
        cleaner = Cleaner(
            settings.clean_up,
            Kept("idempotency keys", store.delete_old_keys, settings.clean_up.keep_keys_seconds),
            Kept("outbox rows", outbox.delete_published, settings.clean_up.keep_outbox_seconds),
            metrics=CleanUpMetrics(registry),
        )
        http_metrics = HttpMetrics(registry)
        api = build_api(
            title="reward_store",
            settings=settings.http,
            verifier=TokenVerifier(settings.auth),
            routers=[build_routes(store, canceller, relay.nudge)],
            domain_errors=DOMAIN_ERRORS,
            metrics=http_metrics,
        )
        server = HttpServer(api, settings.http, process.health)
        http_metrics.watch_server(server.statistics)
        expose_pool(pool)
        registry.register(StatisticsCollector("kafka_producer", producer.statistics, counters=_PRODUCER_COUNTERS))
        background: dict[str, Work] = {
            "relay": relay.run,
            "backlog": relay.measure,
            "finisher": canceller.run,
            "clean-up": cleaner.run,
        }
        return _Parts(pool, producer, server, background)
