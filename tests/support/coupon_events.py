"""Coupon events for tests: made, produced, and compared with what a database holds."""

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, TypeAlias

import asyncpg
from confluent_kafka import KafkaError, Message, Producer

from loyalty.event import CouponEvent, CouponSnapshot, EventType, encode
from loyalty.identifier import new_coupon_code, new_id

ISSUED_AT = datetime(2026, 1, 1, tzinfo=UTC)
EXPIRES_AT = ISSUED_AT + timedelta(days=365)

ExpectedRow = tuple[object, ...]
Place: TypeAlias = tuple[int, int]  # a partition, and an offset in it


def some_event(**changes: object) -> CouponEvent:
    """Return an event with a fresh coupon; arguments replace fields of the event or of the coupon."""
    coupon = CouponSnapshot(new_coupon_code(), "m-1", "rw-1", new_id(), 500, "EUR", ISSUED_AT, EXPIRES_AT, 1)
    event = CouponEvent(new_id(), EventType.ISSUED, ISSUED_AT, coupon)
    of_event: dict[str, Any] = {name: changes.pop(name) for name in tuple(changes) if name in event._fields}
    of_coupon: dict[str, Any] = changes  # Any: named tuples check nothing
    return event._replace(coupon=coupon._replace(**of_coupon))._replace(**of_event)


def cancelled(event: CouponEvent) -> CouponEvent:
    """Return the cancellation that follows an event."""
    coupon = event.coupon._replace(version=event.coupon.version + 1)
    return CouponEvent(new_id(), EventType.CANCELLED, ISSUED_AT, coupon)


def row_of(event: CouponEvent) -> ExpectedRow:
    """Return the row that the event alone makes, as `coupon_rows` reads it."""
    return (*event.coupon, "cancelled" if event.type == EventType.CANCELLED else "issued")


def rows_of(events: Iterable[CouponEvent]) -> dict[str, ExpectedRow]:
    """Return the rows that the events make in the end, by code: the highest version of each coupon."""
    best: dict[str, CouponEvent] = {}
    for event in events:
        known = best.setdefault(event.coupon.code, event)
        if event.coupon.version > known.coupon.version:
            best[event.coupon.code] = event
    return {code: row_of(event) for code, event in best.items()}


async def coupon_rows(connection: asyncpg.Connection) -> dict[str, ExpectedRow]:
    """Return what the table holds, by code."""
    rows = await connection.fetch(
        "select code, member_id, reward_id, redemption_id, value_cents, currency, issued_at, expires_at, version,"
        " status from coupons"
    )
    return {row["code"]: tuple(row.values()) for row in rows}


@dataclass(frozen=True, slots=True)
class RawRecord:
    """A record as it goes to the broker; without a partition the key decides."""

    value: bytes | None
    key: bytes | None
    headers: Sequence[tuple[str, bytes | None]] = ()
    partition: int | None = None


def record_of(event: CouponEvent, partition: int | None = None) -> RawRecord:
    """Return the record of an event."""
    return RawRecord(encode(event), event.coupon.code.encode(), partition=partition)


@dataclass
class _Delivery:
    errors: list[KafkaError] = field(default_factory=list)
    places: dict[int, Place] = field(default_factory=dict)

    def report(self, index: int, error: KafkaError | None, message: Message) -> None:
        partition, offset = message.partition(), message.offset()
        if error is not None or partition is None or offset is None:
            self.errors.append(error or KafkaError(KafkaError.UNKNOWN))
        else:
            self.places[index] = (partition, offset)


async def produce(bootstrap: str, topic: str, records: Sequence[RawRecord]) -> list[Place]:
    """Produce records, wait until the broker has every one of them, and return where each is."""
    return await asyncio.to_thread(_produce, bootstrap, topic, records)


def _produce(bootstrap: str, topic: str, records: Sequence[RawRecord]) -> list[Place]:
    producer = Producer({"bootstrap.servers": bootstrap, "enable.idempotence": True, "linger.ms": 5, "log_level": 3})
    delivery = _Delivery()
    for index, record in enumerate(records):
        partition = -1 if record.partition is None else record.partition  # -1: the client's word for "by the key"
        while True:
            try:
                producer.produce(
                    topic,
                    record.value,
                    record.key,
                    headers=list(record.headers),
                    partition=partition,
                    on_delivery=partial(delivery.report, index),
                )
                break
            except BufferError:
                producer.poll(0.1)
    left = producer.flush(30)
    assert left == 0
    assert delivery.errors == []
    return [delivery.places[index] for index in range(len(records))]
