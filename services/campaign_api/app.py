"""Wire campaign_api: the only place where its parts meet. The twin of the original's main.go."""

from patterns import Channel, receive, select
from runtime.api import build_api
from runtime.auth import TokenVerifier
from runtime.background import raise_reported
from runtime.crash_point import CrashPoints
from runtime.dependency import wait_for_dependency
from runtime.http_metrics import HttpMetrics
from runtime.http_server import HttpServer
from runtime.logs import get_logger
from runtime.metrics import registry
from runtime.mongo import MongoDatabase, expose_mongo
from runtime.mongo_error import DEPENDENCY
from runtime.process import Process
from services.campaign_api.mongo import Mongo
from services.campaign_api.routes import DOMAIN_ERRORS, build_campaign_routers
from services.campaign_api.settings import CampaignApiSettings
from services.campaign_api.store import CRASH_POINTS, MongoCampaignStore

_log = get_logger("campaign_api")


class Application:
    """The service from its first wait to its last closed connection."""

    def __init__(self, settings: CampaignApiSettings) -> None:
        self._settings = settings
        self._mongo = Mongo(settings.mongo, application_name=settings.service)
        self._crash_points = CrashPoints(settings.crash, CRASH_POINTS)

    async def run(self, process: Process) -> None:
        """Serve until a signal comes or the server fails; either way everything is closed in order.

        Raises:
            DependencyUnavailable: The database did not answer in time; the message has its last error.
            IndexConflictError: An index is there in another form; the message names it.
            ContextCancelled: A signal came while the database was awaited.
            OSError: The port is in use, or whatever else the server ended with.
        """
        settings = self._settings
        instance = await self._mongo.connect()  # builds; to reach the server is the wait below
        database = instance.database
        try:
            expose_mongo(database)
            _log.info("Waiting for the database", seconds=settings.startup_seconds)
            await database.wait_for_connection(process.startup)
            store = MongoCampaignStore(database, settings.keep_keys_seconds, self._crash_points.reach)
            await wait_for_dependency(process.startup, store.create_indexes, dependency=DEPENDENCY)
            process.health.add_check(DEPENDENCY, database.check)
            await self._serve(process, database, store)
        finally:
            await database.aclose()

    async def _serve(self, process: Process, database: MongoDatabase, store: MongoCampaignStore) -> None:
        settings = self._settings
        metrics = HttpMetrics(registry)
        api = build_api(
            title="campaign_api",
            settings=settings.http,
            verifier=TokenVerifier(settings.auth),
            routers=build_campaign_routers(store),
            domain_errors=DOMAIN_ERRORS,
            metrics=metrics,
        )
        server = HttpServer(api, settings.http, process.health)
        metrics.watch_server(server.statistics)
        server_errors: Channel[BaseException] = Channel(1)
        shutdown = process.shutdown
        server.start(server_errors)
        try:
            process.health.set_ready()
            _log.info("Starting HTTP server", host=server.address[0], port=server.address[1])

            failed, stop = receive(server_errors), receive(shutdown)
            # Go's original calls Fatal in the first branch, past all deferred calls; here both lead to the stop.
            if await select(failed, stop) is failed:
                _log.error("Server failed", error=repr(failed.value))
                await self.graceful_shutdown(process, server, database)
                raise failed.value
            _log.info("Received shutdown signal", signal=stop.value.name)
            await self.graceful_shutdown(process, server, database)
            raise_reported(server_errors)  # the original reads the channel no more, and ends with 0
            process.ctx.raise_if_done()  # a stop that was forced did not complete
            _log.info("Application shutdown completed")
        finally:  # a forced stop cancels this function wherever it waits
            server.close()

    async def graceful_shutdown(self, process: Process, server: HttpServer, database: MongoDatabase) -> None:
        """Stop in order, under what is left of the grace period: HTTP, then the database it all used."""
        process.health.set_draining()
        await process.stop.run(("http server", server.drain), (DEPENDENCY, database.aclose))
