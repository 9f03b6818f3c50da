"""Wire coupon_api: the only place where its parts meet. The twin of the original's main.go."""

import asyncio

from patterns import Channel, receive, select
from runtime.api import build_api
from runtime.auth import TokenVerifier
from runtime.background import raise_reported, run_reporting
from runtime.clean_up import Cleaner, CleanUpMetrics, Kept
from runtime.crash_point import CrashPoints
from runtime.http_metrics import HttpMetrics
from runtime.http_server import HttpServer
from runtime.logs import get_logger
from runtime.metrics import StatisticsCollector, registry
from runtime.postgres import PostgresPool, expose_pool, open_pool
from runtime.process import Process
from services.coupon_api.routes import DOMAIN_ERRORS, build_coupon_router
from services.coupon_api.settings import CouponApiSettings
from services.coupon_api.store import CRASH_POINTS, PostgresCouponStore
from services.coupon_api.trace import Tracer

_log = get_logger("coupon_api")


class Application:
    """The service from its first wait to its last closed connection."""

    def __init__(self, settings: CouponApiSettings) -> None:
        self._settings = settings
        self._tracer = Tracer(settings.trace_capacity)
        self._crash_points = CrashPoints(settings.crash, CRASH_POINTS)

    async def run(self, process: Process) -> None:
        """Serve until a signal comes or the server fails; either way everything is closed in order.

        Raises:
            DependencyUnavailable: The database did not answer in time; the message has its last error.
            ContextCancelled: A signal came while the database was awaited.
            OSError: The port is in use, or whatever else the server or the clean-up ended with.
        """
        settings = self._settings
        metrics = HttpMetrics(registry)
        verifier = TokenVerifier(settings.auth)
        async with open_pool(settings.postgres, application_name=settings.service) as pool:
            expose_pool(pool)
            registry.register(StatisticsCollector("tracer", self._tracer.statistics, counters=frozenset({"finished"})))
            _log.info("Waiting for the database", seconds=settings.startup_seconds)
            await pool.wait_for_connection(process.startup)
            process.health.add_check("postgres", pool.check)

            store = PostgresCouponStore(pool, self._tracer, self._crash_points.reach)
            api = build_api(
                title="coupon_api",
                settings=settings.http,
                verifier=verifier,
                routers=[build_coupon_router(store)],
                domain_errors=DOMAIN_ERRORS,
                metrics=metrics,
            )
            server = HttpServer(api, settings.http, process.health)
            metrics.watch_server(server.statistics)
            old_keys = Kept("idempotency keys", store.delete_old_keys, settings.idempotency.keep_seconds)
            cleaner = Cleaner(settings.idempotency, old_keys, metrics=CleanUpMetrics(registry))

            server_errors: Channel[BaseException] = Channel(1)
            shutdown = process.shutdown
            server.start(server_errors)
            cleaning = asyncio.create_task(run_reporting(server_errors, cleaner.run, process.stop.ctx), name="clean-up")
            try:
                process.health.set_ready()
                _log.info("Starting HTTP server", host=server.address[0], port=server.address[1])

                failed, stop = receive(server_errors), receive(shutdown)
                # Go's original calls Fatal in the first branch, past all deferred calls; here both lead to the stop.
                if await select(failed, stop) is failed:
                    _log.error("Server failed", error=repr(failed.value))
                    await self.graceful_shutdown(process, cleaning, server, pool)
                    raise failed.value
                _log.info("Received shutdown signal", signal=stop.value.name)
                await self.graceful_shutdown(process, cleaning, server, pool)
                raise_reported(server_errors)  # the original reads the channel no more, and ends with 0
                process.ctx.raise_if_done()  # a stop that was forced did not complete
                _log.info("Application shutdown completed")
            finally:  # a forced stop cancels this function wherever it waits
                cleaning.cancel()
                server.close()

    async def graceful_shutdown(
        self, process: Process, cleaning: "asyncio.Task[None]", server: HttpServer, pool: PostgresPool
    ) -> None:
        """Stop in order, under what is left of the grace period: the clean-up, then HTTP, then the pool it all used."""

        async def stop_cleaning() -> None:
            cleaning.cancel()
            await asyncio.wait({cleaning})

        async def close_pool() -> None:
            await pool.aclose(self._settings.postgres.close_timeout_seconds)

        process.health.set_draining()
        await process.stop.run(("clean-up", stop_cleaning), ("http server", server.drain), ("postgres", close_pool))
