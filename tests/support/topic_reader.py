"""Read what a topic holds, whoever wrote it."""

import asyncio
import time

from confluent_kafka import Consumer, Message, TopicPartition

from loyalty.event import CouponEvent, decode
from tests.support.eventually import eventually

_PARTITIONS = 6
_END_SECONDS = 60.0


def _read_to_the_end(bootstrap: str, topic: str) -> list[Message]:
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "reader", "enable.auto.commit": False})
    places = [TopicPartition(topic, partition, 0) for partition in range(_PARTITIONS)]
    ends = {place.partition: consumer.get_watermark_offsets(place, _END_SECONDS)[1] for place in places}
    consumer.assign(places)
    messages: list[Message] = []
    give_up_at = time.monotonic() + _END_SECONDS
    try:
        while len(messages) < sum(ends.values()):
            if time.monotonic() > give_up_at:
                raise TimeoutError(f"{len(messages)} of {sum(ends.values())} records came")
            messages += [one for one in consumer.consume(1_000, timeout=0.1) if one.error() is None]
    finally:
        consumer.close()
    return messages


async def read_whole_topic(bootstrap: str, topic: str) -> list[Message]:
    """Return the records that a topic holds now; those of one key are in their order. It has no gaps in its offsets.

    Raises:
        TimeoutError: they did not come within a minute.
    """
    return await asyncio.to_thread(_read_to_the_end, bootstrap, topic)


async def read_topic(bootstrap: str, topic: str, at_least: int) -> list[Message]:
    """Return the records that a topic holds as soon as there are so many; those of one key are in their order.

    Raises:
        TimeoutError: there were not so many within a minute.
    """
    messages: list[Message] = []

    async def are_there() -> bool:
        messages[:] = await read_whole_topic(bootstrap, topic)
        return len(messages) >= at_least

    await eventually(are_there, seconds=_END_SECONDS, pause_seconds=0.05)
    return messages


async def read_events(bootstrap: str, topic: str, at_least: int) -> list[CouponEvent]:
    """Return the events of a topic, waiting up to a minute for so many; those of one coupon are in their order."""
    return [decode(message.value(), message.key()) for message in await read_topic(bootstrap, topic, at_least)]
