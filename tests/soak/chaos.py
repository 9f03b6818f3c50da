"""Hurt a running platform every 20 s or so, in a way that chance chooses, and look that it comes back each time."""

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from functools import partial
from random import Random
from typing import Final

from sandbox.instance import ProcessInstance, Service
from sandbox.system import System
from tests.soak.leaks import Leaks
from tests.support.eventually import eventually
from tests.support.fault_proxy import FaultProxy
from tests.support.flow import Flow
from tests.support.judgement import Judgement, judge_time

PERIOD_SECONDS: Final = 20.0
BACK_SECONDS: Final = 60.0
_AWAY_SECONDS: Final = (1.0, 8.0)
# A consumer frozen for longer than its session is one that the embedded broker may never let in again.
_FROZEN_SECONDS: Final = (0.5, 4.0)

Fault = Callable[[], Awaitable[None]]


class Chaos:
    """One soak: every fault by its name, and what was found after each.

    Args:
        flow: the platform with its traffic.
        proxy: stands between the services and the database.
        random: chooses.
        say: tells what is done.
    """

    def __init__(self, flow: Flow[System], proxy: FaultProxy, random: Random, say: Callable[[str], None]) -> None:
        self._flow = flow
        self._system = flow.system
        self._proxy = proxy
        self._random = random
        self._say = say
        self._leaks = Leaks(flow.system)
        self._done: Counter[str] = Counter()
        self._faults: dict[str, Fault] = {
            "Postgres restarted": self._system.postgres.restart,
            "Postgres crashed and started again": self._crash_postgres,
            "the broker frozen": self._freeze_broker,
            "connections to Postgres cut": self._cut,
            "connections to Postgres reset": self._reset,
            "the way to Postgres slow": self._slow_down,
            "the way to Postgres a black hole": self._swallow,
        }
        for service in Service:
            self._faults |= {
                f"kill -9 of {service}": partial(flow.replace_killed, service),
                f"rolling restart of {service}": partial(self._replace, service),
                f"{service} frozen": partial(self._freeze, service),
            }

    async def run(self, seconds: float) -> tuple[Judgement, str]:
        """Hurt the platform for so long; return what was found between the faults, and what was done.

        Every fault comes once before any comes twice. The first that does not heal in time ends the run.
        """
        judgement = await self._leaks.look()
        ends_at = time.monotonic() + seconds
        left: list[str] = []
        while time.monotonic() < ends_at and judgement.is_ok:
            left = left or self._random.sample(list(self._faults), k=len(self._faults))
            began = time.monotonic()
            judgement |= await self._hurt(left.pop())
            pause = PERIOD_SECONDS * self._random.uniform(0.5, 1.5) - (time.monotonic() - began)
            await asyncio.sleep(max(0.0, min(pause, ends_at - time.monotonic())))
        return judgement, f"{self._done.total()} faults of {len(self._done)} kinds in {seconds / 60:g} minutes"

    async def _hurt(self, name: str) -> Judgement:
        """Do one thing, wait until everything works again, and look at what is held then."""
        await self._faults[name]()
        began = time.monotonic()
        await eventually(self._all_work, seconds=BACK_SECONDS, pause_seconds=0.1)
        seconds = time.monotonic() - began
        await self._flow.wait_requests(20)
        self._done[name] += 1
        statistics = self._flow.traffic.statistics()
        self._say(f"{name}: back after {seconds:.1f} s; {statistics.requests} requests, {statistics.failed} failed")
        return judge_time(f"coming back after: {name}", seconds, at_most=BACK_SECONDS) | await self._leaks.look()

    async def _all_work(self) -> bool:
        return all([await one.is_ready() and await one.has_work() for one in self._system.instances])

    def _oldest(self, service: Service) -> ProcessInstance:
        return next(one for one in self._system.instances if one.service is service)

    async def _replace(self, service: Service) -> None:
        await self._system.replace(self._oldest(service))

    async def _freeze(self, service: Service) -> None:
        process = self._oldest(service).process
        process.freeze()
        try:
            await asyncio.sleep(self._random.uniform(*_FROZEN_SECONDS))
        finally:
            process.thaw()

    async def _crash_postgres(self) -> None:
        await self._system.postgres.stop_immediately()
        await self._stay_away()
        await self._system.postgres.start()

    async def _freeze_broker(self) -> None:
        self._system.kafka.freeze()
        try:
            await self._stay_away()
        finally:
            self._system.kafka.thaw()

    async def _cut(self) -> None:
        self._proxy.cut()

    async def _reset(self) -> None:
        self._proxy.reset()

    async def _slow_down(self) -> None:
        self._proxy.down.delay_seconds = self._random.uniform(0.05, 0.5)
        await self._stay_away()
        self._proxy.down.delay_seconds = 0.0

    async def _swallow(self) -> None:
        self._proxy.up.swallow()
        await self._stay_away()
        self._proxy.up.restore()

    async def _stay_away(self) -> None:
        await asyncio.sleep(self._random.uniform(*_AWAY_SECONDS))
