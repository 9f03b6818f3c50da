"""coupon_consumer from Kafka into Postgres, against batched inserts of the same rows from memory."""

import asyncio
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
from confluent_kafka import Producer

from loyalty.event import CouponEvent, CouponSnapshot, EventType, encode
from loyalty.identifier import new_id
from sandbox.instance import COUPON_FLOW, Service
from sandbox.system import System, open_system
from tests.benchmarks.coupon_record import snapshots
from tests.benchmarks.report import Row

PAIRS = 5
RECORDS = 1_000_000
BATCH = 2_000
DEADLINE_SECONDS = 300.0
POLL_SECONDS = 0.2
MEGABYTE = 1024 * 1024

# Plain inserts of whole rows: no guard, no version, no decoding.
_INSERT = """
insert into coupons (
    code, member_id, reward_id, redemption_id, value_cents, currency, issued_at, expires_at, version, status, source
)
select code, member_id, reward_id, redemption_id, value_cents, currency, issued_at, expires_at, version,
    'issued', 'event'
from unnest(
    $1::text[], $2::text[], $3::text[], $4::uuid[], $5::bigint[], $6::text[], $7::timestamptz[], $8::timestamptz[],
    $9::bigint[]
) as row (code, member_id, reward_id, redemption_id, value_cents, currency, issued_at, expires_at, version)
"""


@dataclass(frozen=True, slots=True)
class Consumed:
    """One run of the consumer: its rate over the middle of the run, and its memory early and at its highest."""

    records_per_second: float
    early_bytes: int
    most_bytes: int


def _fill(system: System, coupons: list[CouponSnapshot]) -> None:
    """Put one event a coupon into the topic and wait for the broker's word for all of them."""
    producer = Producer({"bootstrap.servers": system.kafka.bootstrap, "linger.ms": 20, "compression.type": "none"})
    for snapshot in coupons:
        event = CouponEvent(new_id(), EventType.ISSUED, snapshot.issued_at, snapshot)
        while True:
            try:
                producer.produce(system.topic, encode(event), snapshot.code.encode())
            except BufferError:
                producer.poll(0.1)
            else:
                break
    if producer.flush(DEADLINE_SECONDS):
        raise RuntimeError("the broker did not take all records")


def _resident_bytes(pid: int) -> int:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * 4_096


async def _consume(system: System, connection: "asyncpg.Connection[Any]", group: str, count: int) -> Consumed:
    """Run the real process under a fresh group until the table of offsets says that all was stored."""
    await connection.execute("truncate coupons")
    consumer = await system.start(Service.COUPON_CONSUMER, {"COUPON_CONSUMER_CONSUMER__GROUP": group})
    marks: list[tuple[float, int, int]] = []
    give_up_at = time.monotonic() + DEADLINE_SECONDS
    while not marks or marks[-1][1] < count:
        if time.monotonic() > give_up_at:
            raise RuntimeError(f"only {marks[-1][1] if marks else 0} of {count} records after {DEADLINE_SECONDS:g} s")
        done = await connection.fetchval(
            "select coalesce(sum(next_offset), 0)::bigint from consumer_offsets where consumer_group = $1", group
        )
        if done:
            marks.append((time.monotonic(), done, _resident_bytes(consumer.process.pid)))
        await asyncio.sleep(POLL_SECONDS)
    await system.stop(consumer)
    begin = next(mark for mark in marks if mark[1] >= count * 0.05)
    end = marks[-1]
    rate = (end[1] - begin[1]) / (end[0] - begin[0])
    early = max(mark[2] for mark in marks if mark[1] <= count * 0.2 or mark is begin)
    return Consumed(rate, early, max(mark[2] for mark in marks))


async def _insert(connection: "asyncpg.Connection[Any]", batches: list[list[tuple[object, ...]]]) -> float:
    """Insert the same rows from memory, a batch a transaction, and return the rate."""
    await connection.execute("truncate coupons")
    statement = await connection.prepare(_INSERT)
    began = time.monotonic()
    for columns in batches:
        await statement.fetch(*columns)
    return sum(len(columns[0]) for columns in batches) / (time.monotonic() - began)


async def measure(scale: float) -> list[Row]:
    """Fill the topic once, then run reference and consumer in alternating pairs."""
    count = max(BATCH, round(RECORDS * scale))
    with tempfile.TemporaryDirectory() as directory:
        async with open_system(Path(directory), services=COUPON_FLOW) as system:
            coupons = list(snapshots(count))
            await asyncio.to_thread(_fill, system, coupons)
            batches = [list(zip(*coupons[first : first + BATCH], strict=True)) for first in range(0, count, BATCH)]
            connection = await asyncpg.connect(system.coupons_url)
            inserted: list[float] = []
            consumed: list[Consumed] = []
            for pair in range(PAIRS):
                inserted.append(await _insert(connection, batches))
                consumed.append(await _consume(system, connection, f"bench-{pair}", count))
            await connection.close()
    ratios = [one.records_per_second / other for one, other in zip(consumed, inserted, strict=True)]
    growth = [one.most_bytes / one.early_bytes for one in consumed]
    rate = statistics.median(one.records_per_second for one in consumed)
    most = max(one.most_bytes for one in consumed)
    return [
        Row(
            "coupon_consumer: rate against batched inserts from memory",
            statistics.median(ratios),
            ">= 0.7",
            f"{rate:,.0f} records/s against {statistics.median(inserted):,.0f} rows/s; "
            f"ratios {min(ratios):.2f} to {max(ratios):.2f}",
        ),
        Row(
            "coupon_consumer: highest memory with a million records waiting against that in their first fifth",
            statistics.median(growth),
            "<= 1.25",
            f"at most {most / MEGABYTE:.0f} MB resident",
        ),
    ]


def run(scale: float = 1.0) -> list[Row]:
    """Measure, on an event loop of its own."""
    return asyncio.run(measure(scale))
