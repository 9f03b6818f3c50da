"""The whole platform on this machine: servers, databases, secrets, and the services as real processes."""

import asyncio
import contextlib
import os
import secrets
import socket
import sys
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from urllib.parse import unquote, urlsplit

from pydantic import SecretStr

from deploy.migrate import migrate
from deploy.settings import MigrateSettings, Password
from runtime.auth import sign_token
from sandbox.fleet import Fleet
from sandbox.http_client import HttpClient
from sandbox.instance import COUPON_FLOW, Instance, ProcessInstance, Service
from sandbox.load import Load, ProcessLoad
from sandbox.mongo_servers import MongoServers, open_mongo_servers
from sandbox.roles import ROLES, refuse_foreign_roles, role_password, write_secret
from sandbox.servers import KafkaServer, PostgresServer, Program, ServerError, open_kafka, open_postgres, start_process
from sandbox.servers.address import LOOPBACK, free_port
from sandbox.world import MongoSide

ROOT = Path(__file__).resolve().parents[1]
PARTITIONS = 6
_TOKEN_SECRET = "token-secret"  # noqa: S105 - a file's name
_READY_SECONDS = 60.0
_GRACE_SECONDS = 30.0
_BACKLOG = 1_024
_OPERATOR_LIFETIME_SECONDS = 7 * 86_400
_STEP_DOWN_SECONDS = 3


