"""The whole platform under members' traffic, with an audit at the end: what the demo shows, for tests to disturb."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from random import Random
from typing import Generic, TypeVar

from patterns import background
from sandbox.audit import Verdict, audit
from sandbox.crowd import Crowd
from sandbox.holdings import read_platform
from sandbox.instance import Instance, Service
from sandbox.journal import REJECTS, Journal, Seed, read_journal
from sandbox.observation import open_observer
from sandbox.seed import make_seed, plant
from sandbox.system import System, open_system
from sandbox.world import World
from tests.support.eventually import eventually
from tests.support.flow_judge import judge_flow
from tests.support.judgement import Judgement, Rule, judge

MEMBERS = 100
POINTS = 100_000
DRAIN_SECONDS = 90.0


WorldT = TypeVar("WorldT", bound=World)


class Flow(Generic[WorldT]):
    """Running services and running traffic; a test hurts one of them and then asks for the verdict."""

    def __init__(self, system: WorldT, journal: Journal, crowd: Crowd) -> None:
        self.system = system
        self.journal = journal
        self.crowd = crowd
        self.traffic = crowd.traffic
        self._sending = background().with_cancel()
        self._task = asyncio.create_task(crowd.run(self._sending), name="traffic")

    def instance(self, service: Service) -> Instance:
        """Return the oldest running instance of a service."""
        return next(instance for instance in self.system.instances if instance.service is service)

    async def wait_requests(self, more: int) -> None:
        """Wait until so many more requests have been sent."""
        wanted = self.traffic.statistics().requests + more
        async with asyncio.timeout(120):
            while self.traffic.statistics().requests < wanted:
                if self._task.done():
                    await self._task
                await asyncio.sleep(0.02)

    async def wait_all_ready(self, seconds: float = 60) -> None:
        """Wait until every instance says that it is ready."""

        async def are_ready() -> bool:
            return all([await one.is_ready() for one in self.system.instances])

        await eventually(are_ready, seconds=seconds, pause_seconds=0.1)

    async def replace_killed(self, service: Service) -> None:
        """Kill the oldest instance of a service and start another in its place."""
        await self.system.kill(self.instance(service))
        await self.system.start(service)

    async def stop_traffic(self) -> None:
        """Send nothing new, and wait for the answers under way."""
        self._sending.cancel()
        await asyncio.wait_for(self._task, 120)

    async def drain(self, *, more_records: int = 0) -> None:
        """Wait until everything that was promised has arrived, with so many records that nobody was promised."""
        async with open_observer(self.system, self.crowd) as observer, asyncio.timeout(DRAIN_SECONDS):
            await observer.wait_drained(more_records=more_records)

    async def verdict(self, *, failures_allowed: bool = False, poison: int = 0) -> Verdict:
        """Stop the traffic, let the backlog drain, stop the services in order, and audit.

        An instance that did not end with status 0 is a difference too.
        """
        verdict, _ = await self.judgement(failures_allowed=failures_allowed, poison=poison)
        bad_ends = [stopped for stopped in self.system.ended if stopped.status]
        assert not bad_ends, f"these did not stop in order: {bad_ends}"
        return verdict

    async def judgement(self, *, failures_allowed: bool = False, poison: int = 0) -> tuple[Verdict, Judgement]:
        """Do the same, and also judge it by its ids (L1 to L5) and by how each instance ended (L8)."""
        await self.stop_traffic()
        await self.drain(more_records=poison)
        await self.system.stop_services()
        directory = self.journal.directory
        record = read_journal(directory)
        holdings = await read_platform(self.system, list(record.files), directory / REJECTS)
        verdict = audit(record, holdings, failures_allowed=failures_allowed, dead_letters_expected=poison)
        bad_ends = [f"{stopped.name} ended with {stopped.status}" for stopped in self.system.ended if stopped.status]
        return verdict, judge_flow(record, holdings, verdict) | judge(Rule.RIGHT_END, bad_ends)

    async def aclose(self) -> None:
        """End the traffic, whatever state it is in."""
        self._sending.cancel()
        self._task.cancel()
        await asyncio.wait({self._task})


@contextlib.asynccontextmanager
async def open_flow(
    directory: Path, *, rate: float = 60.0, seed: int | None = None, services: Sequence[Service] = tuple(Service)
) -> AsyncIterator[Flow[System]]:
    """Start servers, services and traffic; print the seed of the traffic, and stop everything on leaving.

    With `COUPON_FLOW` there are neither campaigns nor consents, nor the servers that those need.
    """
    members = make_seed(MEMBERS, POINTS)
    async with open_system(directory, services=services) as system:
        await plant(members, system.rewards_url)
        await asyncio.gather(*(system.start(service) for service in system.services))
        async with flow_on(system, directory, members, rate=rate, seed=seed) as flow:
            yield flow


@contextlib.asynccontextmanager
async def flow_on(
    world: WorldT, directory: Path, members: Seed, *, rate: float, seed: int | None = None
) -> AsyncIterator[Flow[WorldT]]:
    """Send traffic to a platform that runs and whose members are planted; end it on leaving."""
    traffic_seed = secrets.randbits(32) if seed is None else seed
    print(f"traffic seed {traffic_seed}")  # noqa: T201 - shown when the test fails
    with Journal(directory) as journal:
        journal.seeded(members)
        flow = Flow(world, journal, Crowd(world, journal, members, rate=rate, random=Random(traffic_seed)))
        try:
            yield flow
        finally:
            await flow.aclose()
