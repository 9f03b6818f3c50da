"""The whole platform in containers, as docker-compose.yml describes it, driven from outside."""

import asyncio
import contextlib
import random
import socket
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from runtime.auth import sign_token
from sandbox.docker import docker, inspect, require_engine
from sandbox.fleet import Fleet
from sandbox.http_client import HttpClient
from sandbox.instance import Instance, Service, Stopped
from sandbox.load import ContainerLoad, Load
from sandbox.salesforce import SalesforceControl
from sandbox.servers import MongoServer, ServerError
from sandbox.servers.address import LOOPBACK
from sandbox.world import MongoSide

ROOT: Final = Path(__file__).resolve().parents[1]
TOPIC: Final = "coupon-events"
SERVERS: Final = ("postgres", "kafka", "mongo")
JOBS: Final = ("secrets", "migrations", "topics", "mongo-setup")
_ETL_DIRECTORY = "/var/lib/etl"
_HTTP_PORT = 8080
_ADMIN_PORT = 9090
_UP_SECONDS = 900.0
_READY_SECONDS = 90.0
_GRACE_SECONDS = 35.0
_DOWN_SECONDS = 120.0
_MARGIN_SECONDS = 20.0
_TOKEN_SECONDS = 86_400
# The image has its builder's labels, the project among them, and whatever else runs from it inherits them; this one
# only compose gives.
_MADE_BY_UP = ("--filter", "label=com.docker.compose.oneoff=False")
# How many ports each published range gets: as many as the most instances of it that anybody here runs at once.
_RANGES = {
    "REWARD_STORE_PORTS": 4,
    "REWARD_STORE_ADMIN_PORTS": 4,
    "COUPON_API_PORTS": 4,
    "COUPON_API_ADMIN_PORTS": 4,
    "COUPON_CONSUMER_ADMIN_PORTS": 5,
    "CAMPAIGN_API_PORTS": 4,
    "CAMPAIGN_API_ADMIN_PORTS": 4,
    "CONSENT_CONSUMER_ADMIN_PORTS": 4,
    "POSTGRES_PORT": 1,
    "KAFKA_PORT": 1,
    "MONGO_PORT": 1,
    "SALESFORCE_PORT": 1,
}


@dataclass(frozen=True, slots=True)
class ContainerInstance(Instance):
    """An instance that is a container; `container_id` is the engine's name for it."""

    container_id: str

    @property
    def log(self) -> str:
        """The command that shows its log."""
        return f"docker logs {self.container_id[:12]}"

    async def status(self) -> int | None:
        """Return the status it ended with; None while it runs."""
        (found,) = await inspect(self.container_id)
        state = found["State"]
        return None if state["Running"] else int(state["ExitCode"])

    async def stop(self, grace_seconds: float) -> int:
        """Send SIGTERM, wait for its end, and return its status; one that takes longer is killed (status 137)."""
        await docker(
            "stop",
            "--time",
            f"{grace_seconds:.0f}",
            self.container_id,
            timeout_seconds=grace_seconds + _MARGIN_SECONDS,
        )
        status = await self.status()
        if status is None:
            raise ServerError(f"{self.name} runs although it was stopped; see {self.log}")
        return status

    async def kill(self) -> None:
        """Kill it as the kernel would, and wait for its end; the engine starts it again only when told to."""
        await docker("kill", self.container_id)
        await docker("wait", self.container_id)


