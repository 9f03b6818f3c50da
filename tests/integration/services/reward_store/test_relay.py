"""Relays between a real database and a real broker."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from uuid import UUID

import asyncpg
import pytest
from prometheus_client import CollectorRegistry

from loyalty.event import CouponEvent, EventType
from loyalty.reward import Member
from patterns import background
from runtime.kafka_producer import open_producer
from runtime.postgres import PostgresPool
from runtime.settings import KafkaSettings
from sandbox.servers import KafkaServer
from services.reward_store.metrics import RelayMetrics
from services.reward_store.relay import Relay
from services.reward_store.settings import RelaySettings
from tests.support.reward_store_contract import HEADERS, LEASE, id_of, some_order, some_reward
from tests.support.reward_world import PostgresWorld
from tests.support.servers import create_topic
from tests.support.topic_reader import read_events, read_topic

SETTINGS = RelaySettings(
    batch_rows=20, poll_interval_seconds=0.05, backoff_first_seconds=0.1, backoff_most_seconds=0.5, finish_seconds=20
)


@pytest.fixture
async def world(pool: PostgresPool, administrator: asyncpg.Connection, kafka: KafkaServer) -> PostgresWorld:
    """The real store on a fresh topic, with one reward and a rich member."""
    return await stocked(PostgresWorld(pool, administrator, await create_topic(kafka)))


async def stocked(world: PostgresWorld) -> PostgresWorld:
    """Let one reward and a rich member be there."""
    await world.put_reward(some_reward(stock=1_000_000))
    await world.put_member(Member("m-1", 100_000_000))
    return world


async def redeem(world: PostgresWorld, count: int, *, first: int = 0) -> list[UUID]:
    """Redeem so often, and return the redemptions."""
    numbers = range(first, first + count)
    orders = [some_order(key=f"key-{number:05}") for number in numbers]
    return [id_of(answer) for answer in await asyncio.gather(*(world.store.redeem(order) for order in orders))]


async def cancel(world: PostgresWorld, redemption_id: UUID) -> None:
    """Cancel a redemption whose coupon is unused."""
    await world.store.begin_cancel(redemption_id, "m-1", LEASE)
    await world.store.finish_cancel(redemption_id, HEADERS)


@asynccontextmanager
async def open_relays(world: PostgresWorld, kafka: KafkaServer, count: int) -> AsyncIterator[list[Relay]]:
    """Run so many relays, each with a producer of its own as in a process of its own, and stop them in order."""
    kafka_settings = KafkaSettings(bootstrap=kafka.bootstrap, delivery_timeout_seconds=1.5)
    async with AsyncExitStack() as stack:
        relays = []
        for number in range(count):
            producer = await stack.enter_async_context(open_producer(kafka_settings, name=f"relay-{number}"))
            relays.append(Relay(world.outbox, producer, SETTINGS, RelayMetrics(CollectorRegistry())))
        with background().with_cancel() as ctx:
            tasks = [asyncio.create_task(relay.run(ctx)) for relay in relays]
            try:
                yield relays
            finally:
                ctx.cancel()
                await asyncio.gather(*tasks)


def by_redemption(events: list[CouponEvent]) -> dict[UUID | None, list[EventType]]:
    """Return the types of each redemption's events, in their order."""
    types: dict[UUID | None, list[EventType]] = {}
    for event in events:
        types.setdefault(event.coupon.redemption_id, []).append(event.type)
    return types


async def test_several_relays_bring_every_event_to_the_topic_once_and_in_order(
    world: PostgresWorld, kafka: KafkaServer
) -> None:
    """Under redemptions and cancellations that go on meanwhile, the topic ends with each event once."""
    async with open_relays(world, kafka, 3):
        ids = await redeem(world, 150)
        await asyncio.gather(*(cancel(world, redemption_id) for redemption_id in ids[::3]))
        await world.wait_published()
    events = await read_events(kafka.bootstrap, world.topic, 200)
    assert Counter(event.event_id for event in events) == Counter(row.id for row in await world.events())
    expected = {
        redemption_id: [EventType.ISSUED, EventType.CANCELLED] if number % 3 == 0 else [EventType.ISSUED]
        for number, redemption_id in enumerate(ids)
    }
    assert by_redemption(events) == expected


async def test_a_record_carries_key_and_trace_of_the_request(world: PostgresWorld, kafka: KafkaServer) -> None:
    """The key is the coupon's code, and `traceparent` comes through as it was stored with the redemption."""
    await redeem(world, 1)
    async with open_relays(world, kafka, 1):
        await world.wait_published()
    [message] = await read_topic(kafka.bootstrap, world.topic, 1)
    [redemption] = await world.redemptions()
    assert message.key() == redemption.coupon_code.encode()
    assert message.headers() == [("traceparent", HEADERS["traceparent"].encode())]


@pytest.mark.timeout(120)
async def test_a_frozen_broker_delays_events_and_loses_none(
    pool: PostgresPool, administrator: asyncpg.Connection, own_kafka: KafkaServer
) -> None:
    """While the broker is silent nothing is marked; afterwards every event is there, a coupon's events in order."""
    world = await stocked(PostgresWorld(pool, administrator, await create_topic(own_kafka)))
    async with open_relays(world, own_kafka, 2):
        ids = await redeem(world, 30)
        await world.wait_published()
        own_kafka.freeze()
        try:
            ids += await redeem(world, 30, first=30)
            await asyncio.gather(*(cancel(world, redemption_id) for redemption_id in ids[:10]))
            await asyncio.sleep(4)  # longer than the broker's word is awaited
            assert (await world.outbox.backlog()).rows == 40
        finally:
            own_kafka.thaw()
        await world.wait_published(60)
    events = await read_events(own_kafka.bootstrap, world.topic, 70)
    assert {event.event_id for event in events} == {row.id for row in await world.events()}
    first_types = {key: list(dict.fromkeys(types)) for key, types in by_redemption(events).items()}
    assert all(first_types[redemption_id] == [EventType.ISSUED, EventType.CANCELLED] for redemption_id in ids[:10])
    assert all(first_types[redemption_id] == [EventType.ISSUED] for redemption_id in ids[10:])


async def test_a_relay_cut_off_in_its_batch_leaves_it_to_the_next_one(world: PostgresWorld, kafka: KafkaServer) -> None:
    """A cancel while the broker is awaited hands the rows back: another relay need not wait for the lease's end."""
    await redeem(world, 20)
    async with open_producer(KafkaSettings(bootstrap=kafka.bootstrap)) as producer:
        relay = Relay(world.outbox, producer, SETTINGS, RelayMetrics(CollectorRegistry()))
        for rounds in range(12):
            task = asyncio.create_task(relay.publish_batch())
            for _ in range(rounds):
                await asyncio.sleep(0.001)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
    leased = await world.administrator.fetchval("select count(*) from outbox where claimed_until > now()")
    async with open_relays(world, kafka, 1):
        if leased:  # a cancel between the claim's commit and its answer: only the lease's end frees those
            await world.age_leases(timedelta(hours=1))
        await world.wait_published()
    events = await read_events(kafka.bootstrap, world.topic, 20)
    assert {event.event_id for event in events} == {row.id for row in await world.events()}
