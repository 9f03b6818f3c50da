"""coupon_consumer working off a backlog, against batched unnest inserts of the same rows from memory.

Both write to the same table of the same server, one after the other, over and over. Run it alone with
``python -m tests.benchmarks.bench_coupon_consumer``.
"""

import asyncio
import statistics
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import asyncpg
import httpx
import uvloop

from loyalty.event import CouponEvent, CouponSnapshot, EventType
from loyalty.identifier import new_coupon_code, new_id
from sandbox.instance import Service
from sandbox.system import System, open_system
from tests.benchmarks.report import Row
from tests.support.coupon_events import produce, record_of

PAIRS: Final = 5
RECORDS: Final = 300_000
BATCH_ROWS: Final = 2_000

_INSERT: Final = """
insert into coupons (
    code, member_id, reward_id, redemption_id, value_cents, currency, issued_at, expires_at, version, status, source
)
select *, 'issued', 'event' from unnest(
    $1::text[], $2::text[], $3::text[], $4::uuid[], $5::bigint[], $6::text[], $7::timestamptz[], $8::timestamptz[],
    $9::bigint[]
)
on conflict (code) do nothing
"""


def _events(count: int) -> list[CouponEvent]:
    now = datetime.now(UTC)
    later = now + timedelta(days=365)
    return [
        CouponEvent(
            new_id(),
            EventType.ISSUED,
            now,
            CouponSnapshot(new_coupon_code(), f"m-{index % 10_000}", "rw-1", new_id(), 500, "EUR", now, later, 1),
        )
        for index in range(count)
    ]


async def _empty(connection: asyncpg.Connection) -> None:
    await connection.execute("truncate coupons, consumer_offsets")
    await connection.execute("checkpoint")


async def _insert_from_memory(connection: asyncpg.Connection, events: list[CouponEvent]) -> float:
    """Return the rate in rows a second."""
    rows = [(*event.coupon[:3], str(event.coupon.redemption_id), *event.coupon[4:]) for event in events]
    await _empty(connection)
    began = time.perf_counter()
    for first in range(0, len(rows), BATCH_ROWS):
        async with connection.transaction():
            await connection.execute(_INSERT, *zip(*rows[first : first + BATCH_ROWS], strict=True))
    return len(rows) / (time.perf_counter() - began)


async def _consume_backlog(system: System, connection: asyncpg.Connection, records: int) -> tuple[float, float]:
    """Return the rate in records a second from the first stored batch to the last, and the peak of memory in MB."""
    await _empty(connection)
    instance = await system.start(Service.COUPON_CONSUMER)
    first_at, first = 0.0, 0
    stored = 0
    while stored < records:
        await asyncio.sleep(0.01)
        stored = int(await connection.fetchval("select coalesce(sum(next_offset), 0) from consumer_offsets"))
        if stored and not first:
            first_at, first = time.perf_counter(), stored
    rate = (stored - first) / (time.perf_counter() - first_at)
    async with httpx.AsyncClient() as client:
        text = (await client.get(f"{instance.admin_url}/metrics")).text
    memory = next(line for line in text.splitlines() if line.startswith("lp_process_resident_memory_bytes "))
    await system.stop(instance)
    return rate, float(memory.split()[1]) / 1e6


async def measure(pairs: int = PAIRS, records: int = RECORDS) -> list[Row]:
    """Run both in alternating pairs and compare their rates."""
    with tempfile.TemporaryDirectory() as directory:
        async with open_system(Path(directory)) as system:
            connection = await asyncpg.connect(system.coupons_url)
            events = _events(records)
            await produce(system.kafka.bootstrap, system.topic, [record_of(event) for event in events])
            ours: list[float] = []
            reference: list[float] = []
            memory: list[float] = []
            for _ in range(pairs):
                reference.append(await _insert_from_memory(connection, events))
                rate, megabytes = await _consume_backlog(system, connection, records)
                ours.append(rate)
                memory.append(megabytes)
            await connection.close()
    ratios = [one / other for one, other in zip(ours, reference, strict=True)]
    return [
        Row(
            "coupon_consumer: rate against inserts from memory",
            statistics.median(ratios),
            ">= 0.7",
            f"{statistics.median(ours):,.0f} against {statistics.median(reference):,.0f} records/s; "
            f"{records:,} waiting, at most {BATCH_ROWS:,} a transaction; resident {max(memory):.0f} MB; "
            f"ratios {min(ratios):.2f} to {max(ratios):.2f}",
        )
    ]


def run() -> list[Row]:
    """Measure, on an event loop of its own."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(measure())


if __name__ == "__main__":
    pairs, records = (int(text) for text in sys.argv[1:3]) if len(sys.argv) > 2 else (PAIRS, RECORDS)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as own_runner:
        for row in own_runner.run(measure(pairs, records)):
            print(f"{row.name}: {row.ratio:.2f} ({row.goal}); {row.detail}")