class ComposeSystem(Fleet[ContainerInstance]):
    """A stack of docker-compose.yml without the members, under a project name of its own.

    Every port that it publishes is a free one of loopback, so that it stands beside any other stack. An instance that
    was stopped or killed keeps its container; the next start of its service starts that one again.
    """

    def __init__(self, project: str) -> None:
        super().__init__(_GRACE_SECONDS)
        self.project = project
        self.client = HttpClient()
        self.topic = TOPIC
        self.mongo_side: MongoSide | None = None
        self._environment = _free_ports()
        self._secrets: dict[str, str] = {}

    @property
    def rewards_url(self) -> str:
        """The database `rewards`, for the owner of its tables."""
        return self._database_url("rewards")

    @property
    def coupons_url(self) -> str:
        """The database `coupons`, for the owner of its tables."""
        return self._database_url("coupons")

    @property
    def bootstrap(self) -> str:
        """Where this machine reaches Kafka."""
        return self._address("KAFKA_PORT")

    @property
    def mongo_address(self) -> str:
        """Where this machine reaches MongoDB's one node."""
        return self._address("MONGO_PORT")

    @property
    def salesforce_url(self) -> str:
        """Where this machine reaches the Salesforce sandbox, and its page."""
        return f"http://{self._address('SALESFORCE_PORT')}"

    def token(self, subject: str, /, *, is_operator: bool = False) -> str:
        """Return a bearer token that the services accept for a day."""
        return sign_token(
            subject,
            "operator" if is_operator else "member",
            self._secrets["token-secret"],
            lifetime_seconds=_TOKEN_SECONDS,
        )

    async def step_mongo_down(self) -> None:
        """Make MongoDB's one node step down by force: for some seconds, until it is elected again, nobody can write.

        Raises:
            ServerError: MongoDB does not run.
        """
        (mongo,) = await self.container_ids("mongo")
        password = await docker("exec", mongo, "cat", "/run/secrets/mongo-root-password")
        await MongoServer(self._mongo_url("root", password)).step_down()

    async def compose(self, *arguments: str, timeout_seconds: float = 60.0, **variables: str) -> str:
        """Run a command of docker compose on this stack, with variables of its own, and return what it printed."""
        return await docker(
            "compose",
            "--project-name",
            self.project,
            "--project-directory",
            str(ROOT),
            "--file",
            str(ROOT / "docker-compose.yml"),
            *arguments,
            timeout_seconds=timeout_seconds,
            environment=self._environment | variables,
        )

    async def up(self, *, members: int = 0) -> None:
        """Build the images and start the stack, and wait until everything is ready and the consumers read.

        Args:
            members: how many containers of members send traffic.

        Raises:
            DockerError: something did not start.
        """
        await self.compose("build", "etl", timeout_seconds=_UP_SECONDS)  # `up` leaves out what is in a profile
        await self.compose(
            "up", "--build", "--detach", "--wait", "--scale", f"demo={members}", timeout_seconds=_UP_SECONDS
        )
        self._secrets = await self._read_secrets()
        self.mongo_side = MongoSide(
            reader_url=self._mongo_url("auditor", self._secrets["auditor-password"]),
            writer_url=self._mongo_url("consent_writer", self._secrets["consent-writer-password"]),
            salesforce=SalesforceControl(self.salesforce_url, self._secrets["salesforce-control-secret"]),
        )
        self.instances = [
            await self._instance(container_id)
            for service in Service
            for container_id in await self.container_ids(_name(service))
        ]
        await asyncio.gather(*(instance.wait_until_ready(_READY_SECONDS) for instance in self.instances))

    async def start(self, service: Service) -> ContainerInstance:
        """Start one more instance of a service and wait until it is ready.

        Raises:
            ServerError: it ended, or was not ready within 90 s.
        """
        name = _name(service)
        known = await self.container_ids(name, stopped=True)
        running = await self.container_ids(name)
        if idle := [one for one in known if one not in running]:
            started = idle[0]
            await docker("start", started)
        else:
            scale = ("--scale", f"{name}={len(known) + 1}")
            await self.compose("up", "--detach", "--no-deps", "--no-recreate", "--no-build", *scale, name)
            (started,) = set(await self.container_ids(name)) - set(running)
        instance = await self._instance(started)
        await instance.wait_until_ready(_READY_SECONDS)
        # Only now: a published port takes connections before anybody listens behind it, and drops them.
        self.instances.append(instance)
        return instance

    @contextlib.asynccontextmanager
    async def open_load(self, file: Path, rejects: Path, *options: str) -> AsyncIterator[Load]:
        """Begin to load a file of coupons; on leaving it has ended, by force if need be.

        Args:
            file: where it is; everybody may read it and its directory.
            rejects: the directory into which the reject files are copied on leaving.
            options: what else `etl load` is told.

        Raises:
            DockerError: it did not start.
        """
        run = ("run", "--detach", "--no-deps", "etl", "load", f"/data/{file.name}", *options)
        started = (await self.compose(*run, ETL_FILES=str(file.parent))).split()[-1]
        try:
            yield ContainerLoad(f"etl {started[:12]}", started)
            # All that it writes: of a load without a reject there is no directory of that name.
            await docker("cp", f"{started}:{_ETL_DIRECTORY}/.", str(rejects.parent))
        finally:
            await docker("rm", "--force", started)

    async def replace(self, old: Instance) -> ContainerInstance:
        """Do a rolling restart of one instance: at every moment another one serves.

        Where there are others of its service they serve while its container is stopped and started again; where there
        is none, a second container is made, and the first one is removed when the second one is at work.

        Raises:
            ServerError: the new one did not become ready.
        """
        if sum(one.service is old.service for one in self.instances) > 1:
            await self.stop(old)
            return await self.start(old.service)
        new = await self.start(old.service)
        (old_id,) = {one.container_id for one in self.instances if one is old}
        await self.stop(old)
        await docker("rm", old_id)
        return new

    async def stop_all(self) -> list[Stopped]:
        """Stop what still runs, in compose's order, and return how every container has ended."""
        await self.compose("stop", timeout_seconds=_UP_SECONDS)
        found = await inspect(*await self.container_ids(stopped=True))
        return [Stopped(_container_name(one), int(one["State"]["ExitCode"])) for one in found]

    async def down(self) -> None:
        """Remove containers, volumes and network, whatever state they are in."""
        how = ("--volumes", "--remove-orphans", "--timeout", "5")
        # Without its profile the volume that only a load mounts would stay.
        await self.compose("--profile", "etl", "down", *how, timeout_seconds=_DOWN_SECONDS)

    async def left_over(self) -> list[str]:
        """Return what there is of this project: containers, volumes and networks."""
        kinds = (("ps", "--all", *_MADE_BY_UP), ("volume", "ls"), ("network", "ls"))
        return [line for kind in kinds for line in (await docker(*kind, "--quiet", *self._filters)).split()]

    async def container_ids(self, name: str | None = None, *, stopped: bool = False) -> list[str]:
        """Return the running containers of a service, or of all of them, the oldest first.

        Args:
            name: the service as compose calls it; None for every one.
            stopped: whether those that have ended are wanted, too.
        """
        filters = [*self._filters, *_MADE_BY_UP]
        if name is not None:
            filters += ["--filter", f"label=com.docker.compose.service={name}"]
        found = await docker("ps", "--no-trunc", "--quiet", *(["--all"] if stopped else []), *filters)
        return list(reversed(found.split()))  # the engine lists the newest first

    async def aclose(self) -> None:
        """Close this side's connections."""
        await self.client.aclose()
        if self.mongo_side is not None:
            await self.mongo_side.salesforce.aclose()

    @property
    def _filters(self) -> tuple[str, str]:
        return ("--filter", f"label=com.docker.compose.project={self.project}")

    async def _instance(self, container_id: str) -> ContainerInstance:
        (found,) = await inspect(container_id)
        service = Service(found["Config"]["Labels"]["com.docker.compose.service"].replace("-", "_"))
        ports = found["NetworkSettings"]["Ports"]
        base_url = f"http://{_published(ports, _HTTP_PORT)}" if service.serves_members else None
        return ContainerInstance(
            _container_name(found), service, base_url, f"http://{_published(ports, _ADMIN_PORT)}", container_id
        )

    async def _read_secrets(self) -> dict[str, str]:
        """Read the secrets of the members, each by its name, in the one place that has them: their volume."""
        command = ("run", "--rm", "--no-deps", "--no-TTY", "--entrypoint", "grep", "demo", "-r", "", "/run/secrets")
        lines = [line.partition(":") for line in (await self.compose(*command)).splitlines()]
        return {Path(path).name: secret for path, _, secret in lines}

    def _address(self, variable: str) -> str:
        return f"{LOOPBACK}:{self._environment[variable]}"

    def _database_url(self, database: str) -> str:
        login = f"lp_owner:{quote(self._secrets['lp-owner-password'], safe='')}"
        return f"postgresql://{login}@{self._address('POSTGRES_PORT')}/{database}"

    def _mongo_url(self, user: str, password: str) -> str:
        # The node is known in its set by a name that this machine does not know.
        return f"mongodb://{user}:{quote(password, safe='')}@{self.mongo_address}/?directConnection=true"


