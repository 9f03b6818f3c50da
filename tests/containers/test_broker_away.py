"""Apache Kafka stopped, killed and started again under its clients: it keeps what it acknowledged."""

import asyncio
import time
from collections import Counter

import pytest

from runtime.kafka_producer import Delivery, Outcome, Record, open_producer
from runtime.settings import KafkaSettings
from sandbox.servers import KafkaServer
from tests.support.consumer_group import ConsumerGroup, assert_no_event_came_twice
from tests.support.consumer_judge import judge_steps, judge_world, recorded_steps
from tests.support.coupon_consumer_world import World
from tests.support.coupon_events import some_event
from tests.support.eventually import eventually
from tests.support.fault_report import FaultReport
from tests.support.topic_reader import read_topic

TOPIC = "restarted"
KEYS = 20
PIECE = 20
AWAY_SECONDS = 3.0
LINES_OF_TROUBLE = 60
"""Some are told once in ten seconds; the client itself would write tens a second."""


async def go_away_and_come_back(kafka: KafkaServer, how: str) -> None:
    """End the broker in order or not, and start it again after a while."""
    await (kafka.stop() if how == "stop" else kafka.kill())
    await asyncio.sleep(AWAY_SECONDS)
    await kafka.start()


@pytest.mark.timeout(240)
@pytest.mark.parametrize(
    ("how", "protocol"),
    [
        pytest.param(how, protocol, marks=pytest.mark.fault("K7", f"the broker {done} for 3 s, protocol {protocol}"))
        for how, done, protocol in (("stop", "stopped", "classic"), ("kill", "killed", "consumer"))
    ],
)
async def test_group_goes_on_after_a_restart_of_its_broker(
    fragile_kafka: World, how: str, protocol: str, fault_report: FaultReport
) -> None:
    """No member ends, none needs a restart; what was produced before and after is stored once."""
    world = fragile_kafka
    async with recorded_steps(world) as steps, ConsumerGroup(world, CONSUMER__GROUP_PROTOCOL=protocol) as group:
        await group.join()
        await group.join()
        await group.wait_whole()
        await world.produce([some_event() for _ in range(3_000)])
        await world.wait_some_stored()
        await go_away_and_come_back(world.kafka, how)
        back_at = time.monotonic()
        await world.produce([some_event() for _ in range(3_000)])
        await world.wait_stored(seconds=90)
        fault_report.measure(all_stored=f"{time.monotonic() - back_at:.1f} s")
        for member in group.members:
            await member.wait_readiness(200)
            await assert_no_event_came_twice(member)
            assert sum(line["level"] in {"warning", "error"} for line in member.log()) < LINES_OF_TROUBLE
        await group.wait_whole(seconds=90)
    fault_report.judge(await judge_world(world), judge_steps(steps, world.ends))


@pytest.mark.timeout(240)
@pytest.mark.parametrize("how", ["stop", "kill"])
async def test_idempotent_producer_loses_and_doubles_nothing_over_a_restart(own_kafka: KafkaServer, how: str) -> None:
    """Every record is delivered, is in the topic once, where its delivery says, and those of a key are in order."""
    await own_kafka.create_topic(TOPIC)
    settings = KafkaSettings(bootstrap=own_kafka.bootstrap, delivery_timeout_seconds=90.0)
    records: list[Record] = []
    publishing: list[asyncio.Task[list[Outcome]]] = []
    is_back = asyncio.Event()

    async def publish() -> None:
        while not is_back.is_set():
            piece = [
                Record(TOPIC, b"%d" % (number % KEYS), b"%d" % number)
                for number in range(len(records), len(records) + PIECE)
            ]
            records.extend(piece)
            publishing.append(asyncio.create_task(producer.publish_many(piece)))
            await asyncio.sleep(0.05)

    async with open_producer(settings) as producer:
        sending = asyncio.create_task(publish())
        await eventually(lambda: producer.statistics().delivered >= 10 * PIECE)
        await go_away_and_come_back(own_kafka, how)
        await asyncio.sleep(1)
        is_back.set()
        await sending
        outcomes = [outcome for piece in await asyncio.gather(*publishing) for outcome in piece]
        assert producer.statistics().renewed == 0
    assert [outcome for outcome in outcomes if not isinstance(outcome, Delivery)] == []
    messages = await read_topic(own_kafka.bootstrap, TOPIC, len(records))
    found = {(message.partition(), message.offset()): message.value() for message in messages}
    places = [(outcome.partition, outcome.offset) for outcome in outcomes if isinstance(outcome, Delivery)]
    assert [found[place] for place in places] == [record.value for record in records]
    assert Counter(message.value() for message in messages) == Counter(record.value for record in records)
    for key in range(KEYS):
        offsets = [offset for _, offset in places[key::KEYS]]
        assert offsets == sorted(offsets)
