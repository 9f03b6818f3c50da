"""Keep positions, the lease and operators' decisions in MongoDB.

With `dead_letters.py` and `collection_scan.py` these are the only queries of this service. Everything is acknowledged
by a majority, and time is the database's clock alone. The number of a lease, its fence, is the guard: whoever takes a
position over stamps it with its own, and a save goes through only under the fence that it finds. So an instance that
slept through the end of its lease moves nothing, whatever its own clock says.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Protocol, cast

from bson import Timestamp
from pymongo import ASCENDING, DESCENDING, IndexModel, ReturnDocument
from pymongo.errors import OperationFailure, PyMongoError
from uuid_utils.compat import uuid7

from runtime.errors import DependencyUnavailable
from runtime.mongo import Collection, Document, MongoDatabase, Session
from runtime.mongo_error import DEPENDENCY
from services.consent_consumer.errors import LeaseHeldError, LeaseLostError

CRASH_POINTS: Final = ("after-lease", "before-save", "after-save", "after-bury")
POSITIONS: Final = "consent_positions"
LEASES: Final = "consent_leases"
DEAD_LETTERS: Final = "consent_dead_letters"
AUDIT: Final = "consent_audit"
LEASE: Final = "consent-consumer"

INDEXES: Final = {
    DEAD_LETTERS: [
        IndexModel([("failed_at", ASCENDING), ("_id", ASCENDING)], name="by_failure"),
        IndexModel([("external_id", ASCENDING)], name="by_document"),
    ],
}

_OPERATOR: Final = "operator"
_NO_OTHER_NUMBERS: Final = dict.fromkeys(("locks", "metrics", "tcmalloc", "wiredTiger"), 0)  # nine tenths of the answer


@dataclass(frozen=True, slots=True)
class Position:
    """A place in a stream: behind the event, or the quiet time, that `token` stands for.

    Attributes:
        cluster_time: of the last event; nothing that comes behind the position is older.
        token: None is the place at `cluster_time` itself, where no event was read yet (`startAtOperationTime`).
        is_invalidate: the token is an invalidate event's, so it opens a stream by `startAfter` alone.
    """

    cluster_time: Timestamp
    token: Mapping[str, Any] | None  # the driver's own, opaque
    is_invalidate: bool = False


@dataclass(frozen=True, slots=True)
class SavedPosition:
    """A position as it is stored, under which fence and since when; `position` is None until the first save."""

    position: Position | None
    fence: int
    saved_at: datetime | None


@dataclass(frozen=True, slots=True)
class OplogSpan:
    """The cluster times between which the server has changes to give: of the oplog's first and of its last entry."""

    first: Timestamp
    last: Timestamp


@dataclass(frozen=True, slots=True)
class LeaseState:
    """The lease as the database sees it: who had it last, under which fence, and whether that is over."""

    holder: str
    fence: int
    expires_at: datetime
    is_held: bool


@dataclass(frozen=True, slots=True)
class AuditLine:
    """An operator's decision: who moved which stream, from where to where, and why."""

    stream: str
    at: datetime
    by: str
    reason: str
    before: Position | None
    after: Position


class ConsentStore(Protocol):
    """What a consumer and its operators need to remember; every call is one step that happens whole or not at all."""

    async def take_lease(self, claim_id: str, holder: str, seconds: float) -> int | None:
        """Take the lease if it is free, under a fence that is higher than any before; None while another has it.

        Asked again with the same claim, as after an answer that was lost, it is extended under the same fence.
        """

    async def renew_lease(self, claim_id: str, seconds: float) -> None:
        """Let the lease run for so many seconds from now on.

        Raises:
            LeaseLostError: It has run out, or another has it.
        """

    async def give_back_lease(self, claim_id: str) -> None:
        """End the lease, if it is still this claim's; its fence is never used again."""

    async def find_lease(self) -> LeaseState | None:
        """Return the lease as it is, or None when nobody ever had it."""

    async def cluster_time(self) -> Timestamp:
        """Return the first time that no change has had yet: a stream that begins there gives what comes from now on."""

    async def oplog_span(self) -> OplogSpan:
        """Return how far back changes can be read at this moment."""

    async def take_position(self, stream: str, fence: int) -> Position | None:
        """Return where a stream stands, and refuse every save under a lower fence from then on; None: it never began.

        Raises:
            LeaseLostError: A higher fence has taken it.
        """

    async def find_position(self, stream: str) -> SavedPosition | None:
        """Return what is stored of a stream, or None when nothing is; refuses nobody anything."""

    async def save_position(self, stream: str, position: Position, fence: int) -> None:
        """Store how far a stream has come; where that would be a step back, nothing is done.

        Raises:
            LeaseLostError: This fence has not taken the position, or another one has since.
        """

    async def skip(self, stream: str, position: Position, *, by: str, reason: str) -> None:
        """Move a stream by an operator's decision, and write it down: both, or neither.

        Raises:
            LeaseHeldError: An instance is at work.
        """

    async def list_audit(self, limit: int) -> list[AuditLine]:
        """Return the last decisions, newest first."""


