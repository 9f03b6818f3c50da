"""`python -m sandbox.members`, the members' traffic of a stack: continued over restarts, audited at each end."""

import asyncio
import os
import re
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http import HTTPStatus
from pathlib import Path

import pytest

from sandbox.instance import Service
from sandbox.probe import ProbeFailed, probe
from sandbox.servers import KeptProcess, Program, start_process
from sandbox.servers.address import LOOPBACK, free_port
from sandbox.system import ROOT, System, open_system
from tests.support.eventually import eventually

WAIT_SECONDS = 60.0


class _Run:
    """Members that run, with what they have printed."""

    def __init__(self, process: KeptProcess, admin_port: int) -> None:
        self.process = process
        self.admin_port = admin_port

    @property
    def lines(self) -> list[str]:
        """What they have printed so far."""
        return self.process.log.read_text().splitlines()

    async def wait_journalled(self, journal: Path, requests: int) -> None:
        """Wait until so many requests are written down."""
        file = journal / "attempted.jsonl"

        async def are_there() -> bool:
            assert self.process.is_running, self.lines
            return file.exists() and file.read_bytes().count(b'{"attempt"') >= requests

        await eventually(are_there, seconds=WAIT_SECONDS, pause_seconds=0.1)

    async def is_ready(self) -> bool:
        """Ask what a health check asks."""
        try:
            status, _ = await probe(f"http://{LOOPBACK}:{self.admin_port}/readyz")
        except ProbeFailed:
            return False
        return status == HTTPStatus.OK

    async def stop(self) -> int:
        """Send SIGTERM and return the status of the end."""
        return await self.process.stop(signal.SIGTERM, grace_seconds=WAIT_SECONDS)


def _address(system: System, service: Service, host: str) -> str:
    http_port = int(system.base_url(service).rpartition(":")[2]) if service.serves_members else 1
    admins = [one.admin_url.rpartition(":")[2] for one in system.instances if one.service is service]
    return ",".join(f"{host}:{http_port}:{admin}" for admin in admins)


@asynccontextmanager
async def _members(system: System, journal: Path, host: str = LOOPBACK, **settings: str) -> AsyncIterator[_Run]:
    admin_port = free_port()
    assert system.mongo_servers is not None
    variables = {
        "POSTGRES__HOST": system.postgres.host,
        "POSTGRES__PORT": str(system.postgres.port),
        "POSTGRES__PASSWORD_FILE": str(system.directory / "secrets" / "lp_owner-password"),
        "POSTGRES__REWARDS_DATABASE": system.rewards_database,
        "POSTGRES__COUPONS_DATABASE": system.coupons_database,
        "MONGO__HOSTS": system.mongo_servers.mongo.address,
        "MONGO__AUDITOR_PASSWORD_FILE": str(system.directory / "secrets" / "auditor-mongo-password"),
        "MONGO__WRITER_PASSWORD_FILE": str(system.directory / "secrets" / "consent_writer-mongo-password"),
        "SALESFORCE__URL": system.mongo_servers.salesforce_url,
        "TOKEN_SECRET_FILE": str(system.directory / "secrets" / "token-secret"),
        "JOURNAL": str(journal),
        "RATE": "60",
        "ADMIN__PORT": str(admin_port),
        **{service.upper(): _address(system, service, host) for service in Service},
        **settings,
    }
    log = system.directory / f"members-{admin_port}.log"
    log.touch()
    process = await start_process(
        Program(
            name="members",
            command=[sys.executable, "-m", "sandbox.members"],
            log=log,
            directory=ROOT,
            environment=dict(os.environ) | {f"MEMBERS_{name}": value for name, value in variables.items()},
        )
    )
    try:
        yield _Run(process, admin_port)
    finally:
        await process.kill()
        process.release()


def _requests(verdict: str) -> int:
    found = re.match(r"audit ok: (\d+) requests \(0 failed\)", verdict)
    assert found, verdict
    return int(found[1])


async def test_members_started_again_continue_their_journal_and_audit_all_runs(tmp_path: Path) -> None:
    """SIGTERM ends with `audit ok` and status 0; so does the run after one that was killed, over all three runs."""
    journal = tmp_path / "journal"
    async with open_system(tmp_path) as system:
        await asyncio.gather(*(system.start(service) for service in Service))
        async with _members(system, journal) as run:
            await run.wait_journalled(journal, 100)
            assert await run.is_ready()
            assert await run.stop() == 0, run.lines
            first = _requests(run.lines[-1])
        # Found by name from here on, as in a network of containers.
        async with _members(system, journal, host="localhost") as run:
            await run.wait_journalled(journal, first + 100)
            assert await run.process.kill() == 128 + signal.SIGKILL
        async with _members(system, journal, host="localhost") as run:
            await run.wait_journalled(journal, first + 200)
            assert await run.stop() == 0, run.lines
            assert _requests(run.lines[-1]) >= first + 200


async def test_members_end_their_traffic_at_the_bound_and_miss_a_journal_that_is_gone(tmp_path: Path) -> None:
    """At the bound they only wait for SIGTERM; members without their journal end the start with one sentence."""
    journal = tmp_path / "journal"
    async with open_system(tmp_path) as system:
        await asyncio.gather(*(system.start(service) for service in Service))
        async with _members(system, journal, REQUESTS_MAX="50") as run:
            told = "the traffic has ended: 50 requests are written down"
            await eventually(lambda: any(told in line for line in run.lines), seconds=WAIT_SECONDS, pause_seconds=0.1)
            assert await run.is_ready()
            assert await run.stop() == 0, run.lines
            assert _requests(run.lines[-1]) == 50
        async with _members(system, tmp_path / "another") as run:
            assert await run.process.wait(WAIT_SECONDS) == 1
            assert len(run.lines) == 1, run.lines
            assert "the journal in" in run.lines[0]
            assert "docker compose down --volumes" in run.lines[0]


@pytest.mark.parametrize("name", ["NO_SUCH_SETTING", "DRAIN_SECONDS"])
async def test_members_with_bad_settings_end_with_status_78(tmp_path: Path, name: str) -> None:
    """A mistyped setting, or times that do not fit, end the start before anything is asked."""
    async with open_system(tmp_path) as system:
        await asyncio.gather(*(system.launch(service) for service in Service))
        async with _members(system, tmp_path / "journal", **{name: "111"}) as run:
            assert await run.process.wait(WAIT_SECONDS) == 78, run.lines
