"""The events that the benchmarks of the flow send: as reward_store writes them, each of another coupon."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta

from confluent_kafka import Producer

from loyalty.event import CouponEvent, CouponSnapshot, EventType, encode
from loyalty.identifier import new_coupon_code, new_id
from runtime.kafka_producer import Record
from runtime.telemetry import TraceContext

_FLUSH_SECONDS = 300.0


def snapshots(count: int) -> Iterator[CouponSnapshot]:
    """Yield so many new coupons."""
    issued_at = datetime.now(UTC)
    expires_at = issued_at + timedelta(days=30)
    for number in range(count):
        member, reward = f"m-{number % 5_000}", f"rw-{number % 50}"
        yield CouponSnapshot(new_coupon_code(), member, reward, new_id(), 500, "EUR", issued_at, expires_at, 1)


def records(topic: str, count: int) -> list[Record]:
    """Return so many `coupon.issued` events with their headers."""
    return [
        Record(
            topic,
            snapshot.code.encode(),
            encode(CouponEvent(new_id(), EventType.ISSUED, snapshot.issued_at, snapshot)),
            (("traceparent", TraceContext.new().format().encode()),),
        )
        for snapshot in snapshots(count)
    ]


def produce_plainly(bootstrap: str, records: Sequence[Record]) -> None:
    """Send records with the client alone, idempotent and with `acks=all`, and wait until all are stored.

    Linger and compression are those of our own producer; nobody awaits a single record's answer.

    Raises:
        RuntimeError: The brokers did not take all of them.
    """
    producer = Producer(
        {
            "bootstrap.servers": bootstrap,
            "enable.idempotence": True,
            "acks": "all",
            "linger.ms": 5,
            "compression.type": "lz4",
        }
    )
    for topic, key, value, headers in records:
        while True:
            try:
                producer.produce(topic, value, key, headers=list(headers))
            except BufferError:
                producer.poll(0.1)
            else:
                break
    if producer.flush(_FLUSH_SECONDS):
        raise RuntimeError("the brokers did not take all records")