class MongoConsentStore:
    """The store on a database; see `ConsentStore`.

    Any call may raise `runtime.errors.DependencyUnavailable`, also when the answer to a write was lost, and for what
    only an operator can mend, such as a right that is missing. Every call may be repeated; a `skip` that is writes a
    second line. Where a node with another clock becomes the primary a lease may end early or late by that difference;
    the fence holds all the same, as long as nobody removes the lease's document.

    Args:
        database: Where the consents are.
        reach: Called at each of `CRASH_POINTS` but the last.
    """

    def __init__(self, database: MongoDatabase, reach: Callable[[str], None] = lambda _: None) -> None:
        self._database = database
        self._reach = reach

    async def create_indexes(self) -> None:
        """Create the indexes of this service; see `MongoDatabase.create_indexes`."""
        await self._database.create_indexes(INDEXES)

    async def take_lease(self, claim_id: str, holder: str, seconds: float) -> int | None:
        """See `ConsentStore`."""
        with waiting_helps(self._database):
            lease = await self._take(None, claim_id, holder, seconds)
        if lease["claim_id"] != claim_id:
            return None
        self._reach("after-lease")
        return cast("int", lease["fence"])

    async def renew_lease(self, claim_id: str, seconds: float) -> None:
        """See `ConsentStore`."""
        running = {"_id": LEASE, "claim_id": claim_id, "$expr": {"$gt": ["$expires_at", "$$NOW"]}}
        with waiting_helps(self._database):
            result = await self._leases.update_one(running, [{"$set": {"expires_at": _from_now(seconds)}}])
        if not result.matched_count:
            raise LeaseLostError("the lease has run out, or another instance has it")

    async def give_back_lease(self, claim_id: str) -> None:
        """See `ConsentStore`."""
        with waiting_helps(self._database):
            await self._leases.update_one(
                {"_id": LEASE, "claim_id": claim_id}, [{"$set": {"claim_id": None, "expires_at": "$$NOW"}}]
            )

    async def find_lease(self) -> LeaseState | None:
        """See `ConsentStore`."""
        shown = {"holder": 1, "fence": 1, "expires_at": 1, "is_held": {"$gt": ["$expires_at", "$$NOW"]}}
        with waiting_helps(self._database):
            found = await self._leases.find_one({"_id": LEASE}, shown)
        return None if found is None else _state_of(found)

    async def cluster_time(self) -> Timestamp:
        """See `ConsentStore`."""
        with waiting_helps(self._database):
            answer = await self._database.client.admin.command("hello")
        last: Timestamp = answer["operationTime"]
        return Timestamp(last.time, last.inc + 1)

    async def oplog_span(self) -> OplogSpan:
        """See `ConsentStore`; of the primary. This asks for a right to the server's numbers, not to the oplog."""
        with waiting_helps(self._database):
            status = await self._database.client.admin.command({"serverStatus": 1, "oplog": 1, **_NO_OTHER_NUMBERS})
        oplog = status.get("oplog")
        # A server that cannot look at once, since something is locked, gives a beginning of zero.
        if oplog is None or not oplog["earliestOptime"].time:
            raise DependencyUnavailable(DEPENDENCY, "the server does not say how far its oplog reaches")
        return OplogSpan(oplog["earliestOptime"], oplog["latestOptime"])

    async def take_position(self, stream: str, fence: int) -> Position | None:
        """See `ConsentStore`."""
        with waiting_helps(self._database):
            taken = await self._positions.find_one_and_update(
                {"_id": stream},
                [{"$set": {"fence": {"$max": ["$fence", fence]}}}],
                upsert=True,
                return_document=ReturnDocument.AFTER,
            )
        if taken is None or taken["fence"] != fence:
            raise _overtaken(fence)
        return _position_of(taken)

    async def find_position(self, stream: str) -> SavedPosition | None:
        """See `ConsentStore`."""
        with waiting_helps(self._database):
            found = await self._positions.find_one({"_id": stream})
        if found is None:
            return None
        return SavedPosition(_position_of(found), found["fence"], found.get("saved_at"))

    async def save_position(self, stream: str, position: Position, fence: int) -> None:
        """See `ConsentStore`."""
        not_ahead = {"cluster_time": {"$not": {"$gt": position.cluster_time}}}
        self._reach("before-save")
        with waiting_helps(self._database):
            result = await self._positions.update_one(_held(stream, fence) | not_ahead, _moved(position))
            if result.matched_count:
                self._reach("after-save")
                return
            found = await self._positions.find_one(_held(stream, fence), {"_id": 1})
        if found is None:
            raise _overtaken(fence)

    async def skip(self, stream: str, position: Position, *, by: str, reason: str) -> None:
        """See `ConsentStore`."""
        with waiting_helps(self._database):
            await self._database.transaction(self._skip, stream, position, by, reason)

    async def list_audit(self, limit: int) -> list[AuditLine]:
        """See `ConsentStore`."""
        with waiting_helps(self._database):
            found = self._database.collection(AUDIT).find({}, sort=[("_id", DESCENDING)], limit=limit)
            return [_audit_line_of(line) for line in await found.to_list(None)]

    @property
    def _positions(self) -> Collection:
        return self._database.collection(POSITIONS)

    @property
    def _leases(self) -> Collection:
        return self._database.collection(LEASES)

    async def _take(self, session: Session | None, claim_id: str, holder: str, seconds: float) -> Document:
        """Take the lease if it is over or this claim's, and return it as it is then, whoever has it."""
        is_ours = {"$eq": ["$claim_id", {"$literal": claim_id}]}
        is_over = {"$lte": ["$expires_at", "$$NOW"]}  # a lease that nobody had yet has no such time, which is less
        taken = {
            "claim_id": {"$literal": claim_id},
            "holder": {"$literal": holder},
            "fence": {"$cond": [is_ours, "$fence", {"$add": [{"$ifNull": ["$fence", 0]}, 1]}]},
            "taken_at": "$$NOW",
            "expires_at": _from_now(seconds),
        }
        may = {"$or": [is_ours, is_over]}
        step = {name: {"$cond": [may, value, f"${name}"]} for name, value in taken.items()}
        lease = await self._leases.find_one_and_update(
            {"_id": LEASE}, [{"$set": step}], upsert=True, return_document=ReturnDocument.AFTER, session=session
        )
        return cast("Document", lease)  # it is there: an upsert made it if nothing else did

    async def _skip(self, session: Session, stream: str, position: Position, by: str, reason: str) -> None:
        # A lease of no length: it shuts out whoever would take one now, and its fence whoever had one before.
        claim_id = str(uuid7())
        lease = await self._take(session, claim_id, _OPERATOR, 0.0)
        if lease["claim_id"] != claim_id:
            raise LeaseHeldError(lease["holder"], lease["expires_at"])
        moved = _moved(position)
        moved["$set"]["fence"] = lease["fence"]
        before = await self._positions.find_one_and_update({"_id": stream}, moved, upsert=True, session=session)
        line = {
            "_id": uuid7(),
            "at": lease["taken_at"],
            "stream": stream,
            "decision": "skip",
            "by": by,
            "reason": reason,
            "before": _content(_position_of(before or {})),
            "after": _content(position),
        }
        await self._database.collection(AUDIT).insert_one(line, session=session)


