"""The consent store without a database: plain dictionaries, and a lease by the clock of the running loop."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from bson import Timestamp

from services.consent_consumer.collection_scan import ScanPage, ScanPosition
from services.consent_consumer.dead_letters import DeadLetter, LetterFilter, LetterPosition, bounded
from services.consent_consumer.errors import LeaseHeldError, LeaseLostError, SnapshotTooOldError
from services.consent_consumer.store import AuditLine, LeaseState, OplogSpan, Position, SavedPosition

_EPOCH = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class _FakeLease:
    claim_id: str | None
    holder: str
    fence: int
    expires_at: float


class FakeConsentStore:
    """A `ConsentStore` of one loop: every call is done before it would wait, so calls never overlap."""

    def __init__(self) -> None:
        self.positions: dict[str, SavedPosition] = {}
        self.audit: list[AuditLine] = []
        self.oplog = OplogSpan(Timestamp(0, 1), Timestamp(0, 1))
        self._lease: _FakeLease | None = None

    async def take_lease(self, claim_id: str, holder: str, seconds: float) -> int | None:
        """See `ConsentStore`."""
        lease, now = self._lease, _now()
        is_ours = lease is not None and lease.claim_id == claim_id
        if lease is not None and not is_ours and lease.expires_at > now:
            return None
        fence = 1 if lease is None else lease.fence + (not is_ours)
        self._lease = _FakeLease(claim_id, holder, fence, now + seconds)
        return fence

    async def renew_lease(self, claim_id: str, seconds: float) -> None:
        """See `ConsentStore`."""
        lease, now = self._lease, _now()
        if lease is None or lease.claim_id != claim_id or lease.expires_at <= now:
            raise LeaseLostError("the lease has run out, or another instance has it")
        self._lease = replace(lease, expires_at=now + seconds)

    async def give_back_lease(self, claim_id: str) -> None:
        """See `ConsentStore`."""
        if self._lease is not None and self._lease.claim_id == claim_id:
            self._lease = replace(self._lease, claim_id=None, expires_at=_now())

    async def find_lease(self) -> LeaseState | None:
        """See `ConsentStore`."""
        if (lease := self._lease) is None:
            return None
        return LeaseState(lease.holder, lease.fence, _as_time(lease.expires_at), lease.expires_at > _now())

    async def cluster_time(self) -> Timestamp:
        """See `ConsentStore`."""
        return Timestamp(int(_now()), 1)

    async def oplog_span(self) -> OplogSpan:
        """See `ConsentStore`; whatever a test has set."""
        return self.oplog

    async def take_position(self, stream: str, fence: int) -> Position | None:
        """See `ConsentStore`."""
        stored = self.positions.get(stream, SavedPosition(None, 0, None))
        if stored.fence > fence:
            raise LeaseLostError(f"fence {stored.fence} has taken the position")
        self.positions[stream] = replace(stored, fence=fence)
        return stored.position

    async def find_position(self, stream: str) -> SavedPosition | None:
        """See `ConsentStore`."""
        return self.positions.get(stream)

    async def save_position(self, stream: str, position: Position, fence: int) -> None:
        """See `ConsentStore`."""
        stored = self.positions.get(stream)
        if stored is None or stored.fence != fence:
            raise LeaseLostError(f"fence {fence} has not taken the position")
        if stored.position is None or stored.position.cluster_time <= position.cluster_time:
            self.positions[stream] = SavedPosition(position, fence, _as_time(_now()))

    async def skip(self, stream: str, position: Position, *, by: str, reason: str) -> None:
        """See `ConsentStore`."""
        lease, now = self._lease, _now()
        if lease is not None and lease.expires_at > now:
            raise LeaseHeldError(lease.holder, _as_time(lease.expires_at))
        fence = 1 if lease is None else lease.fence + 1
        self._lease = _FakeLease(None, "operator", fence, now)
        before = self.positions.get(stream, SavedPosition(None, 0, None)).position
        self.positions[stream] = SavedPosition(position, fence, _as_time(now))
        self.audit.append(AuditLine(stream, _as_time(now), by, reason, before, position))

    async def list_audit(self, limit: int) -> list[AuditLine]:
        """See `ConsentStore`."""
        return self.audit[::-1][:limit]


@dataclass(frozen=True, slots=True)
class _FakeClaim:
    claim_id: str
    until: float


class FakeDeadLetters:
    """The `DeadLetters` of one loop, in a dictionary."""

    def __init__(self) -> None:
        self.letters: dict[str, DeadLetter] = {}
        self._claims: dict[str, _FakeClaim] = {}

    async def bury(self, letters: Sequence[DeadLetter]) -> int:
        """See `DeadLetters`."""
        buried = 0
        for letter in letters:
            if letter.letter_id not in self.letters:
                self.letters[letter.letter_id] = bounded(letter)
                buried += 1
        return buried

    async def list(self, wanted: LetterFilter, after: LetterPosition | None, limit: int) -> list[DeadLetter]:
        """See `DeadLetters`."""
        return [replace(letter, event={}) for letter in self._wanted(wanted, after)[:limit]]

    async def show(self, letter_id: str) -> DeadLetter | None:
        """See `DeadLetters`."""
        return self.letters.get(letter_id)

    async def find_dead(self, stream: str, external_ids: Sequence[str], since: Timestamp) -> set[str]:
        """See `DeadLetters`."""
        found = (letter for letter in self.letters.values() if letter.stream == stream)
        dead = {letter.external_id for letter in found if letter.event.get("clusterTime", Timestamp(0, 0)) >= since}
        return dead & set(external_ids)

    async def claim(
        self, claim_id: str, wanted: LetterFilter, after: LetterPosition | None, seconds: float
    ) -> DeadLetter | None:
        """See `DeadLetters`."""
        for letter in self._wanted(wanted, after):
            claim = self._claims.get(letter.letter_id)
            if claim is None or claim.claim_id == claim_id or claim.until <= _now():
                self._claims[letter.letter_id] = _FakeClaim(claim_id, _now() + seconds)
                return letter
        return None

    async def settle(self, letter_id: str, claim_id: str) -> bool:
        """See `DeadLetters`."""
        if not self._is_claimed(letter_id, claim_id):
            return False
        del self.letters[letter_id], self._claims[letter_id]
        return True

    async def give_back(self, letter_id: str, claim_id: str, cause: str | None) -> bool:
        """See `DeadLetters`."""
        if not self._is_claimed(letter_id, claim_id):
            return False
        if cause is not None:
            letter = self.letters[letter_id]
            self.letters[letter_id] = bounded(replace(letter, cause=cause, tries=letter.tries + 1))
        del self._claims[letter_id]
        return True

    async def count(self) -> int:
        """See `DeadLetters`."""
        return len(self.letters)

    async def remove_old(self, older_than: timedelta, limit: int) -> int:
        """See `DeadLetters`; ages are counted from the real time, as the letters' own times are."""
        horizon = datetime.now(UTC) - older_than
        old = [
            letter.letter_id
            for letter in self._wanted(LetterFilter(), None)
            if letter.failed_at < horizon and self._is_free(letter.letter_id)
        ]
        for letter_id in old[:limit]:
            del self.letters[letter_id]
        return len(old[:limit])

    def _wanted(self, wanted: LetterFilter, after: LetterPosition | None) -> Sequence[DeadLetter]:
        found = [
            letter
            for letter in self.letters.values()
            if wanted.stream in {None, letter.stream}
            and wanted.error_class in {None, letter.error_class}
            and wanted.letter_id in {None, letter.letter_id}
            and (after is None or (letter.failed_at, letter.letter_id) > after)
        ]
        return sorted(found, key=lambda letter: (letter.failed_at, letter.letter_id))

    def _is_claimed(self, letter_id: str, claim_id: str) -> bool:
        claim = self._claims.get(letter_id)
        return letter_id in self.letters and claim is not None and claim.claim_id == claim_id

    def _is_free(self, letter_id: str) -> bool:
        return letter_id not in self._claims or self._claims[letter_id].until <= _now()


