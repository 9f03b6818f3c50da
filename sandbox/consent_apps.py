"""What members' apps do with consents: give them, change them, take them back and delete them, straight in MongoDB.

The apps of a real platform are of several ages and makers, so ids are of several types and some documents are of the
first schema version.
"""

import asyncio
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Final

from bson import ObjectId

from loyalty.consent import DETAIL_SCHEMA_VERSION, MASTER_SCHEMA_VERSION, ConsentChannel, ConsentPurpose, ConsentStatus
from patterns import Context, ErrorGroup, receive, select
from runtime.mongo import Document
from sandbox.consent_document import DETAILS, MASTERS
from sandbox.consent_writer import ConsentWriter, OwnDocument, WriterStatistics
from sandbox.document_database import open_database
from sandbox.journal import Journal

_OPERATION_SECONDS: Final = 5.0
_DETAILS_MAX: Final = 3
_FIRST_VERSION_SHARE: Final = 0.1
_MILLISECOND: Final = timedelta(milliseconds=1)
_NOTHING: Final = WriterStatistics(0, 0, 0, 0)


@dataclass(slots=True, eq=False)
class _Consent:
    """A consent that an app keeps: its master and its details; one action at a time."""

    member_id: str
    master: OwnDocument
    details: list[OwnDocument] = field(default_factory=list)
    is_busy: bool = True


@dataclass(frozen=True, slots=True)
class ConsentStatistics:
    """What the apps did.

    Attributes:
        writes: what became of the writes.
        masters: consents that there are, as far as the apps know.
        details: their details.
        dropped: actions that were left out, because as many as allowed were under way.
        in_flight: actions under way.
    """

    writes: WriterStatistics
    masters: int
    details: int
    dropped: int
    in_flight: int