@contextmanager
def waiting_helps(database: MongoDatabase) -> Iterator[None]:
    """Make every error of the database one that is waited out: no event is to blame for it.

    Raises:
        DependencyUnavailable: as `MongoDatabase.call`, and for any other error of the driver.
    """
    try:
        with database.call():
            yield
    except PyMongoError as error:
        code = f" ({error.code})" if isinstance(error, OperationFailure) else ""
        raise DependencyUnavailable(DEPENDENCY, f"{type(error).__name__}{code}") from error


def _held(stream: str, fence: int) -> Document:
    """Return the guard: the position, as long as this fence has it."""
    return {"_id": stream, "fence": fence}


def _moved(position: Position) -> Document:
    return {"$set": _content(position), "$currentDate": {"saved_at": True}}


def _content(position: Position | None) -> Document | None:
    if position is None:
        return None
    return {
        "cluster_time": position.cluster_time,
        "token": position.token,
        "is_invalidate": position.is_invalidate,
    }


def _position_of(document: Mapping[str, Any]) -> Position | None:  # Any: BSON
    if "cluster_time" not in document:
        return None
    return Position(document["cluster_time"], document["token"], document["is_invalidate"])


def _from_now(seconds: float) -> Document:
    return {"$add": ["$$NOW", round(seconds * 1_000)]}


def _state_of(document: Mapping[str, Any]) -> LeaseState:  # Any: BSON
    return LeaseState(document["holder"], document["fence"], document["expires_at"], document["is_held"])


def _audit_line_of(document: Mapping[str, Any]) -> AuditLine:  # Any: BSON
    before, after = (_position_of(document[name] or {}) for name in ("before", "after"))
    if after is None:
        raise ValueError("an audit line without its position")
    return AuditLine(document["stream"], document["at"], document["by"], document["reason"], before, after)


def _overtaken(fence: int) -> LeaseLostError:
    return LeaseLostError(f"the position is not that of fence {fence}: another one has taken it")
