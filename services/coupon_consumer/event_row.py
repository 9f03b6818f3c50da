"""An event as the texts that its row travels in, made while the database is busy with the rows before."""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple

from loyalty.event import EventType, decode_flat

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


class EventRow(NamedTuple):
    """One text a column, none of which holds a line end: `store.write` sends each column as one text of lines.

    Times are whole microseconds since 1970 began, `is_cancelled` is `t` or `f`, and no redemption is an empty text.
    """

    code: str
    member_id: str
    reward_id: str
    redemption_id: str
    value_cents: str
    currency: str
    issued_us: str
    expires_us: str
    version: str
    is_cancelled: str


def decode_row(payload: bytes | None, key: bytes | None) -> EventRow:
    """Read and check a record's payload as `loyalty.event.decode` does.

    Raises:
        EventError: The record cannot be understood; the subclass says why.
    """
    event = decode_flat(payload, key)
    return EventRow(
        event.code,
        event.member_id,
        event.reward_id,
        event.redemption_id or "",
        str(event.value_cents),
        event.currency,
        str((event.issued_at - _EPOCH) // _MICROSECOND),
        str((event.expires_at - _EPOCH) // _MICROSECOND),
        str(event.version),
        "t" if event.type == EventType.CANCELLED else "f",
    )


def newest(rows: Iterable[EventRow]) -> list[EventRow]:
    """Keep one row a coupon: the first of its highest version, since one statement can write a row once only."""
    best: dict[str, EventRow] = {}
    for row in rows:
        known = best.setdefault(row.code, row)
        if known is not row and int(row.version) > int(known.version):
            best[row.code] = row
    return list(best.values())