class ConsentApps:
    """Write consents at times that no answer has a say in (an open loop), as many apps at once would.

    Every write is acknowledged by a majority, and written down before it is sent, as is each answer before it is used.
    While the server is away the apps ask for it again and again, with pauses that grow to 2 s.

    Args:
        url: MongoDB, for a user who may read and write the consents (`consent_writer`).
        database: the name of the database that they are in.
        journal: where everything is written down.
        members: whose consents they are.
        rate: actions a second on average, of one write to five each; the gaps between them are exponential.
        random: decides what they do.
        documents_max: so many documents are made at most, which bounds the memory; nothing is deleted from then on.
        in_flight_max: bound on the actions under way at once.

    Raises:
        ValueError: there are no members, or a number is not above 0.
    """

    def __init__(
        self,
        url: str,
        database: str,
        journal: Journal,
        members: Sequence[str],
        *,
        rate: float,
        random: Random,
        documents_max: int = 50_000,
        in_flight_max: int = 50,
    ) -> None:
        if not members:
            raise ValueError("members must not be empty")
        if not (rate > 0 and documents_max > 0 and in_flight_max > 0):
            raise ValueError("rate, documents_max and in_flight_max must be above 0")
        self._url = url
        self._database = database
        self._journal = journal
        self._members = members
        self._rate = rate
        self._random = random
        self._documents_max = documents_max
        self._in_flight_max = in_flight_max
        self._writer: ConsentWriter | None = None
        self._consents: list[_Consent] = []
        self._made = self._dropped = self._in_flight = 0

    async def run(self, ctx: Context) -> None:
        """Write consents until the context ends; return when what is under way has ended, at most half a minute later.

        Cancellation ends what is under way too; its outcome stays unknown.

        Raises:
            pymongo.errors.PyMongoError: the server refused for a reason that time does not change.
        """
        loop = asyncio.get_running_loop()
        async with open_database(self._url, self._database, timeout_seconds=_OPERATION_SECONDS) as database:
            self._writer = ConsentWriter(database, self._journal, self._random)
            async with ErrorGroup(limit=self._in_flight_max) as group:
                arrival = loop.time()
                while True:
                    # The next arrival follows from the last arrival, not from now: what was late is caught up with.
                    arrival += self._random.expovariate(self._rate)
                    pause = max(0.0, arrival - loop.time())
                    await select(receive(ctx.done), receive(group.ctx.done), timeout_seconds=pause)
                    if ctx.is_done or group.ctx.is_done:
                        break
                    if not group.try_go(self._act, ctx, self._writer):
                        self._dropped += 1

    def statistics(self) -> ConsentStatistics:
        """Return the counts so far."""
        return ConsentStatistics(
            writes=_NOTHING if self._writer is None else self._writer.statistics(),
            masters=len(self._consents),
            details=sum(len(consent.details) for consent in self._consents),
            dropped=self._dropped,
            in_flight=self._in_flight,
        )

    async def _act(self, ctx: Context, writer: ConsentWriter) -> None:
        """Do one thing that a member asks of an app."""
        self._in_flight += 1
        try:
            await self._choose(ctx, writer)
        finally:
            self._in_flight -= 1

    async def _choose(self, ctx: Context, writer: ConsentWriter) -> None:
        consent = self._any_idle()
        draw = self._random.random()
        is_full = self._made >= self._documents_max
        if consent is None or (draw < 0.35 and not is_full):
            if not is_full:
                await self._grant(ctx, writer)
            return
        consent.is_busy = True
        try:
            if draw < 0.60:
                await self._change(ctx, writer, consent)
            elif draw < 0.75:
                await self._decide_again(ctx, writer, consent)
            elif draw < 0.90 or is_full:
                await self._withdraw(ctx, writer, consent)
            else:
                await self._delete(ctx, writer, consent)
        finally:
            consent.is_busy = False

    async def _grant(self, ctx: Context, writer: ConsentWriter) -> None:
        """Give a consent, with a detail for each of some purposes; a master that is not known to be there gets none."""
        member_id = self._random.choice(self._members)
        consent = _Consent(member_id, OwnDocument(MASTERS, self._document_id(member_id)))
        self._made += 1
        if not await writer.write(ctx, consent.master, self._master(member_id)):
            return
        self._consents.append(consent)
        try:
            for purpose in self._random.sample(list(ConsentPurpose), self._random.randint(1, _DETAILS_MAX)):
                if self._made >= self._documents_max:
                    break
                self._made += 1
                detail = OwnDocument(DETAILS, self._document_id(member_id))
                fields = {"master_id": consent.master.document_id, "purpose": purpose.value, "is_granted": True}
                if await writer.write(ctx, detail, _stamped({**fields, "schema_version": DETAIL_SCHEMA_VERSION})):
                    consent.details.append(detail)
        finally:
            consent.is_busy = False

    async def _change(self, ctx: Context, writer: ConsentWriter, consent: _Consent) -> None:
        """Set some fields of one document."""
        document = self._random.choice([consent.master, *consent.details])
        if (state := document.state) is None:
            return
        if document is not consent.master:
            changes: Document = {"is_granted": not state["is_granted"]}
        elif "channel" in state:
            changes = {"channel": self._random.choice(list(ConsentChannel)).value}
        else:
            changes = {"policy_version": self._policy_version()}
        await self._write(ctx, writer, consent, document, _stamped({**state, **changes}, state))

    async def _decide_again(self, ctx: Context, writer: ConsentWriter, consent: _Consent) -> None:
        """Replace a master, as an app of today writes it."""
        if (state := consent.master.state) is not None:
            wanted = _stamped(self._todays_master(consent.member_id), state)
            await self._write(ctx, writer, consent, consent.master, wanted, as_whole=True)

    async def _withdraw(self, ctx: Context, writer: ConsentWriter, consent: _Consent) -> None:
        """Take back a consent, and what it holds for."""
        for document in [consent.master, *consent.details]:
            if (state := document.state) is None:
                continue
            if document is not consent.master:
                changes: Document = {"is_granted": False}
            elif "status" in state:
                changes = {"status": ConsentStatus.WITHDRAWN.value}
            else:
                changes = {"granted": False}
            await self._write(ctx, writer, consent, document, _stamped({**state, **changes}, state))

    async def _delete(self, ctx: Context, writer: ConsentWriter, consent: _Consent) -> None:
        """Delete one detail, or a whole consent: its details first."""
        is_whole = not consent.details or self._random.random() < 0.5
        for document in [*consent.details, consent.master] if is_whole else [self._random.choice(consent.details)]:
            await self._write(ctx, writer, consent, document, None)

    async def _write(
        self,
        ctx: Context,
        writer: ConsentWriter,
        consent: _Consent,
        document: OwnDocument,
        wanted: Document | None,
        *,
        as_whole: bool = False,
    ) -> None:
        """Write a document, and forget it when it is gone or given up."""
        await writer.write(ctx, document, wanted, as_whole=as_whole)
        if document.state is not None and not document.is_given_up:
            return
        if document is not consent.master:
            consent.details.remove(document)
        elif consent in self._consents:
            self._consents.remove(consent)

    def _any_idle(self) -> _Consent | None:
        """Return a consent that no action is under way for, if one is found in a few draws."""
        for _ in range(5 if self._consents else 0):
            consent = self._random.choice(self._consents)
            if not consent.is_busy:
                return consent
        return None

    def _document_id(self, member_id: str) -> object:
        """Return an id that nobody has, as one of the apps makes it."""
        match self._random.randrange(4):
            case 0:
                return f"{member_id}/{self._random.getrandbits(64):016x}"
            case 1:
                return ObjectId(self._random.randbytes(12))
            case 2:
                return uuid.UUID(int=self._random.getrandbits(128), version=4)
        return self._random.getrandbits(62)

    def _master(self, member_id: str) -> Document:
        if self._random.random() >= _FIRST_VERSION_SHARE:
            return _stamped(self._todays_master(member_id))
        fields = {"member_id": member_id, "granted": True, "policy_version": self._policy_version()}
        return _stamped({**fields, "schema_version": 1})

    def _todays_master(self, member_id: str) -> Document:
        return {
            "member_id": member_id,
            "status": ConsentStatus.GRANTED.value,
            "policy_version": self._policy_version(),
            "channel": self._random.choice(list(ConsentChannel)).value,
            "schema_version": MASTER_SCHEMA_VERSION,
        }

    def _policy_version(self) -> str:
        return f"2026-{self._random.randint(1, 12)}"


def _stamped(fields: Document, before: Document | None = None) -> Document:
    """Give a document the time of its change, which is later than that of the state before."""
    now = datetime.now(UTC)
    now = now.replace(microsecond=now.microsecond // 1_000 * 1_000)
    return {**fields, "changed_at": now if before is None else max(now, before["changed_at"] + _MILLISECOND)}
