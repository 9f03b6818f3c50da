"""Two servers, a topic and a migrated database for one test of the consumer as a process."""

import random
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path

import asyncpg

from loyalty.event import CouponEvent
from sandbox.servers import KafkaServer, PostgresServer
from tests.support.coupon_consumer_process import CouponConsumerProcess, open_coupon_consumer
from tests.support.coupon_events import Place, RawRecord, coupon_rows, produce, record_of, rows_of
from tests.support.eventually import eventually


@dataclass
class World:
    """What a test has to do with: servers, what was produced so far, and the consumers it starts.

    Attributes:
        events: what was produced, each once.
        poison: where the poison went that was produced among them.
        ends: the end of each partition that has records, as the broker acknowledged them.
        records: how many records that was, copies and poison included.
    """

    postgres: PostgresServer
    database: str
    kafka: KafkaServer
    topic: str
    directory: Path
    events: list[CouponEvent] = field(default_factory=list)
    poison: list[Place] = field(default_factory=list)
    ends: dict[int, int] = field(default_factory=dict)
    records: int = 0

    def consumer(
        self, *, without: str | None = None, **settings: str
    ) -> AbstractAsyncContextManager[CouponConsumerProcess]:
        """Start one more consumer, perhaps without a guard; settings are variables without their prefix."""
        return open_coupon_consumer(
            self.postgres, self.database, self.kafka, self.topic, self.directory, without=without, **settings
        )

    async def produce(
        self,
        events: list[CouponEvent],
        *,
        copies: int = 1,
        poison: list[RawRecord] | None = None,
        partition: int | None = None,
    ) -> None:
        """Produce events, each so many times, mixed with poison; the order of one coupon's events is kept.

        They go where their keys say, or all to one partition.
        """
        records = [record_of(event, partition) for event in events for _ in range(copies)]
        for each in poison or []:
            records.insert(random.Random(len(records)).randrange(len(records) + 1), each)
        places = await produce(self.kafka.bootstrap, self.topic, records)
        poisonous = {id(each) for each in poison or []}
        self.poison += [place for each, place in zip(records, places, strict=True) if id(each) in poisonous]
        for number, offset in places:
            self.ends[number] = max(self.ends.get(number, 0), offset + 1)
        self.events += events
        self.records += len(records)

    async def fetch_value(self, sql: str, *arguments: object) -> object:
        """Ask the database one thing, over a connection of its own, since servers come and go."""
        connection = await asyncpg.connect(self.postgres.url(self.database), timeout=10)
        try:
            return await connection.fetchval(sql, *arguments)
        finally:
            await connection.close(timeout=10)

    async def stored_records(self) -> int:
        """Return how far the stored offsets are, over all partitions."""
        stored = await self.fetch_value("select coalesce(sum(next_offset), 0)::bigint from consumer_offsets")
        assert isinstance(stored, int)
        return stored

    async def wait_stored(self, *, at_least: int | None = None, seconds: float = 45) -> None:
        """Wait until so many records are settled; without a number, exactly those that were produced."""

        async def is_stored() -> bool:
            stored = await self.stored_records()
            return stored == self.records if at_least is None else stored >= at_least

        await eventually(is_stored, seconds=seconds)

    async def wait_some_stored(self) -> None:
        """Wait until the first records are settled."""
        await self.wait_stored(at_least=1)

    async def assert_exact(self, *, dead_letters: int = 0) -> None:
        """Compare sets: the coupons are those that the events make, each once and whole, and nothing else is there."""
        connection = await asyncpg.connect(self.postgres.url(self.database), timeout=10)
        try:
            assert await coupon_rows(connection) == rows_of(self.events)
            assert await connection.fetchval("select count(*) from dead_letters") == dead_letters
        finally:
            await connection.close(timeout=10)
