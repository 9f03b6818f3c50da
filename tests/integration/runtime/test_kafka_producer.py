"""The Kafka producer on a real broker: answers, order, bounds, a broker that freezes or is not there."""

import asyncio

import pytest

from runtime.errors import DeliveryUnknown, DependencyUnavailable, RecordRefusedError
from runtime.kafka_producer import Delivery, KafkaProducer, Record, open_producer
from runtime.settings import KafkaSettings
from sandbox.servers import KafkaServer
from tests.support.eventually import eventually
from tests.support.topic_reader import read_topic


async def test_a_published_record_is_where_its_delivery_says_with_key_value_and_headers(
    kafka: KafkaServer, topic: str
) -> None:
    """What a consumer reads at the delivery's place is the record, headers included."""
    async with open_producer(KafkaSettings(bootstrap=kafka.bootstrap)) as producer:
        delivery = await producer.publish(topic, b"key", b"value", (("traceparent", b"00-aa"), ("empty", b"")))
    (message,) = await read_topic(kafka.bootstrap, topic, 1)
    assert (message.topic(), message.partition(), message.offset()) == delivery
    assert (message.key(), message.value()) == (b"key", b"value")
    assert message.headers() == [("traceparent", b"00-aa"), ("empty", b"")]


async def test_twenty_thousand_records_are_answered_once_each_and_in_order_of_their_key(
    kafka: KafkaServer, topic: str
) -> None:
    """With a queue far smaller than the batch every record is stored exactly once, and offsets of a key only rise."""
    records = [Record(topic, b"%d" % (number % 20), b"%d" % number) for number in range(20_000)]
    async with open_producer(KafkaSettings(bootstrap=kafka.bootstrap, queue_records=700)) as producer:
        outcomes = await producer.publish_many(records)
        statistics = producer.statistics()
    assert all(isinstance(outcome, Delivery) for outcome in outcomes)
    assert (statistics.under_way_records, statistics.under_way_bytes, statistics.delivered) == (0, 0, 20_000)
    messages = await read_topic(kafka.bootstrap, topic, 20_000)
    assert sorted(int(message.value() or b"-1") for message in messages) == list(range(20_000))
    by_place = {(message.partition(), message.offset()): message.value() for message in messages}
    assert [by_place[outcome[1:]] for outcome in outcomes if isinstance(outcome, Delivery)] == [
        r.value for r in records
    ]
    for key in range(20):
        offsets = [outcome[2] for outcome in outcomes[key::20] if isinstance(outcome, Delivery)]
        assert offsets == sorted(offsets)


async def test_a_record_above_the_size_limit_is_refused_and_its_neighbours_are_stored(
    kafka: KafkaServer, topic: str
) -> None:
    """Only the record at fault fails, with an error that says another try is of no use."""
    settings = KafkaSettings(bootstrap=kafka.bootstrap, record_bytes=10_000)
    async with open_producer(settings) as producer:
        records = [Record(topic, b"k", value) for value in (b"a", b"x" * 20_000, b"b")]
        first, second, third = await producer.publish_many(records)
    assert isinstance(first, Delivery)
    assert isinstance(second, RecordRefusedError)
    assert isinstance(third, Delivery)


async def test_no_records_need_no_broker() -> None:
    """An empty batch is answered at once."""
    async with open_producer(KafkaSettings(bootstrap="127.0.0.1:1")) as producer:
        assert await producer.publish_many([]) == []


async def test_a_broker_that_is_not_there_fails_a_record_in_time_as_unknown() -> None:
    """The caller hears within the delivery's time that the record's fate is not known, and readiness is red."""
    settings = KafkaSettings(
        bootstrap="127.0.0.1:1", delivery_timeout_seconds=0.5, check_timeout_seconds=0.2, flush_timeout_seconds=0.2
    )
    async with asyncio.timeout(15), open_producer(settings) as producer:
        with pytest.raises(DeliveryUnknown):
            await producer.publish("nowhere", b"k", b"v")
        with pytest.raises(DependencyUnavailable):
            await producer.check()
        await eventually(lambda: producer.statistics().under_way_records == 0)


async def test_a_queue_that_stays_full_refuses_a_record_without_sending_it() -> None:
    """The record that found no room is not unknown: it was never sent; the loop turned all the while."""
    settings = KafkaSettings(
        bootstrap="127.0.0.1:1", queue_records=1, delivery_timeout_seconds=0.5, flush_timeout_seconds=0.2
    )
    turns = 0

    async def turn() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0.01)

    turning = asyncio.create_task(turn())
    async with open_producer(settings) as producer:
        stuck = [asyncio.create_task(producer.publish("nowhere", b"k", b"v")) for _ in range(20)]
        ends = await asyncio.gather(*stuck, return_exceptions=True)
    turning.cancel()
    assert all(isinstance(end, DependencyUnavailable) for end in ends)
    assert any(not isinstance(end, DeliveryUnknown) for end in ends)
    assert turns > 10


