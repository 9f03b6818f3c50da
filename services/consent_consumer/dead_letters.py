"""Keep the events that Salesforce will not take, whole, until an operator has replayed them or their time is over.

A letter is known by its stream and its event, so an event that is read twice is one letter. Whoever replays claims it
first, for a time that the database's clock measures: two operators never replay the same one, and one who goes away
in the middle leaves it to the next.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple, Protocol

import bson
from bson import Timestamp
from bson.raw_bson import RawBSONDocument
from pymongo import ASCENDING, ReturnDocument
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.errors import BulkWriteError

from runtime.mongo import Document, MongoDatabase
from services.consent_consumer.foreign_document import FIELD_BY_FIELD
from services.consent_consumer.store import DEAD_LETTERS, waiting_helps

EVENT_BYTES_MAX: Final = 15_000_000
"""Beyond it a document with the event in it might not fit into MongoDB's 16 MB."""
CAUSE_CHARACTERS_MAX: Final = 2_000
CODES_MAX: Final = 20
CODE_CHARACTERS_MAX: Final = 100

_DUPLICATE_KEY: Final = 11_000
_OLDEST_FIRST: Final = [("failed_at", ASCENDING), ("_id", ASCENDING)]
_KEY_FIELDS: Final = ("operationType", "clusterTime", "ns", "_id", "documentKey")
_WITHOUT_EVENT: Final = {"event": 0}


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """An event that could not be delivered, and all that is known of that.

    Attributes:
        letter_id: its name, see `letter_id_of`.
        stream: which one it came from.
        event: as it was read, any BSON in it.
        error_class: what it failed by, in a word that never changes.
        codes: Salesforce's own, if it said any; cut to 20.
        tries: how often it was sent.
        cause: in words, cut to 2,000 characters.
        first_tried_at, failed_at: when it was begun and given up.
        event_bytes: the whole event's size.
        is_whole: False when it was too large, for an answer of the server or above 15 MB: `event` has its key then, and
            nothing of its content.
        external_id: the document's, by which Salesforce knows it.
    """

    letter_id: str
    stream: str
    event: Mapping[str, Any]  # BSON of any type
    error_class: str
    codes: Sequence[str]
    tries: int
    cause: str
    first_tried_at: datetime
    failed_at: datetime
    event_bytes: int = 0
    is_whole: bool = True
    external_id: str = ""


class LetterPosition(NamedTuple):
    """The last letter of a page; the next page begins behind it."""

    failed_at: datetime
    letter_id: str


@dataclass(frozen=True, slots=True)
class LetterFilter:
    """Which letters are wanted; None means all."""

    stream: str | None = None
    error_class: str | None = None
    letter_id: str | None = None


class DeadLetters(Protocol):
    """What a consumer and its operators need of the letters; every call happens whole or not at all."""

    async def bury(self, letters: Sequence[DeadLetter]) -> int:
        """Keep the letters that are not there yet, and return how many that were; all of them are there then.

        Only after an error it may be that some are and some are not; to bury them again is safe.
        """

    async def list(self, wanted: LetterFilter, after: LetterPosition | None, limit: int) -> list[DeadLetter]:
        """Return at most `limit` letters from behind `after` on, oldest first, with an empty `event`."""

    async def show(self, letter_id: str) -> DeadLetter | None:
        """Return the whole letter, or None when there is none of that name."""

    async def find_dead(self, stream: str, external_ids: Sequence[str], since: Timestamp) -> set[str]:
        """Return those of these documents of which a letter holds an event of this cluster time or a later one."""

    async def claim(
        self, claim_id: str, wanted: LetterFilter, after: LetterPosition | None, seconds: float
    ) -> DeadLetter | None:
        """Take the oldest wanted letter from behind `after` on that nobody replays now; None when there is none.

        Args:
            claim_id: Names one letter's replay: an answer that was lost is asked for again under the same one.
            wanted: Which letters.
            after: The letter before; whoever goes on from there meets no letter twice.
            seconds: How long nobody else may take it.
        """

    async def settle(self, letter_id: str, claim_id: str) -> bool:
        """Remove a letter that was replayed; False when the claim was over and another took it, or it is gone."""

    async def give_back(self, letter_id: str, claim_id: str, cause: str | None) -> bool:
        """Leave a letter whose replay failed to the next one; False as `settle`.

        Args:
            letter_id: Which one.
            claim_id: Whose.
            cause: Why it was refused, which counts as one more try; None leaves the letter as it was, for a replay that
                came to no answer.
        """

    async def count(self) -> int:
        """Return about how many letters there are, at no cost."""

    async def remove_old(self, older_than: timedelta, limit: int) -> int:
        """Remove at most `limit` letters above an age, the oldest first, and return how many went."""


