"""The whole platform under traffic for long, disturbed all the time, and judged at the end."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Final
from urllib.parse import urlsplit

from sandbox.instance import Service
from sandbox.seed import make_seed, plant
from sandbox.system import System, open_system
from tests.soak.chaos import Chaos
from tests.soak.leaks import judge_backends
from tests.soak.stops import Stops
from tests.support.busy_clients import BusyClients
from tests.support.fault_proxy import FaultProxy, open_fault_proxy
from tests.support.flow import Flow, flow_on
from tests.support.judgement import Judgement

_MEMBERS: Final = 200
_POINTS: Final = 1_000_000
_CLIENTS: Final = 20
_PAUSE_SECONDS: Final = 0.2

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Soak:
    """One run.

    Attributes:
        directory: where logs, secrets and books go.
        seed: of the traffic and of the faults.
        rate: requests a second on average.
        say: told what happens, a line at a time.
    """

    directory: Path
    seed: int
    rate: float
    say: Say

    async def stops(self, count: int) -> tuple[Judgement, str]:
        """Replace instances until so many were stopped; return the judgement, and in a few words what was done.

        Raises:
            ServerError: a request failed, an instance did not start, or it did not end with status 0.
        """
        async with self._platform(is_proxied=False) as (flow, _):
            await flow.wait_requests(50)
            async with (
                _busy(flow.system, Service.REWARD_STORE, "/v1/rewards?limit=20") as browsing,
                _busy(flow.system, Service.COUPON_API, "/v1/members/m-1/coupons") as looking,
            ):
                judgement, done = await Stops(flow, (browsing, looking), self.say).run(count)
            done += f"; {browsing.answers + looking.answers} reads on busy connections"
            judgement |= browsing.judge() | looking.judge()
            return await self._judge(flow, judgement, done, failures_allowed=False)

    async def faults(self, seconds: float) -> tuple[Judgement, str]:
        """Hurt the platform for so long; return the judgement, and in a few words what was done.

        Raises:
            TimeoutError: something did not come back.
            ServerError: an instance did not start.
        """
        async with self._platform(is_proxied=True) as (flow, proxy):
            await flow.wait_requests(50)
            judgement, done = await Chaos(flow, proxy, Random(self.seed), self.say).run(seconds)
            return await self._judge(flow, judgement, done, failures_allowed=True)

    @asynccontextmanager
    async def _platform(self, *, is_proxied: bool) -> AsyncIterator[tuple[Flow[System], FaultProxy]]:
        """Start servers, services and traffic, if asked with the proxy before Postgres; stop everything on leaving."""
        members = make_seed(_MEMBERS, _POINTS)
        async with (
            open_system(self.directory) as system,
            open_fault_proxy(system.postgres.port, seed=self.seed) as proxy,
        ):
            await plant(members, system.rewards_url)
            if is_proxied:
                system.postgres_port = proxy.port
            await asyncio.gather(*(system.start(service) for service in Service))
            async with flow_on(system, self.directory, members, rate=self.rate, seed=self.seed) as flow:
                yield flow, proxy

    async def _judge(
        self, flow: Flow[System], found: Judgement, done: str, *, failures_allowed: bool
    ) -> tuple[Judgement, str]:
        self.say("the traffic ends; waiting until everything promised has arrived")
        verdict, end = await flow.judgement(failures_allowed=failures_allowed)
        backends = await judge_backends(flow.system, at_most=0)
        for line in verdict.lines():
            self.say(line.strip())
        return found | end | backends, f"{done}; {verdict.requests} requests, {verdict.failed_requests} failed"


def _busy(system: System, service: Service, path: str) -> BusyClients:
    """Return members who read one thing again and again, on connections that they keep as long as they may."""
    address = urlsplit(system.base_url(service))
    headers = {"authorization": f"Bearer {system.token('m-1', lifetime_seconds=7 * 86_400)}"}
    where = (str(address.hostname), int(address.port or 0))
    return BusyClients(where, _CLIENTS, path=path, headers=headers, pause_seconds=_PAUSE_SECONDS)
