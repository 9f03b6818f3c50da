"""Members who give, change and take back consents, and what was attempted and promised of each document."""

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from random import Random

from bson import ObjectId

from loyalty.consent import ConsentChannel, ConsentStatus
from runtime.errors import DependencyUnavailable
from runtime.mongo import MongoDatabase
from services.consent_consumer.change_stream import CONSENT_DETAIL, CONSENT_MASTER
from services.consent_consumer.record import external_id
from tests.support.consent_consumer_process import GONE, Content, State, content_of, detail, master

Key = tuple[str, str]
"""A document: its collection, and its external id."""

_BEGIN = datetime(2026, 1, 1, tzinfo=UTC)


class ConsentMembers:
    """One write after another; a document whose write had no answer is not written again, so its state stays known.

    Every write bears a time of its own (`changed_at`), so no two states of a document are equal.

    Attributes:
        dropped: the documents that went with their collection, which changes nothing in Salesforce.
    """

    def __init__(self, database: MongoDatabase, random: Random | None = None) -> None:
        self.dropped: set[Key] = set()
        self._database = database
        self._random = random or Random(0)
        self._attempted: defaultdict[Key, list[State]] = defaultdict(list)
        self._promised: dict[Key, int] = {}
        self._living: dict[Key, Content] = {}
        self._writes = 0
        self._turn = asyncio.Lock()

    @property
    def keys(self) -> frozenset[Key]:
        """Every document that somebody tried to write."""
        return frozenset(self._attempted)

    @property
    def promised(self) -> int:
        """How many documents MongoDB has confirmed, by a majority, in some state."""
        return len(self._promised)

    @property
    def writes(self) -> int:
        """How many writes were attempted."""
        return self._writes

    def attempted(self, key: Key) -> frozenset[State]:
        """Return every state that was asked for."""
        return frozenset(self._attempted.get(key, ()))

    def right(self, key: Key) -> frozenset[State]:
        """Return what a document may be now: the state that was promised last, or one that was asked for after it."""
        promised = self._promised.get(key)
        if promised is None:
            return frozenset({GONE, *self._attempted[key]})
        return frozenset(self._attempted[key][promised:])

    def deleted_since(self, key: Key, state: State | None) -> bool:
        """Say whether a document was to be deleted after it was to have a state; None for its beginning."""
        states = self._attempted.get(key, [])
        begin = states.index(state) + 1 if state in states else 0
        return GONE in states[begin:]

    async def put(self, collection: str, document: Content) -> bool:
        """Insert a document or replace the one of its id; return whether that was confirmed."""
        async with self._turn:
            return await self._put(collection, document)

    async def change(self, collection: str, document_id: object, **fields: object) -> bool:
        """Set fields of a living document; return whether that was confirmed."""
        async with self._turn:
            return await self._change((collection, external_id(document_id)), fields)

    async def delete(self, collection: str, document_id: object) -> bool:
        """Delete a document; return whether that was confirmed."""
        async with self._turn:
            return await self._delete((collection, external_id(document_id)))

    @contextlib.asynccontextmanager
    async def dropping(self, *collections: str) -> AsyncIterator[None]:
        """Hold every write back while a block drops or renames collections, with all that is in them."""
        async with self._turn:
            yield
            for key in [key for key in self._attempted if key[0] in collections]:
                self._attempted[key].append(GONE)
                self.dropped.add(key)
                self._living.pop(key, None)

    async def act(self) -> bool:
        """Do what some member does: mostly change something, often give a new consent, seldom take one back whole."""
        async with self._turn:
            chance = self._random.random()
            if not self._living or chance < 0.35:
                return await self._give()
            key = self._random.choice(list(self._living))
            if chance < 0.42:
                return await self._take_back(key)
            if chance < 0.55:
                return await self._put(key[0], dict(self._living[key]))
            if key[0] == CONSENT_DETAIL:
                return await self._change(key, {"is_granted": self._random.random() < 0.5})
            return await self._change(key, {"status": self._random.choice([*ConsentStatus]).value})

    async def act_times(self, times: int) -> None:
        """Do so many of these things."""
        for _ in range(times):
            await self.act()

    @contextlib.asynccontextmanager
    async def at_work(self, *, pause_seconds: float = 0.0) -> AsyncIterator[None]:
        """Do one thing after another for the length of a block; an error of theirs is the block's."""
        is_over = asyncio.Event()

        async def work() -> None:
            while not is_over.is_set():
                await self.act()
                await asyncio.sleep(pause_seconds)

        async with asyncio.TaskGroup() as group:
            group.create_task(work())
            try:
                yield
            finally:
                is_over.set()

    async def _give(self) -> bool:
        number = self._writes
        kinds: tuple[Callable[[], object], ...] = (ObjectId, lambda: number, lambda: f"c-{number}")
        document_id = self._random.choice(kinds)()
        channel = self._random.choice([*ConsentChannel]).value
        if not await self._put(CONSENT_MASTER, master(document_id, channel=channel, member_id=f"m-{number}")):
            return False
        return await self._put(CONSENT_DETAIL, detail(f"d-{number}", document_id))

    async def _take_back(self, key: Key) -> bool:
        """Delete a document; of a master its details first, which could never be carried without it."""
        master_id = self._living[key]["_id"]
        of_it = [other for other, one in self._living.items() if "master_id" in one and one["master_id"] == master_id]
        for other in of_it:
            await self._delete(other)
        return await self._delete(key)

    async def _put(self, collection: str, document: Content) -> bool:
        document["changed_at"] = self._now()
        key = collection, external_id(document["_id"])
        same = {"_id": document["_id"]}
        self.dropped.discard(key)
        self._living[key] = document
        places = self._database.collection(collection)
        return await self._write(key, content_of(document), lambda: places.replace_one(same, document, upsert=True))

    async def _change(self, key: Key, fields: Content) -> bool:
        fields["changed_at"] = self._now()
        self._living[key] = document = self._living[key] | fields
        same = {"_id": document["_id"]}
        places = self._database.collection(key[0])
        return await self._write(key, content_of(document), lambda: places.update_one(same, {"$set": fields}))

    async def _delete(self, key: Key) -> bool:
        same = {"_id": self._living.pop(key)["_id"]}
        places = self._database.collection(key[0])
        return await self._write(key, GONE, lambda: places.delete_one(same))

    async def _write(self, key: Key, state: State, write: Callable[[], Awaitable[object]]) -> bool:
        self._attempted[key].append(state)
        place = len(self._attempted[key]) - 1
        try:
            with self._database.call():
                await write()
        except DependencyUnavailable:
            self._living.pop(key, None)
            return False
        self._promised[key] = place
        return True

    def _now(self) -> datetime:
        self._writes += 1
        return _BEGIN + timedelta(milliseconds=self._writes)