class System(Fleet[ProcessInstance]):
    """Running servers, and the services that were started on them.

    The instances of a service that serves HTTP share one listening socket, which belongs to this process: while one
    instance is replaced by another, connections wait in it instead of being refused.

    Attributes:
        postgres_port: where services that are started find Postgres; tests put a proxy in between.
        mongo_servers: MongoDB and Salesforce, where a service of this platform needs them.
        services: which services are part of it.
    """

    def __init__(
        self, directory: Path, postgres: PostgresServer, kafka: KafkaServer, mongo_servers: MongoServers | None = None
    ) -> None:
        super().__init__(_GRACE_SECONDS)
        self.directory = directory
        self.postgres = postgres
        self.kafka = kafka
        self.mongo_servers = mongo_servers
        self.services = COUPON_FLOW if mongo_servers is None else tuple(Service)
        self.client = HttpClient()
        self.postgres_port = postgres.port
        # In a server started here everything is ours; in one that was named, each run gets names of its own.
        run = "" if postgres.is_ours and kafka.is_ours else f"_{secrets.token_hex(4)}"
        self.rewards_database = f"rewards{run}"
        self.coupons_database = f"coupons{run}"
        self.topic = f"coupon-events{run.replace('_', '-')}"
        self._listeners: dict[Service, socket.socket] = {}
        self._counts: Counter[Service] = Counter()
        self._loads = 0

    @property
    def rewards_url(self) -> str:
        """The database `rewards`, for the superuser."""
        return self.postgres.url(self.rewards_database)

    @property
    def coupons_url(self) -> str:
        """The database `coupons`, for the superuser."""
        return self.postgres.url(self.coupons_database)

    @property
    def mongo_side(self) -> MongoSide | None:
        """MongoDB, for the superuser and for the members' apps, and Salesforce; None where no service needs them."""
        return None if self.mongo_servers is None else self.mongo_servers.side

    def base_url(self, service: Service) -> str:
        """Return the address on which members reach a service."""
        return f"http://{LOOPBACK}:{self._listeners[service].getsockname()[1]}"

    def token(self, subject: str, /, *, is_operator: bool = False, lifetime_seconds: int = 86_400) -> str:
        """Return a bearer token that the services accept."""
        secret = secret_file(self.directory).read_text()
        return sign_token(subject, "operator" if is_operator else "member", secret, lifetime_seconds=lifetime_seconds)

    async def prepare(self) -> None:
        """Make the secrets, the databases with their roles and schemas, the topic and the listening sockets.

        Raises:
            ServerError: the named server is in use by another platform.
        """
        write_secret(self._file(_TOKEN_SECRET), secrets.token_urlsafe(48))
        for role in ROLES:
            write_secret(self._file(f"{role}-password"), role_password(self.postgres.superuser_url, role))
        write_secret(
            self._file("operator-token"),
            self.token("reward-store", is_operator=True, lifetime_seconds=_OPERATOR_LIFETIME_SECONDS),
        )
        for service in self.services:
            if service.serves_members:
                self._listeners[service] = _listen()
        if not self.postgres.is_ours:
            await refuse_foreign_roles(self.postgres.superuser_url)
        await migrate(self._migrate_settings())
        await self.kafka.create_topic(self.topic, partitions=PARTITIONS)

    async def start(self, service: Service, environment: Mapping[str, str] | None = None) -> ProcessInstance:
        """Start one more instance of a service and wait until it is ready.

        Args:
            service: which one.
            environment: settings on top of the ones that every instance gets; tests arm crash points by them.

        Raises:
            ServerError: it ended, or was not ready within 60 s.
        """
        instance = await self.launch(service, environment)
        await instance.wait_until_ready(_READY_SECONDS)
        return instance

    async def launch(self, service: Service, environment: Mapping[str, str] | None = None) -> ProcessInstance:
        """Start one more instance of a service without waiting for its readiness."""
        self._counts[service] += 1
        name = f"{service}-{self._counts[service]}"
        admin_port = free_port()
        listener = self._listeners.get(service)
        prefix = service.upper()
        process = await start_process(
            Program(
                name=name,
                command=[sys.executable, "-m", f"services.{service}"],
                log=self.directory / f"{name}.log",
                directory=ROOT,
                environment=_inherited()
                | self.environment(service)
                | {f"{prefix}_INSTANCE": name, f"{prefix}_ADMIN__PORT": str(admin_port)}
                | dict(environment or {}),
                grace_seconds=_GRACE_SECONDS,
                pass_descriptors=() if listener is None else (listener.fileno(),),
            )
        )
        base_url = None if listener is None else self.base_url(service)
        instance = ProcessInstance(name, service, base_url, f"http://{LOOPBACK}:{admin_port}", process)
        self.instances.append(instance)
        return instance

    def environment(self, service: Service) -> dict[str, str]:
        """Return the variables that every instance of a service gets."""
        return {f"{service.upper()}_{name}": value for name, value in self._settings(service).items()}

    def load_environment(self) -> dict[str, str]:
        """Return the variables that a load of files gets."""
        postgres = self._postgres_settings(self.coupons_database, "etl")
        return {f"ETL_{name}": value for name, value in postgres.items()}

    @contextlib.asynccontextmanager
    async def open_load(self, file: Path, rejects: Path, *options: str) -> AsyncIterator[Load]:
        """Begin to load a file of coupons; on leaving it has ended, by force if need be.

        Args:
            file: where it is.
            rejects: the directory with the reject files.
            options: what else `etl load` is told.

        Raises:
            ServerError: it did not start.
        """
        self._loads += 1
        name = f"etl-{self._loads}"
        command = [sys.executable, "-m", "etl", "load", str(file), "--rejects-directory", str(rejects), *options]
        process = await start_process(
            Program(
                name=name,
                command=command,
                log=self.directory / f"{name}.log",
                directory=ROOT,
                environment=_inherited() | self.load_environment() | {"ETL_INSTANCE": name, "ETL_LOG_FORMAT": "json"},
                grace_seconds=_GRACE_SECONDS,
            )
        )
        try:
            yield ProcessLoad(name, process)
        finally:
            await process.kill()
            process.release()

    async def replace(self, old: Instance) -> ProcessInstance:
        """Do a rolling restart of one instance: start the new one, wait until it is ready, then SIGTERM the old one.

        Raises:
            ServerError: the new one did not become ready; the old one goes on.
        """
        new = await self.start(old.service)
        await self.stop(old)
        return new

    async def step_mongo_down(self) -> None:
        """Make MongoDB's one node step down by force: for some seconds, until it is elected again, nobody can write.

        Raises:
            ServerError: the platform has no MongoDB.
        """
        if self.mongo_servers is None:
            raise ServerError("this platform has no MongoDB")
        await self.mongo_servers.mongo.step_down(_STEP_DOWN_SECONDS)

    async def kill_services(self) -> None:
        """Kill all instances at once, with no order and no grace."""
        await asyncio.gather(*(instance.process.kill() for instance in self.instances))

    async def aclose(self) -> None:
        """Stop what still runs and close the listening sockets."""
        try:
            await self.stop_services()
        finally:
            for instance in self.instances:
                instance.process.release()
            for listener in self._listeners.values():
                listener.close()
            await self.client.aclose()
        if not self.postgres.is_ours:
            await self.postgres.drop_database(self.rewards_database)
            await self.postgres.drop_database(self.coupons_database)
        if not self.kafka.is_ours:
            await self.kafka.delete_topic(self.topic)

    def _settings(self, service: Service) -> dict[str, str]:
        """Return the settings that every instance of a service gets, without their prefix."""
        settings = {"LOG_FORMAT": "json"}
        if service.serves_members:
            settings["AUTH__SECRET_FILE"] = str(secret_file(self.directory))
            settings["HTTP__LISTEN_FD"] = str(self._listeners[service].fileno())
        if service.needs_mongo:
            if self.mongo_servers is None:
                raise ServerError(f"this platform has no MongoDB for {service}")
            return settings | self.mongo_servers.settings(service)
        database = self.rewards_database if service is Service.REWARD_STORE else self.coupons_database
        settings |= self._postgres_settings(database, service.value)
        if service is not Service.COUPON_API:
            settings["KAFKA__BOOTSTRAP"] = self.kafka.bootstrap
        if service is Service.COUPON_CONSUMER:
            # The embedded broker lets every join take half of the session's timeout.
            settings["CONSUMER__SESSION_TIMEOUT_SECONDS"] = "6"
            settings["CONSUMER__TOPIC"] = self.topic
            settings["CHECK_SECONDS"] = "1"
        if service is Service.REWARD_STORE:
            settings["COUPON_API__URLS"] = self.base_url(Service.COUPON_API)
            settings["RELAY__TOPIC"] = self.topic
            settings["COUPON_API__TOKEN_FILE"] = str(self._file("operator-token"))
        return settings

    def _postgres_settings(self, database: str, role: str) -> dict[str, str]:
        return {
            "POSTGRES__HOST": self.postgres.host,
            "POSTGRES__PORT": str(self.postgres_port),
            "POSTGRES__DATABASE": database,
            "POSTGRES__USER": role,
            "POSTGRES__PASSWORD_FILE": str(self._file(f"{role}-password")),
        }

    def _migrate_settings(self) -> MigrateSettings:
        server = urlsplit(self.postgres.superuser_url)
        return MigrateSettings(
            host=self.postgres.host,
            port=self.postgres.port,
            user=unquote(server.username or "postgres"),
            password=Password(value=SecretStr(unquote(server.password))) if server.password else None,
            lp_owner_password=Password(file=self._file("lp_owner-password")),
            reward_store_password=Password(file=self._file("reward_store-password")),
            coupon_api_password=Password(file=self._file("coupon_api-password")),
            coupon_consumer_password=Password(file=self._file("coupon_consumer-password")),
            etl_password=Password(file=self._file("etl-password")),
            rewards_database=self.rewards_database,
            coupons_database=self.coupons_database,
        )

    def _file(self, name: str) -> Path:
        return _secrets_directory(self.directory) / name


