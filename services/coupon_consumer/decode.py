"""Turn a chunk of records into rows and poison; whatever a record holds, it ends up on one of the two sides."""

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeAlias, cast

from loyalty.errors import EventError
from loyalty.event import FlatEvent, decode_flat
from runtime.kafka_reader import Record

_SLICE: Final = 128

Headers: TypeAlias = Sequence[tuple[str, bytes | None]]

_UNREADABLE: Final[list[tuple[str, str | bytes | None]]] = []  # known by its identity


@dataclass(frozen=True, slots=True)
class Poison:
    """A record that cannot be stored as a coupon, and why: the class of the error, and the rule it broke."""

    record: Record
    error_class: str
    error_detail: str


@dataclass(slots=True)
class Decoded:
    """A chunk's events, each with the record it came from at the same index, and what could not be understood.

    `waiting` records are not decoded yet.
    """

    waiting: Sequence[Record] = ()
    events: list[FlatEvent] = field(default_factory=list)
    records: list[Record] = field(default_factory=list)
    poison: list[Poison] = field(default_factory=list)

    async def complete(self) -> None:
        """Decode what waits, a slice at a time, so that the database's answers are not kept waiting for long."""
        waiting, self.waiting = self.waiting, ()
        for first in range(0, len(waiting), _SLICE):
            self.add(waiting[first : first + _SLICE])
            await asyncio.sleep(0)

    def add(self, records: Sequence[Record]) -> None:
        """Decode records."""
        add_event, add_record = self.events.append, self.records.append
        for record in records:
            try:
                event = decode_flat(record.value(), record.key())
            except EventError as error:
                self.poison.append(Poison(record, type(error).__name__, str(error)))
            else:
                add_event(event)
                add_record(record)


def headers_of(record: Record) -> Headers | None:
    """Return a record's headers in order, doubles kept; None if a name is not UTF-8, which other clients may write.

    The client decodes names at the first call. Where that fails it raises, and keeps a list with holes in it: a second
    call would return that list, and reading it would end the process. So it is replaced at once.
    """
    try:
        headers = record.headers()
    except (UnicodeDecodeError, SystemError):  # SystemError: the client returns the list though an error is set
        record.set_headers(_UNREADABLE)
        return None
    return None if headers is _UNREADABLE else cast("Headers", headers or ())


def newest(events: Iterable[FlatEvent]) -> list[FlatEvent]:
    """Keep one event a coupon: the first of its highest version, since one statement can write a row once only."""
    best: dict[str, FlatEvent] = {}
    for event in events:
        known = best.setdefault(event.code, event)
        if event.version > known.version:
            best[event.code] = event
    return list(best.values())
