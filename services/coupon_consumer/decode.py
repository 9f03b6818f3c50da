"""Turn a chunk of records into rows and poison; whatever a record holds, it ends up on one of the two sides."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, TypeAlias, cast

from loyalty.errors import EventError
from runtime.kafka_reader import Record
from services.coupon_consumer.event_row import EventRow, decode_row

_SLICE: Final = 32

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
    """A chunk's rows, each with the record it came from at the same index, and what could not be understood.

    `waiting` records are not decoded yet.
    """

    waiting: Sequence[Record] = ()
    rows: list[EventRow] = field(default_factory=list)
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
        add_row, add_record = self.rows.append, self.records.append
        for record in records:
            try:
                row = decode_row(record.value(), record.key())
            except EventError as error:
                self.poison.append(Poison(record, type(error).__name__, str(error)))
            else:
                add_row(row)
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
