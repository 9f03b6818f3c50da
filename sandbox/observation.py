"""What can be seen of the running system from outside."""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import asyncpg

from patterns import Mutex
from sandbox.consent_progress import ConsentProgress, ConsentWatch
from sandbox.crowd import Crowd
from sandbox.document_database import open_database
from sandbox.instance import Service
from sandbox.traffic import TrafficStatistics
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
select count(*) filter (where not starts_with(source, 'etl:')) as coupons,
       count(*) filter (where starts_with(source, 'etl:')) as loaded,
       (select count(*) from dead_letters) as dead_letters
from coupons
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
        coupons: coupons stored, without those that a file brought.
        loaded: those that a file brought.
        dead_letters: records put aside.
        consents_written: writes of consents that the members' apps know to be stored; None where there are no consents.
        consents: how far they have come; None where there are none, or where MongoDB or Salesforce does not answer.
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
    loaded: int
    dead_letters: int
    consents_written: int | None
    consents: ConsentProgress | None
    instances: Mapping[str, bool]

    @property
    def is_drained(self) -> bool:
        """Whether nothing is on its way any more."""
        arrived = self.coupons + self.dead_letters
        is_carried = self.consents_written is None or (self.consents is not None and self.consents.waiting == 0)
        return is_carried and self.backlog == 0 and self.cancelling == 0 and arrived >= self.redemptions


class Observer:
    """Look at the traffic, all databases, Salesforce and the metrics of the consumers, on connections of its own.

    Several tasks may look at once, and take turns: a connection carries one query at a time.
    """

    def __init__(
        self,
        platform: Platform,
        crowd: Crowd,
        rewards: "asyncpg.Connection[asyncpg.Record]",
        coupons: "asyncpg.Connection[asyncpg.Record]",
        consents: ConsentWatch | None,
    ) -> None:
        self._platform = platform
        self._crowd = crowd
        self._rewards = rewards
        self._coupons = coupons
        self._consents = consents
        self._began_at = self._looked_at = time.monotonic()
        self._requests = 0
        self._turn = Mutex()

    async def look(self) -> Observation:
        """Take one look."""
        async with self._turn:
            return await self._look()

    async def _look(self) -> Observation:
        now = time.monotonic()
        traffic = self._crowd.traffic.statistics()
        apps = self._crowd.apps
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
            loaded=coupons["loaded"],
            dead_letters=coupons["dead_letters"],
            consents_written=None if apps is None else apps.statistics().writes.stored,
            consents=None if self._consents is None else await self._consents.look(),
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


@asynccontextmanager
async def open_observer(platform: Platform, crowd: Crowd) -> AsyncIterator[Observer]:
    """Connect to the databases for the length of a block.

    Raises:
        OSError, TimeoutError, asyncpg.PostgresError: PostgreSQL cannot be reached.
    """
    async with AsyncExitStack() as stack:
        rewards = await stack.enter_async_context(_connect(platform.rewards_url))
        coupons = await stack.enter_async_context(_connect(platform.coupons_url))
        consents = None
        if (side := platform.mongo_side) is not None:
            database = await stack.enter_async_context(
                open_database(side.reader_url, side.consents, timeout_seconds=_TIMEOUT_SECONDS)
            )
            consents = ConsentWatch(database, side.salesforce)
        yield Observer(platform, crowd, rewards, coupons, consents)


@asynccontextmanager
async def _connect(url: str) -> "AsyncIterator[asyncpg.Connection[asyncpg.Record]]":
    connection = await asyncpg.connect(url, timeout=_TIMEOUT_SECONDS, command_timeout=_TIMEOUT_SECONDS)
    try:
        yield connection
    finally:
        await connection.close()
