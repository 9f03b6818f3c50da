"""K7 and K8: the reading of a topic, with the real client, while brokers are away or refuse what Kafka's tools want."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from confluent_kafka import KafkaError

from patterns import background
from runtime.consumer_settings import ConsumerSettings
from runtime.kafka_batch import Assigned
from runtime.kafka_consumer import KafkaConsumer
from tests.support.coupon_events import Place, RawRecord, produce
from tests.support.fault_report import FaultReport
from tests.support.judgement import Judgement, judge_progress
from tests.support.kafka_world import Offsets, offsets_of
from tests.support.ledger import judge_units
from tests.support.mock_brokers import OFFSET_COMMIT, MockBrokers, open_mock_brokers

TOPIC = "events"
PIECE = 200
AWAY_SECONDS = 5.0
REFUSALS = ("ILLEGAL_GENERATION", "REBALANCE_IN_PROGRESS", "COORDINATOR_NOT_AVAILABLE", "UNKNOWN_MEMBER_ID")


class _Reading:
    """Reads records and keeps them with the partitions' next offsets, as the service does in its database."""

    def __init__(self, brokers: MockBrokers) -> None:
        settings = ConsumerSettings(topic=TOPIC, session_timeout_seconds=6, commit_interval_seconds=0.1)
        self.ctx = background().with_cancel()
        self.consumer: KafkaConsumer[Offsets] = KafkaConsumer(
            settings, {"bootstrap.servers": brokers.bootstrap}, offsets_of
        )
        self._bootstrap = brokers.bootstrap
        self._produced: list[Place] = []
        self._kept: list[str] = []
        self._nexts: dict[int, int] = {}

    async def produce(self) -> None:
        """Produce some more records."""
        records = [RawRecord(b"value", b"%d" % number) for number in range(PIECE)]
        self._produced += await produce(self._bootstrap, TOPIC, records)

    async def read(self) -> None:
        """Read until as many are kept as were produced."""
        async with asyncio.timeout(60):
            while len(self._kept) < len(self._produced):
                await self._read_some()

    async def _read_some(self) -> None:
        found = await self.consumer.read(self.ctx, records_max=100)
        if isinstance(found, Assigned):
            for partition, generation in found.generations.items():
                self.consumer.place(partition, generation, self._nexts.setdefault(partition, 0))
            return
        with self.consumer.working(found):
            for batch in found:
                self._kept += [f"{batch.partition}/{offset}" for offset in batch.content]
                self._nexts[batch.partition] = batch.next_offset
            self.consumer.settle(found)

    def judge(self) -> Judgement:
        """Hold what was kept against what was produced, by partition and offset, and the next offsets (L1 to L5)."""
        asked = [(f"{partition}/{offset}", "") for partition, offset in self._produced]
        ends: dict[str, int] = {}
        for partition, offset in self._produced:
            ends[str(partition)] = max(ends.get(str(partition), 0), offset + 1)
        nexts = {str(partition): offset for partition, offset in self._nexts.items() if offset}
        return judge_units(asked, asked, [(one, "") for one in self._kept]) | judge_progress(ends, nexts)


@asynccontextmanager
async def _reading(brokers: MockBrokers) -> AsyncIterator[_Reading]:
    brokers.create_topic(TOPIC, partitions=3)
    reading = _Reading(brokers)
    reading.consumer.start(reading.ctx)
    try:
        await reading.produce()
        await reading.read()
        yield reading
    finally:
        reading.ctx.cancel()
        await reading.consumer.aclose()


@pytest.mark.fault("K7", f"all brokers down for {AWAY_SECONDS:g} s, then 1 s away by every round trip")
async def test_brokers_down_and_then_far_away_are_waited_out(fault_report: FaultReport) -> None:
    """The client goes on by itself: what was produced before, after and over the long way is read once, in order."""
    with open_mock_brokers() as brokers:
        async with _reading(brokers) as reading:
            await reading.produce()
            brokers.set_down()
            await asyncio.sleep(AWAY_SECONDS)
            brokers.set_up()
            loop = asyncio.get_running_loop()
            back_at = loop.time()
            await reading.produce()
            await reading.read()
            fault_report.measure(all_read=f"{loop.time() - back_at:.1f} s")
            brokers.set_round_trip(1_000)
            await reading.produce()
            await reading.read()
            brokers.set_round_trip(0)
        fault_report.judge(reading.judge())


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.fault("K8", f"the broker answers a commit with {name}"))
        for name in REFUSALS
    ],
)
async def test_commit_that_the_broker_refuses_costs_no_record(name: str, fault_report: FaultReport) -> None:
    """Even where the client gives its partitions up for it: they come back and are read on from where they stand."""
    with open_mock_brokers() as brokers:
        async with _reading(brokers) as reading:
            brokers.fail(OFFSET_COMMIT, getattr(KafkaError, name))
            for _ in range(2):
                await reading.produce()
                await reading.read()
            statistics = reading.consumer.statistics().reader
            fault_report.measure(commits_failed=str(statistics.commits_failed), assignments_lost=str(statistics.lost))
        fault_report.judge(reading.judge())
