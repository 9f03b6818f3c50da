"""Say what waits to be published, and what a relay may do with it, apart from the database that keeps it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol
from uuid import UUID

from runtime.telemetry import current_trace

Headers = Mapping[str, str]
"""What travels with an event beside its payload."""


@dataclass(frozen=True, slots=True)
class OutboxRow:
    """One event that is to be published."""

    id: UUID
    topic: str
    key: str
    payload: bytes
    headers: Headers


@dataclass(frozen=True, slots=True)
class Claim:
    """The rows one relay may publish until `until`, by the database's clock; that time also names the claim."""

    rows: tuple[OutboxRow, ...]
    until: datetime | None


@dataclass(frozen=True, slots=True)
class Backlog:
    """How many rows wait for what they are there for, and for how many seconds the oldest has waited."""

    rows: int
    oldest_seconds: float


class Outbox(Protocol):
    """What a relay needs of the table; every call is one committed statement, and nothing stays open after it."""

    async def claim(self, limit: int, lease: timedelta) -> Claim:
        """Take at most `limit` rows that nobody else holds, oldest first, for the time of the lease.

        A row waits while an earlier one of the same coupon is unpublished, so a coupon's events keep their order. Who
        dies after this leaves rows that come free when the lease ends.
        """

    async def settle(self, ids: Sequence[UUID]) -> None:
        """Mark rows as published. It is a fact, whoever holds the lease now, and may be told twice."""

    async def release(self, claim: Claim, ids: Sequence[UUID]) -> None:
        """Hand rows of a claim back before its end; a row that somebody else has claimed since is left alone."""

    async def put_off(self, claim: Claim, ids: Sequence[UUID], least: timedelta, most: timedelta) -> None:
        """Keep rows of a claim from everybody for as long as they have waited already, within these bounds.

        So the time between two tries doubles. A row that somebody else has claimed since is left alone.
        """

    async def backlog(self) -> Backlog:
        """Count what waits."""


def event_headers() -> Headers:
    """Return what an event carries of the request that caused it: the next step of its W3C trace."""
    trace = current_trace.get()
    return {"traceparent": trace.child().format()} if trace is not None else {}