async def test_a_frozen_broker_delays_a_record_and_stores_it_once(own_kafka: KafkaServer) -> None:
    """A record sent into a frozen broker that comes back within the delivery's time is stored exactly once."""
    await own_kafka.create_topic("frozen")
    async with open_producer(KafkaSettings(bootstrap=own_kafka.bootstrap)) as producer:
        await producer.publish("frozen", b"k", b"before")
        own_kafka.freeze()
        try:
            publishing = asyncio.create_task(producer.publish("frozen", b"k", b"during"))
            await asyncio.sleep(1.0)
            assert not publishing.done()
        finally:
            own_kafka.thaw()
        await publishing
    messages = await read_topic(own_kafka.bootstrap, "frozen", 2)
    assert [message.value() for message in messages] == [b"before", b"during"]


async def test_a_broker_frozen_for_longer_is_an_unknown_outcome_and_the_producer_recovers(
    own_kafka: KafkaServer,
) -> None:
    """The caller is told in time that the record may be stored; after the thaw the same producer delivers again."""
    await own_kafka.create_topic("frozen")
    settings = KafkaSettings(bootstrap=own_kafka.bootstrap, delivery_timeout_seconds=3.0, check_timeout_seconds=0.3)
    async with open_producer(settings) as producer:
        await producer.publish("frozen", b"k", b"before")
        own_kafka.freeze()
        try:
            async with asyncio.timeout(20):
                with pytest.raises(DeliveryUnknown):
                    await producer.publish("frozen", b"k", b"during")
                with pytest.raises(DependencyUnavailable):
                    await producer.check()
        finally:
            own_kafka.thaw()
        await _publish_until_stored(producer, "frozen", b"after")


async def test_a_broker_that_restarts_is_found_again(own_kafka: KafkaServer) -> None:
    """After a restart the same producer delivers; behind what was there, where the broker keeps its topics."""
    await own_kafka.create_topic("again")
    settings = KafkaSettings(bootstrap=own_kafka.bootstrap, delivery_timeout_seconds=2.0)
    async with open_producer(settings) as producer:
        await _publish_until_stored(producer, "again", b"before")
        await own_kafka.stop()
        with pytest.raises(DependencyUnavailable):
            await producer.publish("again", b"k", b"during")
        await own_kafka.start()
        if own_kafka.is_embedded:
            await own_kafka.create_topic("again")
        await _publish_until_stored(producer, "again", b"after")
    messages = await read_topic(own_kafka.bootstrap, "again", 1 if own_kafka.is_embedded else 2)
    assert {b"after"} <= {message.value() for message in messages} <= {b"before", b"during", b"after"}


async def _publish_until_stored(producer: KafkaProducer, topic: str, value: bytes) -> None:
    async with asyncio.timeout(40):
        while True:
            try:
                await producer.publish(topic, b"k", value)
            except DependencyUnavailable:
                await asyncio.sleep(0.1)
            else:
                return


async def test_a_cancelled_publish_leaves_the_producer_whole(kafka: KafkaServer, topic: str) -> None:
    """A hundred publishes cancelled in flight leave no count behind, and the next record is delivered."""
    async with open_producer(KafkaSettings(bootstrap=kafka.bootstrap)) as producer:
        for _ in range(100):
            publishing = asyncio.create_task(producer.publish(topic, b"k", b"v"))
            await asyncio.sleep(0)
            publishing.cancel()
            with pytest.raises(asyncio.CancelledError):
                await publishing
        await producer.publish(topic, b"k", b"last")
        await eventually(lambda: producer.statistics().under_way_records == 0)
        assert producer.statistics().under_way_bytes == 0


async def test_closing_waits_for_answers_and_refuses_what_comes_later(kafka: KafkaServer, topic: str) -> None:
    """Records under way at the close are delivered; one after it is refused as not sent."""
    async with open_producer(KafkaSettings(bootstrap=kafka.bootstrap, linger_ms=200)) as producer:
        publishing = asyncio.create_task(producer.publish(topic, b"k", b"v"))
        await asyncio.sleep(0.05)
    assert isinstance(await publishing, Delivery)
    with pytest.raises(DependencyUnavailable, match="not sent"):
        await producer.publish(topic, b"k", b"late")


async def test_closing_without_a_broker_is_bounded_and_answers_everyone() -> None:
    """With nobody to deliver to, the close ends at its bound and each waiting caller hears that the fate is unknown."""
    settings = KafkaSettings(bootstrap="127.0.0.1:1", delivery_timeout_seconds=60, flush_timeout_seconds=0.2)
    async with asyncio.timeout(15):
        async with open_producer(settings) as producer:
            waiting = [asyncio.create_task(producer.publish("nowhere", b"k", b"v")) for _ in range(10)]
            await asyncio.sleep(0.05)
        ends = await asyncio.gather(*waiting, return_exceptions=True)
    assert all(isinstance(end, DeliveryUnknown) for end in ends)