class FakeCollectionScan:
    """The `CollectionScan` of documents whose ids can be compared, each snapshot kept until it is forgotten."""

    def __init__(self) -> None:
        self.documents: dict[Any, Mapping[str, Any]] = {}
        self._snapshots: dict[Timestamp, dict[Any, Mapping[str, Any]]] = {}
        self._last = 0

    async def scan(self, collection: str, position: ScanPosition | None, limit: int) -> ScanPage:
        """See `CollectionScan`."""
        if position is None or position.cluster_time is None:
            self._last += 1
            cluster_time = Timestamp(self._last, 1)
            self._snapshots[cluster_time] = dict(self.documents)
        else:
            cluster_time = position.cluster_time
        if cluster_time not in self._snapshots:
            raise SnapshotTooOldError(f"{collection} as it was at {cluster_time} is no longer there")
        ids = sorted(each for each in self._snapshots[cluster_time] if position is None or each > position.after_id)
        page = [self._snapshots[cluster_time][each] for each in ids[:limit]]
        return ScanPage(page, cluster_time, ScanPosition(page[-1]["_id"], cluster_time) if page else None)

    def forget(self) -> None:
        """Let every snapshot be too old."""
        self._snapshots.clear()


def _now() -> float:
    return asyncio.get_running_loop().time()


def _as_time(seconds: float) -> datetime:
    return _EPOCH + timedelta(seconds=seconds)