class MongoDeadLetters:
    """The letters in a database; see `DeadLetters`, and `MongoConsentStore` for what any call may raise."""

    def __init__(self, database: MongoDatabase, reach: Callable[[str], None] = lambda _: None) -> None:
        self._database = database
        self._reach = reach

    async def bury(self, letters: Sequence[DeadLetter]) -> int:
        """See `DeadLetters`."""
        documents = [_document_of(letter) for letter in letters]
        if not documents:
            return 0
        with waiting_helps(self._database):
            try:
                await self._database.collection(DEAD_LETTERS).insert_many(documents, ordered=False)
                buried = len(documents)
            except BulkWriteError as error:
                failures = error.details["writeErrors"]
                is_only_known = all(each["code"] == _DUPLICATE_KEY for each in failures)
                if not is_only_known or error.details["writeConcernErrors"]:
                    raise
                buried = error.details["nInserted"]
        self._reach("after-bury")
        return buried

    async def list(self, wanted: LetterFilter, after: LetterPosition | None, limit: int) -> list[DeadLetter]:
        """See `DeadLetters`."""
        query = _query(wanted, after)
        with waiting_helps(self._database):
            found = self._letters.find(query, _WITHOUT_EVENT, sort=_OLDEST_FIRST, limit=limit)
            return [_letter_of(document) for document in await found.to_list(None)]

    async def show(self, letter_id: str) -> DeadLetter | None:
        """See `DeadLetters`."""
        with waiting_helps(self._database):
            found = await self._letters.find_one({"_id": letter_id})
        return None if found is None else _letter_of(found)

    async def find_dead(self, stream: str, external_ids: Sequence[str], since: Timestamp) -> set[str]:
        """See `DeadLetters`."""
        query = {
            "external_id": {"$in": list(external_ids)},
            "stream": {"$eq": stream},
            "event.clusterTime": {"$gte": since},
        }
        with waiting_helps(self._database):
            found = self._letters.find(query, {"external_id": 1})
            return {document["external_id"] for document in await found.to_list(None)}

    async def claim(
        self, claim_id: str, wanted: LetterFilter, after: LetterPosition | None, seconds: float
    ) -> DeadLetter | None:
        """See `DeadLetters`."""
        is_ours = {"$eq": ["$claim.id", {"$literal": claim_id}]}
        claim = {"id": {"$literal": claim_id}, "until": {"$add": ["$$NOW", round(seconds * 1_000)]}}
        with waiting_helps(self._database):
            taken = await self._letters.find_one_and_update(
                _query(wanted, after) | {"$expr": {"$or": [is_ours, _IS_FREE]}},
                [{"$set": {"claim": claim}}],
                sort=_OLDEST_FIRST,
                return_document=ReturnDocument.AFTER,
            )
        return None if taken is None else _letter_of(taken)

    async def settle(self, letter_id: str, claim_id: str) -> bool:
        """See `DeadLetters`."""
        with waiting_helps(self._database):
            result = await self._letters.delete_one(_claimed(letter_id, claim_id))
        return bool(result.deleted_count)

    async def give_back(self, letter_id: str, claim_id: str, cause: str | None) -> bool:
        """See `DeadLetters`."""
        change: Document = {"$unset": {"claim": ""}}
        if cause is not None:
            change |= {"$set": {"cause": _cut(cause, CAUSE_CHARACTERS_MAX)}, "$inc": {"tries": 1}}
        with waiting_helps(self._database):
            result = await self._letters.update_one(_claimed(letter_id, claim_id), change)
        return bool(result.matched_count)

    async def count(self) -> int:
        """See `DeadLetters`."""
        with waiting_helps(self._database):
            return await self._letters.estimated_document_count()

    async def remove_old(self, older_than: timedelta, limit: int) -> int:
        """See `DeadLetters`."""
        age = round(older_than.total_seconds() * 1_000)
        is_old = {"$lt": ["$failed_at", {"$subtract": ["$$NOW", age]}]}
        old = {"$expr": {"$and": [is_old, _IS_FREE]}}
        with waiting_helps(self._database):
            found = self._letters.find(old, {"_id": 1}, sort=_OLDEST_FIRST, limit=limit)
            ids = [document["_id"] for document in await found.to_list(None)]
            if not ids:
                return 0
            result = await self._letters.delete_many({"_id": {"$in": ids}} | old)
        return result.deleted_count

    @property
    def _letters(self) -> AsyncCollection[RawBSONDocument]:
        return self._database.collection(DEAD_LETTERS).with_options(codec_options=FIELD_BY_FIELD)