def secret_file(directory: Path) -> Path:
    """Return the file with the secret that the tokens of a system in this directory are signed with."""
    return _secrets_directory(directory) / _TOKEN_SECRET


def _secrets_directory(directory: Path) -> Path:
    return directory / "secrets"


def _listen() -> socket.socket:
    listener = socket.create_server((LOOPBACK, free_port()), backlog=_BACKLOG)
    listener.setblocking(False)
    return listener


def _inherited() -> dict[str, str]:
    """Return this process's environment without any setting of a service or a load, meant for another one."""
    prefixes = ("ETL_", *(f"{service.upper()}_" for service in Service))
    return {name: value for name, value in os.environ.items() if not name.startswith(prefixes)}


@contextlib.asynccontextmanager
async def open_system(
    directory: Path, *, fsync: bool = False, services: Sequence[Service] = tuple(Service)
) -> AsyncIterator[System]:
    """Start the servers, make databases, topic and secrets, and stop everything on leaving.

    No service runs yet: see `System.start`. Leaving in order stops the services in order, leaving by an exception or a
    cancellation kills them. Everything ends with this process, however it ends.

    Args:
        directory: where logs and secrets go.
        fsync: as in `open_postgres`.
        services: which services will run: `COUPON_FLOW` does without MongoDB and Salesforce.

    Raises:
        ServerUnavailableError: there is no server for this machine.
        ServerError: a server did not start, or one that was named is in use by another platform.
    """
    async with contextlib.AsyncExitStack() as stack:
        postgres = await stack.enter_async_context(open_postgres(fsync=fsync))
        kafka = await stack.enter_async_context(open_kafka())
        secrets_directory = _secrets_directory(directory)
        secrets_directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        mongo_servers = None
        if any(service.needs_mongo for service in services):
            mongo_servers = await stack.enter_async_context(open_mongo_servers(directory, secrets_directory))
        system = System(directory, postgres, kafka, mongo_servers)
        try:
            await system.prepare()
            yield system
        except BaseException:
            await system.kill_services()
            raise
        finally:
            await system.aclose()
