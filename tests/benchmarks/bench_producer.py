"""Our producer, which tells of each record what became of it, against the client alone with the same records."""

import asyncio
import statistics
import tempfile
import time
from pathlib import Path

from runtime.kafka_producer import Delivery, Record, open_producer
from runtime.settings import KafkaSettings
from sandbox.instance import COUPON_FLOW
from sandbox.system import System, open_system
from tests.benchmarks.coupon_record import produce_plainly, records
from tests.benchmarks.report import Row

PAIRS = 3
RECORDS = 200_000
BATCH = 2_000
CALLERS = 4


async def _publish(system: System, batches: list[list[Record]]) -> None:
    """Publish batches from a few callers, each of which awaits every answer before its next batch."""
    left = iter(batches)
    async with open_producer(KafkaSettings(bootstrap=system.kafka.bootstrap), name="bench") as producer:

        async def call() -> None:
            for batch in left:
                outcomes = await producer.publish_many(batch)
                if not all(isinstance(outcome, Delivery) for outcome in outcomes):
                    raise RuntimeError("the brokers did not take all records")

        await asyncio.gather(*(call() for _ in range(CALLERS)))


async def measure(scale: float) -> list[Row]:
    """Send the same records both ways, in alternating pairs."""
    count = max(BATCH, round(RECORDS * scale))
    plain: list[float] = []
    ours: list[float] = []
    with tempfile.TemporaryDirectory() as directory:
        async with open_system(Path(directory), services=COUPON_FLOW) as system:
            sent = records(system.topic, count)
            batches = [sent[first : first + BATCH] for first in range(0, count, BATCH)]
            for _ in range(PAIRS):
                began = time.monotonic()
                await asyncio.to_thread(produce_plainly, system.kafka.bootstrap, sent)
                plain.append(count / (time.monotonic() - began))
                began = time.monotonic()
                await _publish(system, batches)
                ours.append(count / (time.monotonic() - began))
    ratios = [one / other for one, other in zip(ours, plain, strict=True)]
    return [
        Row(
            "producer that tells of each record: rate against the client alone",
            statistics.median(ratios),
            ">= 0.25",
            f"{statistics.median(ours):,.0f} against {statistics.median(plain):,.0f} records/s; "
            f"ratios {min(ratios):.2f} to {max(ratios):.2f}",
        )
    ]


def run(scale: float = 1.0) -> list[Row]:
    """Measure, on an event loop of its own."""
    return asyncio.run(measure(scale))
