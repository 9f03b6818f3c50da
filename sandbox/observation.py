"""What can be seen of the running system from outside."""

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass

import asyncpg

from patterns import Mutex
from sandbox.instance import Service
from sandbox.traffic import Traffic, TrafficStatistics
from sandbox.world import Platform

_TIMEOUT_SECONDS = 10.0
_POLL_SECONDS = 0.1
_LAG = "lp_consumer_lag_records"

_REWARDS = """
select (select count(*) from outbox where published_at is null) as backlog,
       (select count(*) from redemptions) as redemptions,
       (select count(*) from redemptions where status = 'cancelling') as cancelling
"""
_COUPONS = """
select (select count(*) from coupons) as coupons,
       (select count(*) from dead_letters) as dead_letters
"""


@dataclass(frozen=True, slots=True)
class Observation:
    """The state of everything at one moment.

    Attributes:
        seconds: since the observer began.
        rate: requests a second since the last observation.
        traffic: what the members asked for and got.
        backlog: events that wait to be published.
        redemptions: redemptions stored.
        cancelling: cancellations under way.
        lag: records that wait to be consumed; None where no consumer tells.
        coupons: coupons stored.
        dead_letters: records put aside.
        instances: each running instance, and whether it is ready.
    """

    seconds: float
    rate: float
    traffic: TrafficStatistics
    backlog: int
    redemptions: int
    cancelling: int
    lag: int | None
    coupons: int
    dead_letters: int
    instances: Mapping[str, bool]

    @property
    def is_drained(self) -> bool:
        """Whether nothing is on its way any more."""
        arrived = self.coupons + self.dead_letters
        return self.backlog == 0 and self.cancelling == 0 and arrived >= self.redemptions


class Observer:
    """Look at the traffic, both databases and the metrics of the consumers, on connections of its own.

    Several tasks may look at once, and take turns: a connection carries one query at a time.
    """

    def __init__(
        self,
        platform: Platform,
        traffic: Traffic,
        rewards: "asyncpg.Connection[asyncpg.Record]",
        coupons: "asyncpg.Connection[asyncpg.Record]",
    ) -> None:
        self._platform = platform
        self._traffic = traffic
        self._rewards = rewards
        self._coupons = coupons
        self._began_at = self._looked_at = time.monotonic()
        self._requests = 0
        self._turn = Mutex()

    async def look(self) -> Observation:
        """Take one look."""
        async with self._turn:
            return await self._look()

    async def _look(self) -> Observation:
        now = time.monotonic()
        traffic = self._traffic.statistics()
        rate = (traffic.requests - self._requests) / max(now - self._looked_at, 1e-9)
        self._requests, self._looked_at = traffic.requests, now
        rewards = await self._rewards.fetchrow(_REWARDS)
        coupons = await self._coupons.fetchrow(_COUPONS)
        if rewards is None or coupons is None:
            raise AssertionError("a query without a condition returns its row")
        instances = list(self._platform.instances)
        ready = await asyncio.gather(*(instance.is_ready() for instance in instances))
        return Observation(
            seconds=now - self._began_at,
            rate=rate,
            traffic=traffic,
            backlog=rewards["backlog"],
            redemptions=rewards["redemptions"],
            cancelling=rewards["cancelling"],
            lag=await self._lag(),
            coupons=coupons["coupons"],
            dead_letters=coupons["dead_letters"],
            instances={instance.name: is_ready for instance, is_ready in zip(instances, ready, strict=True)},
        )

    async def wait_drained(self, *, more_records: int = 0) -> None:
        """Wait, without a limit of its own, until everything that was promised has arrived.

        Args:
            more_records: how many records are on the topic that nobody was promised.
        """
        while True:
            seen = await self.look()
            if seen.is_drained and seen.coupons + seen.dead_letters >= seen.redemptions + more_records:
                return
            await asyncio.sleep(_POLL_SECONDS)

    async def _lag(self) -> int | None:
        consumers = [one for one in self._platform.instances if one.service is Service.COUPON_CONSUMER]
        lags = await asyncio.gather(*(consumer.total(_LAG) for consumer in consumers))
        known = [lag for lag in lags if lag is not None]
        return int(max(known)) if known else None  # each tells of the whole group

    async def aclose(self) -> None:
        """Close the connections."""
        await self._rewards.close()
        await self._coupons.close()


async def open_observer(platform: Platform, traffic: Traffic) -> Observer:
    """Connect to both databases.

    Raises:
        OSError, TimeoutError, asyncpg.PostgresError: a database cannot be reached.
    """
    rewards = await asyncpg.connect(platform.rewards_url, timeout=_TIMEOUT_SECONDS, command_timeout=_TIMEOUT_SECONDS)
    try:
        coupons = await asyncpg.connect(
            platform.coupons_url, timeout=_TIMEOUT_SECONDS, command_timeout=_TIMEOUT_SECONDS
        )
    except BaseException:
        await rewards.close()
        raise
    return Observer(platform, traffic, rewards, coupons)
