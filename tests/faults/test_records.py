"""Records that should not be there: poison, and every record several times."""

import asyncio
from pathlib import Path

import asyncpg
import pytest
from confluent_kafka import Producer

from sandbox.instance import COUPON_FLOW
from sandbox.system import System
from tests.support.eventually import eventually
from tests.support.fault_report import FaultReport
from tests.support.flow import open_flow
from tests.support.seeds import seeded
from tests.support.topic_reader import read_topic

POISON = [
    (b"", b"K"), (None, b"K"), (b"not json", b"K"), (b"{}", b"K"), (b"\xff\xfe", b"K"), (b"[" * 5_000, b"K"),
    (b'{"schema_version": 99}', b"K"), (b'{"type": "coupon.exploded"}', None), (b"null", None), (b"7", b"K"),
]  # fmt: skip


def _produce(system: System, records: list[tuple[bytes | None, bytes | None]]) -> None:
    producer = Producer({"bootstrap.servers": system.kafka.bootstrap})
    for value, key in records:
        producer.produce(system.topic, value, key)
    assert producer.flush(30) == 0


@pytest.mark.fault("K10", "30 poisonous records among the events of the whole platform")
async def test_poison_among_the_events_ends_in_the_dead_letters_and_harms_no_coupon(
    tmp_path: Path, fault_report: FaultReport
) -> None:
    """Each poisonous record is kept with its bytes and its cause; every redemption has its coupon all the same."""
    async with open_flow(tmp_path, services=COUPON_FLOW) as flow:
        for _ in range(3):
            await flow.wait_requests(50)
            await asyncio.to_thread(_produce, flow.system, POISON)
        poison = 3 * len(POISON)
        verdict, judgement = await flow.judgement(poison=poison)
        connection = await asyncpg.connect(flow.system.coupons_url)
        letters = await connection.fetch("select payload, error_class from dead_letters")
        await connection.close()
    fault_report.judge(judgement)
    assert verdict.dead_letters == poison
    assert sorted(str(row["payload"]) for row in letters) == sorted(str(value) for value, _ in POISON * 3)
    assert all(row["error_class"].endswith("Error") for row in letters)


@pytest.mark.fault("K9", "every event of the platform 2 to 5 times, the copies in any order")
async def test_every_event_delivered_several_times_makes_one_coupon(tmp_path: Path, fault_report: FaultReport) -> None:
    """Events that are sent again, in any order, two to five times, change nothing."""
    random = seeded("copies")
    async with open_flow(tmp_path, services=COUPON_FLOW) as flow:
        await flow.wait_requests(200)
        await flow.stop_traffic()
        await flow.drain()
        connection = await asyncpg.connect(flow.system.rewards_url)
        events = await connection.fetchval("select count(*) from outbox where published_at is not null")
        await connection.close()
        originals = await read_topic(flow.system.kafka.bootstrap, flow.system.topic, events)
        copies = [(one.value(), one.key()) for one in originals for _ in range(random.randrange(1, 5))]
        random.shuffle(copies)
        before = await _coupons(flow.system)
        await asyncio.to_thread(_produce, flow.system, copies)
        await _wait_consumed(flow.system, events + len(copies))
        assert await _coupons(flow.system) == before
        _, judgement = await flow.judgement()
    fault_report.judge(judgement)


async def _coupons(system: System) -> list[asyncpg.Record]:
    connection = await asyncpg.connect(system.coupons_url)
    rows: list[asyncpg.Record] = await connection.fetch("select * from coupons order by code")
    await connection.close()
    return rows


async def _wait_consumed(system: System, records: int) -> None:
    connection = await asyncpg.connect(system.coupons_url)

    async def are_consumed() -> bool:
        consumed: int = await connection.fetchval("select sum(next_offset)::bigint from consumer_offsets")
        return consumed >= records

    await eventually(are_consumed, seconds=60, pause_seconds=0.1)
    await connection.close()