@contextlib.asynccontextmanager
async def open_compose(project: str) -> AsyncIterator[ComposeSystem]:
    """Give a stack of which nothing runs yet, and remove everything of it on leaving, whatever happened.

    Raises:
        DockerError: no engine answers, or compose is missing; leaving: something could not be removed.
    """
    await require_engine()
    system = ComposeSystem(project)
    try:
        yield system
    finally:
        await system.aclose()
        await system.down()


def bad_ends(ends: Sequence[Stopped]) -> list[Stopped]:
    """Return the containers of ours that did not end with status 0; the servers' status is their image's affair."""
    return [one for one in ends if one.status and one.name.rpartition("-")[0] not in SERVERS]


def _name(service: Service) -> str:
    return service.value.replace("_", "-")


def _container_name(found: dict[str, Any]) -> str:  # Any: JSON
    labels = found["Config"]["Labels"]
    return f"{labels['com.docker.compose.service']}-{labels['com.docker.compose.container-number']}"


def _published(ports: dict[str, Any], port: int) -> str:  # Any: JSON
    published = [one for one in ports.get(f"{port}/tcp") or () if one["HostIp"] == LOOPBACK]
    if not published:
        raise ServerError(f"port {port} is not published on {LOOPBACK}: {ports}")
    return f"{LOOPBACK}:{published[0]['HostPort']}"


def _free_ports() -> dict[str, str]:
    """Choose a free range of ports for each variable of docker-compose.yml.

    They are below those that the kernel hands out, and below those of `free_port`: a stack takes some time until it
    listens, and other processes look for ports meanwhile.
    """
    total = sum(_RANGES.values())
    for _ in range(100):
        first = random.randrange(10_000, 15_000 - total)  # noqa: S311 - no secret
        if all(_is_free(port) for port in range(first, first + total)):
            break
    else:
        raise ServerError(f"no {total} free ports in a row")
    chosen = {}
    for name, count in _RANGES.items():
        chosen[name] = f"{first}-{first + count - 1}" if count > 1 else str(first)
        first += count
    return chosen


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True
