"""Turn a chunk of records into rows and poison, in the consumer's thread."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from loyalty.errors import EventError
from loyalty.event import FlatEvent, decode_flat
from runtime.kafka_reader import Record


@dataclass(frozen=True, slots=True)
class Poison:
    """A record that cannot be stored as a coupon, and why: the class of the error, and the rule it broke."""

    record: Record
    error_class: str
    error_detail: str


@dataclass(slots=True)
class Decoded:
    """A chunk's events, each with the record it came from at the same index, and what could not be understood."""

    events: list[FlatEvent] = field(default_factory=list)
    records: list[Record] = field(default_factory=list)
    poison: list[Poison] = field(default_factory=list)


def decode_chunk(records: Sequence[Record]) -> Decoded:
    """Read every record of a chunk; whatever a record holds, it ends up on one of the two sides."""
    decoded = Decoded()
    add_event, add_record = decoded.events.append, decoded.records.append
    for record in records:
        try:
            event = decode_flat(record.value(), record.key())
        except EventError as error:
            decoded.poison.append(Poison(record, type(error).__name__, str(error)))
        else:
            add_event(event)
            add_record(record)
    return decoded


def newest(events: Iterable[FlatEvent]) -> list[FlatEvent]:
    """Keep one event a coupon: the first of its highest version, since one statement can write a row once only."""
    best: dict[str, FlatEvent] = {}
    for event in events:
        known = best.setdefault(event.code, event)
        if event.version > known.version:
            best[event.code] = event
    return list(best.values())
