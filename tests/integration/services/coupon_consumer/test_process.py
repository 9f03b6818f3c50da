"""coupon_consumer as a process: how it starts and ends, and what survives its death."""

import signal
from pathlib import Path

import asyncpg

from sandbox.servers import KafkaServer, PostgresServer
from tests.support.coupon_consumer_process import open_coupon_consumer
from tests.support.coupon_events import cancelled, coupon_rows, produce, record_of, rows_of, some_event
from tests.support.wait_until import wait_until


async def is_stored(connection: asyncpg.Connection, records: int) -> bool:
    """Say whether the stored offsets are the ends of partitions with so many records together."""
    return bool(await connection.fetchval("select sum(next_offset) = $1 from consumer_offsets", records))


async def test_events_become_coupons_and_sigterm_ends_with_0(
    postgres: PostgresServer,
    coupons_database: str,
    administrator: asyncpg.Connection,
    kafka: KafkaServer,
    topic: str,
    tmp_path: Path,
) -> None:
    """Coupons are stored whole, the stored offsets are the partitions' ends, the stop is orderly."""
    issued = [some_event() for _ in range(200)]
    events = issued + [cancelled(event) for event in issued[:20]]
    await produce(kafka.bootstrap, topic, [record_of(event) for event in events])
    async with open_coupon_consumer(postgres, coupons_database, kafka, topic, tmp_path) as service:
        await service.wait_readiness(200)
        await wait_until(lambda: is_stored(administrator, len(events)))
        service.process.send_signal(signal.SIGTERM)
        assert await service.process.wait(20) == 0

    assert await coupon_rows(administrator) == rows_of(events)
    said = service.events()
    in_order = ["Received shutdown signal", "Kafka consumer stopped", "Application shutdown completed"]
    assert [event for event in said if event in in_order] == in_order
