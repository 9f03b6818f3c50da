"""What only a record from a real broker can hold."""

import asyncio
import gc

from confluent_kafka import Consumer, TopicPartition

from runtime.kafka_reader import Record
from sandbox.servers import KafkaServer
from services.coupon_consumer.decode import headers_of
from tests.support.foreign_producer import produce_with_header


def read_one(bootstrap: str, topic: str) -> Record:
    """Read the topic's only record, whatever its partition."""
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "reader", "enable.auto.commit": False})
    consumer.assign([TopicPartition(topic, partition, 0) for partition in range(6)])
    try:
        (record,) = consumer.consume(1, timeout=9)
    finally:
        consumer.close()
    assert record.error() is None
    return record


async def test_header_names_that_are_no_text_are_told_as_such_each_time(kafka: KafkaServer, topic: str) -> None:
    """Asking again, as every new try to store does, gives the same answer and harms nothing."""
    where = (kafka.bootstrap, topic)
    await asyncio.to_thread(produce_with_header, *where, name=b"\xff\xfe", value=b"{", key=b"K")
    record = await asyncio.to_thread(read_one, *where)
    assert [headers_of(record) for _ in range(3)] == [None] * 3
    gc.collect()
    assert record.value() == b"{"
