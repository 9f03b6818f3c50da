"""Write one document of a consent as a careful app does: on the condition that it is still as the app knows it.

That condition (`changed_at`, which no two states of a document share) is what makes a lost answer harmless. A write
whose outcome is unknown may still be on its way, but once a later one has had its effect it can have none any more. An
insert has no such condition; so a document whose insert went unanswered, and that is then not found, is given up.
"""

import asyncio
from dataclasses import dataclass, field
from random import Random
from typing import Final

from pymongo.errors import DuplicateKeyError, PyMongoError

from patterns import Context
from runtime.backoff import Backoff
from runtime.mongo import Collection, Document
from runtime.mongo_error import as_unavailable
from sandbox.consent_document import content_of, name_of
from sandbox.document_database import Database
from sandbox.journal import ConsentWrite, Journal

_FIRST_PAUSE_SECONDS: Final = 0.05
_LONGEST_PAUSE_SECONDS: Final = 2.0
_LAST_SECONDS: Final = 20.0


@dataclass(slots=True, eq=False)
class OwnDocument:
    """A document that one app alone writes, as the app knows it.

    Attributes:
        collection: where it is.
        document_id: of any type.
        state: its fields without the id; None while there is no such document.
        is_given_up: whether the app does not know what it is, and leaves it alone.
        doubtful: the writes whose outcome is unknown.
    """

    collection: str
    document_id: object
    state: Document | None = None
    is_given_up: bool = False
    doubtful: list[ConsentWrite] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class WriterStatistics:
    """What became of the writes.

    Attributes:
        sent: writes, repetitions by the driver not counted.
        stored: those that are known to have had their effect.
        refused: those that are known to have had none.
        unanswered: those that had no answer; a later look at the document may have told.
    """

    sent: int
    stored: int
    refused: int
    unanswered: int


class ConsentWriter:
    """Write documents, any number of them at once, but each of them by one task at a time.

    A write is in the journal before it is sent, and what became of it before the caller hears of it.

    Args:
        database: where the consents are, for a user who may read and write them.
        journal: where everything is written down.
        random: spreads the pauses.
    """

    def __init__(self, database: Database, journal: Journal, random: Random) -> None:
        self._database = database
        self._journal = journal
        self._random = random
        self._sent = self._stored = self._refused = self._unanswered = 0

    async def write(
        self, ctx: Context, document: OwnDocument, wanted: Document | None, *, as_whole: bool = False
    ) -> bool:
        """Insert, change or (where None is wanted) delete a document; say whether it is as wanted now.

        Without an answer, and after a refusal, the document is looked at until the server answers; when the context has
        ended, for 20 s more, and then it is given up. A cancel leaves the outcome unknown, as the journal says.

        Args:
            ctx: ends the patience.
            document: what the app knows of it; it is up to date when this returns.
            wanted: all its fields but the id, `changed_at` a new one.
            as_whole: to replace the document, rather than to set the fields that differ.

        Raises:
            pymongo.errors.PyMongoError: the server refused for a reason that time does not change.
        """
        content = None if wanted is None else content_of(wanted)
        write = self._journal.write_consent(document.collection, name_of(document.document_id), content)
        self._sent += 1
        try:
            count = await self._send(document, wanted, as_whole=as_whole)
        except (PyMongoError, OSError) as error:
            if as_unavailable(error) is None:
                raise
            self._unanswered += 1
            document.doubtful.append(write)
            await self._look(ctx, document)
        else:
            self._settle(write, had_effect=bool(count))
            if count:
                document.state = wanted
                document.doubtful.clear()
            else:
                await self._look(ctx, document)
        return document.state == wanted

    def statistics(self) -> WriterStatistics:
        """Return the counts so far."""
        return WriterStatistics(self._sent, self._stored, self._refused, self._unanswered)

    async def _send(self, document: OwnDocument, wanted: Document | None, *, as_whole: bool) -> int:
        """Send the write once (the driver repeats it safely), and return how many documents it had an effect on."""
        collection, known = self._collection(document), document.state
        if known is None:
            try:
                await collection.insert_one({"_id": document.document_id, **(wanted or {})})
            except DuplicateKeyError:
                return 0
            return 1
        as_known = {"_id": document.document_id, "changed_at": known["changed_at"]}
        if wanted is None:
            return (await collection.delete_one(as_known)).deleted_count
        if as_whole:
            return (await collection.replace_one(as_known, wanted)).matched_count
        changed = {name: value for name, value in wanted.items() if known.get(name) != value}
        return (await collection.update_one(as_known, {"$set": changed})).matched_count

    async def _look(self, ctx: Context, document: OwnDocument) -> None:
        """Learn how the document is, and whether that tells what became of a write."""
        backoff = Backoff(_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS, rng=self._random)
        loop = asyncio.get_running_loop()
        give_up_at: float | None = None
        while give_up_at is None or loop.time() < give_up_at:
            await asyncio.sleep(backoff.fail())
            try:
                found = await self._collection(document).find_one({"_id": document.document_id})
            except (PyMongoError, OSError) as error:
                if as_unavailable(error) is None:
                    raise
            else:
                self._learn(document, found)
                return
            if ctx.is_done and give_up_at is None:
                give_up_at = loop.time() + _LAST_SECONDS
        document.is_given_up = True

    def _learn(self, document: OwnDocument, found: Document | None) -> None:
        is_new = document.state is None
        document.state = None if found is None else {name: value for name, value in found.items() if name != "_id"}
        document.is_given_up = is_new and found is None
        content = None if found is None else content_of(found)
        for write in document.doubtful:
            if write.content == content:
                self._settle(write, had_effect=True)
                document.doubtful.clear()
                break

    def _settle(self, write: ConsentWrite, *, had_effect: bool) -> None:
        self._journal.settle_consent(write, had_effect=had_effect)
        if had_effect:
            self._stored += 1
        else:
            self._refused += 1

    def _collection(self, document: OwnDocument) -> Collection:
        return self._database[document.collection]
