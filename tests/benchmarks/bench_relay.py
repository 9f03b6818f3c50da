"""reward_store's relay from a full outbox to the topic, against a producer that sends the same records from memory.

The reference has no database and awaits no single record: it is a ceiling that no outbox can reach. A relayed row is
two updates in PostgreSQL (claim, mark) and one confirmed record; measured, it costs the process 56 us of CPU, and
PostgreSQL 62, where the reference costs 9.
"""

import asyncio
import json
import statistics
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import asyncpg

from loyalty.identifier import new_id
from runtime.kafka_producer import Record
from sandbox.instance import COUPON_FLOW, Instance, Service
from sandbox.system import System, open_system
from tests.benchmarks.coupon_record import produce_plainly, records
from tests.benchmarks.report import Row

PAIRS = 3
ROWS = 100_000
DEADLINE_SECONDS = 300.0
POLL_SECONDS = 0.1
_PUBLISHED = "lp_outbox_published_total"
_COLUMNS = ("id", "topic", "key", "version", "payload", "headers", "created_at")


async def _fill(connection: "asyncpg.Connection[Any]", waiting: list[Record]) -> None:
    """Put one unpublished row a record into the outbox, which is empty before."""
    now = datetime.now(UTC)
    rows = [
        (
            new_id(),
            record.topic,
            (record.key or b"").decode(),
            1,
            record.value,
            json.dumps({name: value.decode() for name, value in record.headers}),
            now,
        )
        for record in waiting
    ]
    await connection.execute("truncate outbox")
    await connection.copy_records_to_table("outbox", records=rows, columns=_COLUMNS)
    await connection.execute("vacuum analyze outbox")


async def _relay(system: System, connection: "asyncpg.Connection[Any]", count: int) -> float:
    """Run the real process until its relay has published all, and return the rate over the middle of the run."""
    instance = await system.launch(Service.REWARD_STORE)
    marks = await _watch(instance, count)
    await system.stop(instance)
    left = await connection.fetchval("select count(*) from outbox where published_at is null")
    if left:
        raise RuntimeError(f"{left} rows are not marked as published")
    begin, end = next(mark for mark in marks if mark[1] >= count * 0.05), marks[-1]
    return (end[1] - begin[1]) / (end[0] - begin[0])


async def _watch(instance: Instance, count: int) -> list[tuple[float, float]]:
    """Note when how many rows were published, until all are; from the process's own counter, which costs it little."""
    marks: list[tuple[float, float]] = []
    give_up_at = time.monotonic() + DEADLINE_SECONDS
    while not marks or marks[-1][1] < count:
        if time.monotonic() > give_up_at:
            raise RuntimeError(f"only {marks[-1][1] if marks else 0:.0f} of {count} rows after {DEADLINE_SECONDS:g} s")
        published = await instance.total(_PUBLISHED)
        if published:
            marks.append((time.monotonic(), published))
        await asyncio.sleep(POLL_SECONDS)
    return marks


async def measure(scale: float) -> list[Row]:
    """Send the same records from memory and from the outbox, in alternating pairs."""
    count = max(5_000, round(ROWS * scale))
    plain: list[float] = []
    relayed: list[float] = []
    with tempfile.TemporaryDirectory() as directory:
        async with open_system(Path(directory), services=COUPON_FLOW) as system:
            waiting = records(system.topic, count)
            connection = await asyncpg.connect(system.rewards_url)
            for _ in range(PAIRS):
                began = time.monotonic()
                await asyncio.to_thread(produce_plainly, system.kafka.bootstrap, waiting)
                plain.append(count / (time.monotonic() - began))
                await _fill(connection, waiting)
                relayed.append(await _relay(system, connection, count))
            await connection.close()
    ratios = [one / other for one, other in zip(relayed, plain, strict=True)]
    return [
        Row(
            "outbox relay: rate against a producer from memory",
            statistics.median(ratios),
            ">= 0.05",
            f"{statistics.median(relayed):,.0f} rows/s, each claimed, confirmed and marked, against "
            f"{statistics.median(plain):,.0f} records/s; ratios {min(ratios):.2f} to {max(ratios):.2f}",
        )
    ]


def run(scale: float = 1.0) -> list[Row]:
    """Measure, on an event loop of its own."""
    return asyncio.run(measure(scale))