_IS_FREE: Final = {"$lte": ["$claim.until", "$$NOW"]}  # what was never claimed has no such time, which is less


def letter_id_of(stream: str, event_id: Any) -> str:  # noqa: ANN401 - BSON of any type
    """Return the name of an event's letter: 32 hexadecimal digits that follow from the stream and the event alone.

    Args:
        stream: Which one.
        event_id: The event's resume token, or what else tells it apart within its stream.
    """
    return hashlib.sha256(_encode({"stream": stream, "event": event_id})).hexdigest()[:32]


def bounded(letter: DeadLetter) -> DeadLetter:
    """Return a letter as it is kept: cut to its bounds, its event measured."""
    size = len(_encode(letter.event))
    has_room = size <= EVENT_BYTES_MAX
    return replace(
        letter,
        event=letter.event if has_room else _key_of(letter.event),
        event_bytes=size,
        is_whole=letter.is_whole and has_room,
        codes=tuple(_cut(code, CODE_CHARACTERS_MAX) for code in letter.codes[:CODES_MAX]),
        cause=_cut(letter.cause, CAUSE_CHARACTERS_MAX),
    )


def _encode(document: Mapping[str, Any]) -> bytes:  # Any: BSON
    return bson.encode(document, codec_options=FIELD_BY_FIELD)


def _key_of(event: Mapping[str, Any]) -> Document:  # Any: BSON
    """Return what says which event it was, as far as that has room: a document's id may be as large as a document."""
    key: Document = {}
    for name in _KEY_FIELDS:
        if name in event and len(_encode(longer := {**key, name: event[name]})) <= EVENT_BYTES_MAX:
            key = longer
    return key


def _cut(text: str, characters: int) -> str:
    return text[:characters].encode(errors="replace").decode()  # a lone surrogate is no text for BSON


def _document_of(letter: DeadLetter) -> Document:
    kept = bounded(letter)
    document: Document = {name: getattr(kept, name) for name in DeadLetter.__slots__ if name != "letter_id"}
    return {"_id": kept.letter_id, **document}


def _letter_of(document: Mapping[str, Any]) -> DeadLetter:  # Any: BSON
    fields = {name: document[name] for name in DeadLetter.__slots__ if name in document}
    fields["codes"] = tuple(fields["codes"])
    return DeadLetter(**{"event": {}, **fields}, letter_id=document["_id"])


def _claimed(letter_id: str, claim_id: str) -> Document:
    return {"_id": letter_id, "claim.id": claim_id}


def _query(wanted: LetterFilter, after: LetterPosition | None) -> Document:
    fields = {"stream": wanted.stream, "error_class": wanted.error_class, "_id": wanted.letter_id}
    query: Document = {name: {"$eq": value} for name, value in fields.items() if value is not None}
    if after is not None:
        behind = {"failed_at": after.failed_at, "_id": {"$gt": after.letter_id}}
        query["$or"] = [{"failed_at": {"$gt": after.failed_at}}, behind]
    return query
