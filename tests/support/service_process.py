"""A service as a real process, for tests that send it signals, load, poison and worse."""

import json
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Literal, TypeVar

import httpx
import orjson

from runtime.auth import Scope, sign_token
from sandbox.instance import ProcessInstance
from sandbox.probe import ProbeFailed, probe
from sandbox.servers import KeptProcess, PostgresServer, Program, start_process
from tests.support.databases import PASSWORDS
from tests.support.eventually import eventually

ROOT = Path(__file__).parents[2]
SECRET = "0123456789abcdef" * 2
_ADMIN_SECONDS = 5.0
_STARTING = {"process": "starting"}


class ServiceProcess:
    """A service that was started: its process, its admin port, its log."""

    def __init__(self, process: KeptProcess, variables: dict[str, str]) -> None:
        self.process = process
        self.variables = variables
        self.admin_url = f"http://127.0.0.1:{variables['ADMIN__PORT']}"

    def log(self) -> list[dict[str, Any]]:  # Any: a log field may be anything
        """Return the lines of its log so far, without those that a full disk cut off."""
        lines = self.process.log.read_bytes().splitlines()
        return [orjson.loads(line) for line in lines if line.startswith(b"{") and line.endswith(b"}")]

    def events(self) -> list[str]:
        """Return what its log lines say, in order."""
        return [line["event"] for line in self.log()]

    async def end(self, seconds: float) -> tuple[int, str]:
        """Wait for its end; return its status and what its last log line says, "" where there is none."""
        status = await self.process.wait(seconds)
        return status, next(reversed(self.events()), "")

    async def report(self) -> tuple[int, dict[str, Any]] | None:  # Any: the report's JSON
        """Return the status and the report of its readiness, or None while nobody answers."""
        try:
            status, text = await probe(f"{self.admin_url}/readyz", timeout_seconds=_ADMIN_SECONDS)
        except ProbeFailed:
            return None
        return status, json.loads(text)

    async def readiness(self) -> int | None:
        """Return the status of its readiness, or None while nobody answers."""
        found = await self.report()
        return None if found is None else found[0]

    async def metrics(self) -> dict[str, float]:
        """Return its metrics, by name with labels."""
        _, text = await probe(f"{self.admin_url}/metrics", timeout_seconds=_ADMIN_SECONDS)
        lines = (line.rpartition(" ") for line in text.splitlines() if line and not line.startswith("#"))
        return {name: float(value) for name, _, value in lines}

    async def wait(self, is_true: Callable[[], Awaitable[bool]], *, seconds: float = 40) -> None:
        """Wait until it is true, while the process runs."""

        async def look() -> bool:
            if await is_true():
                return True
            assert self.process.is_running, self.process.log.read_text()
            return False

        await eventually(look, seconds=seconds, pause_seconds=0.05)

    async def wait_event(self, event: str, *, count: int = 1, seconds: float = 40) -> None:
        """Wait until so many log lines say this."""

        async def is_told() -> bool:
            return self.events().count(event) >= count

        await self.wait(is_told, seconds=seconds)

    async def wait_readiness(self, status: int, *, seconds: float = 40) -> dict[str, Any]:  # Any: the report's JSON
        """Wait until readiness answers this status, "starting" aside, which is no answer yet; return its report."""
        reports: list[dict[str, Any]] = []

        async def is_so() -> bool:
            found = await self.report()
            if found is not None and found[0] == status and found[1].get("not_ready") != _STARTING:
                reports.append(found[1])
            return bool(reports)

        await self.wait(is_so, seconds=seconds)
        return reports[0]

    async def wait_metrics(self, **wanted: float) -> None:
        """Wait until metrics have these values: they follow what they count by a moment."""

        async def are_counted() -> bool:
            metrics = await self.metrics()
            return all(metrics[name] == value for name, value in wanted.items())

        await self.wait(are_counted)


def service_of(instance: ProcessInstance) -> ServiceProcess:
    """Return a system's instance as a service that was started, to look at its log and its admin port."""
    return ServiceProcess(instance.process, {"ADMIN__PORT": instance.admin_url.rpartition(":")[2]})


class HttpServiceProcess(ServiceProcess):
    """One that members can reach."""

    @property
    def port(self) -> int:
        """Where it listens for them."""
        return int(self.variables["HTTP__PORT"])

    def client(self, subject: str, scope: Scope = "member", *, connections: int = 100) -> httpx.AsyncClient:
        """Return a client with a token of its own."""
        return httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{self.port}",
            headers={"authorization": f"Bearer {sign_token(subject, scope, SECRET)}"},
            limits=httpx.Limits(max_connections=connections, max_keepalive_connections=connections),
            timeout=20,
            verify=False,  # noqa: S501 - plain HTTP on loopback; building a TLS context would cost more than the call
        )


ServiceT = TypeVar("ServiceT", bound=ServiceProcess)


def postgres_variables(server: PostgresServer, database: str, role: str) -> dict[str, str]:
    """Return how a service reaches its database, by its own role."""
    return {
        "POSTGRES__HOST": server.host,
        "POSTGRES__PORT": str(server.port),
        "POSTGRES__DATABASE": database,
        "POSTGRES__USER": role,
        "POSTGRES__PASSWORD": PASSWORDS[role],
    }


def armed(point: str, hit: int = 1, action: Literal["kill", "freeze"] = "kill") -> dict[str, str]:
    """Return the settings of a process that dies, or freezes, at its so many-th arrival at a point."""
    return {"CRASH__IS_TEST": "true", "CRASH__POINT": point, "CRASH__HIT": str(hit), "CRASH__ACTION": action}


def environment_of(service: str, variables: dict[str, str]) -> dict[str, str]:
    """Return this process's environment with the variables under the service's prefix."""
    return {**os.environ, **{f"{service.upper()}_{name}": value for name, value in variables.items()}}


@asynccontextmanager
async def open_service(
    service_type: type[ServiceT],
    service: str,
    directory: Path,
    variables: dict[str, str],
    *,
    without: str | None = None,
) -> AsyncIterator[ServiceT]:
    """Start a service by the name of its package, or without one of its guards; it is stopped on leaving."""
    unguarded = (f"tests.support.unguarded_{service}", "--without")
    module = [f"services.{service}"] if without is None else [*unguarded, without]
    program = Program(
        name=service,
        command=[sys.executable, "-m", *module],
        log=directory / f"{service}-{variables['ADMIN__PORT']}.log",
        directory=ROOT,
        environment=environment_of(service, variables),
    )
    process = await start_process(program)
    try:
        yield service_type(process, variables)
    finally:
        await process.stop()
        process.release()
