"""Offsets and topics that Apache Kafka really takes away under a running consumer."""

import asyncio
from typing import Final

import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient

from tests.support.consumer_group import PARTITIONS, steady_events
from tests.support.coupon_consumer_process import run_command
from tests.support.coupon_consumer_world import World
from tests.support.coupon_events import some_event
from tests.support.eventually import eventually
from tests.support.servers import make_topic_anew

_CALL_SECONDS: Final = 30


async def delete_records(world: World) -> dict[int, int]:
    """Delete everything that is in the topic; return where each partition begins now."""
    return await asyncio.to_thread(_delete_records, world.kafka.bootstrap, world.topic)


def _delete_records(bootstrap: str, topic: str) -> dict[int, int]:
    admin = AdminClient({"bootstrap.servers": bootstrap})
    places = [TopicPartition(topic, partition, -1) for partition in range(PARTITIONS)]  # -1: up to the end
    futures = admin.delete_records(places, request_timeout=_CALL_SECONDS)
    return {place.partition: future.result(_CALL_SECONDS).low_watermark for place, future in futures.items()}


@pytest.mark.timeout(180)
async def test_records_deleted_before_they_were_read_end_the_consumer_until_an_operator_decides(world: World) -> None:
    """It skips nothing in silence: status 1, no offset moved, the same after a restart; reset-offsets frees it."""
    await world.produce([some_event() for _ in range(300)])
    async with world.consumer():
        await world.wait_stored()
    stored = await world.stored_records()
    kept = list(world.events)
    await world.produce([some_event() for _ in range(300)])
    firsts = await delete_records(world)
    for _ in range(2):
        async with world.consumer() as service:
            assert await service.process.wait(40) == 1
        text = service.process.log.read_text()
        assert "records are gone that nobody has read" in text
        assert "reset-offsets" in text
        assert await world.stored_records() == stored
    where = (world.postgres, world.database, world.kafka.bootstrap, world.topic)
    done = await run_command(*where, "reset-offsets", "--to", "0", "--partition", "0")
    assert (done.returncode, f"partition 0 has no offset 0: it has {firsts[0]} to {firsts[0]}" in done.stdout) == (
        1,
        True,
    )
    done = await run_command(*where, "reset-offsets", "--to", "earliest")
    assert done.returncode == 0
    assert f"partition 0: next offset {firsts[0]}" in done.stdout
    world.events = kept
    await world.produce([some_event() for _ in range(300)])
    async with world.consumer() as service:
        await world.wait_stored()
        await service.wait_readiness(200)
    await world.assert_exact()


@pytest.mark.timeout(120)
async def test_records_deleted_behind_a_running_consumer_are_no_matter(world: World) -> None:
    """What was read may go: the consumer stands at the new beginning, and reads on."""
    async with world.consumer() as service:
        await world.produce([some_event() for _ in range(300)])
        await world.wait_stored()
        await delete_records(world)
        await world.produce([some_event() for _ in range(300)])
        await world.wait_stored()
        await service.wait_readiness(200)
    await world.assert_exact()


@pytest.mark.timeout(120)
async def test_stored_offset_beyond_the_end_ends_the_consumer_loudly(world: World) -> None:
    """A log that lost its end is no reason to wait in silence, or to begin anew: status 1, and nothing is stored."""
    await world.produce([some_event() for _ in range(300)])
    async with world.consumer():
        await world.wait_stored()
    await world.fetch_value("update consumer_offsets set next_offset = next_offset + 1000")
    async with world.consumer() as service:
        assert await service.process.wait(40) == 1
    assert "records are gone that nobody has read" in service.process.log.read_text()
    assert await world.stored_records() == world.records + PARTITIONS * 1_000


@pytest.mark.timeout(180)
@pytest.mark.parametrize("protocol", ["classic", "consumer"])
async def test_topic_made_anew_under_load_is_read_from_its_beginning(world: World, protocol: str) -> None:
    """A running member notices the new id and reads the new topic whole, with no restart and no offset mixed."""
    async with world.consumer(START="latest", CHECK_SECONDS="0.5", CONSUMER__GROUP_PROTOCOL=protocol) as service:
        await service.wait_event("Partitions placed")
        async with steady_events(world):
            await world.wait_some_stored()
        await world.wait_stored()
        old = len(world.events)
        await make_topic_anew(world.kafka, world.topic)
        async with steady_events(world):
            await asyncio.sleep(2)

        async def is_stored() -> bool:
            return await world.stored_records() == world.records

        await eventually(is_stored, seconds=90)
        assert len(world.events) > old
        assert await world.fetch_value("select count(distinct topic_id) from consumer_offsets") == 2
        await service.wait_readiness(200)
    await world.assert_exact()


@pytest.mark.timeout(180)
@pytest.mark.parametrize("protocol", ["classic", "consumer"])
async def test_topic_made_anew_is_noticed_by_the_reading_alone(world: World, protocol: str) -> None:
    """A fetch at an offset that is gone stops the client for good: with no restart it gets its partitions anew.

    The broker of the consumer protocol revokes and assigns them by itself; in the classic one the group is left.
    """
    never = {"CHECK_SECONDS": "3600", "BROKER_DOWN_SECONDS": "3600"}
    async with world.consumer(CONSUMER__GROUP_PROTOCOL=protocol, **never) as service:
        await world.produce([some_event() for _ in range(600)])
        await world.wait_stored()
        await make_topic_anew(world.kafka, world.topic)
        await world.produce([some_event() for _ in range(60)])

        async def is_stored() -> bool:
            return await world.stored_records() == world.records

        await eventually(is_stored, seconds=60)
        assert (await service.rebalances())[1:] == (1, 0)  # revoked once, never lost
    await world.assert_exact()
