"""Read the changes of a collection, whatever becomes of its server: the twin of the original's `db/db.go`.

    func iterateChangeStream(routineCtx context.Context, waitGroup *sync.WaitGroup, stream *mongo.ChangeStream) {
        defer stream.Close(routineCtx)
        defer waitGroup.Done()
        for stream.Next(routineCtx) {
            var data bson.M
            if err := stream.Decode(&data); err != nil { panic(err) }
            updateConsentMasterToSalesforce(data)
        }
    }

There the loop ends for any reason at all, nobody looks at `stream.Err()`, and the other stream goes on alone. Here the
end of a context is the only end that is not an error. What passes is waited out: the stream is opened again behind the
last event that was read, for as long as that takes. And a place that the server no longer has is told, never jumped.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, Final, Protocol

from pymongo.errors import InvalidOperation, OperationFailure

from patterns import Context, ContextError
from runtime.backoff import Backoff
from runtime.errors import DependencyUnavailable
from runtime.logs import get_logger
from runtime.mongo import ChangeStream, MongoDatabase
from runtime.mongo_error import DEPENDENCY
from services.consent_consumer.errors import PositionLostError
from services.consent_consumer.foreign_document import FOREIGN
from services.consent_consumer.position import StreamLedger
from services.consent_consumer.record import external_id
from services.consent_consumer.settings import RetrySettings
from services.consent_consumer.store import Position

CONSENT_MASTER: Final = "consent_master"
CONSENT_DETAIL: Final = "consent_detail"

_KEY: Final = {"operationType": 1, "clusterTime": 1, "ns": 1, "to": 1, "documentKey": 1}
_OF_DOCUMENTS: Final = frozenset({"insert", "update", "replace", "delete"})
_INVALIDATE: Final = "invalidate"

_HISTORY_LOST: Final = frozenset({136, 286})  # read too slowly, or away too long
_TOO_LARGE: Final = 10_334
# A right that is missing, and what another opening replaces: a cursor that is gone or killed, a question interrupted.
_NOT_OF_THE_POSITION: Final = frozenset({13, 43, 237, 11_601})
_AWAIT_MS: Final = 1_000

_log = get_logger(__name__)

Event = Mapping[str, Any]  # BSON of any type


@dataclass(slots=True, eq=False)
class Change:
    """One event about one document, under its number in the ledger; `is_whole` is False when it was too large.

    `key` tells its document from any other: it is the external id.
    """

    number: int
    event: Event
    is_whole: bool = True
    key: str = field(init=False)

    def __post_init__(self) -> None:
        self.key = external_id(self.document_id)

    @property
    def document_id(self) -> Any:  # noqa: ANN401 - MongoDB takes any type for an id
        """The id of the document."""
        return self.event["documentKey"]["_id"]

    @property
    def document(self) -> Event | None:
        """The document as it was when the event was read, and None when it was gone by then."""
        found: Event | None = self.event.get("fullDocument")
        return found


class Receiver(Protocol):
    """Takes changes, one after the other: a channel, or those who carry them on."""

    async def send(self, change: Change, /) -> None:
        """Take a change, as soon as there is room."""


async def consent_master_stream(database: MongoDatabase, position: Position, events_max: int) -> ChangeStream:
    """Open the stream of `consent_master` behind a position; call it inside of `MongoDatabase.call`."""
    fields = ("member_id", "status", "granted", "policy_version", "channel", "changed_at", "schema_version")
    return await _open(database, CONSENT_MASTER, position, events_max, fields)


async def consent_detail_stream(database: MongoDatabase, position: Position, events_max: int) -> ChangeStream:
    """Open the stream of `consent_detail` behind a position; call it inside of `MongoDatabase.call`."""
    fields = ("master_id", "purpose", "is_granted", "changed_at", "schema_version")
    return await _open(database, CONSENT_DETAIL, position, events_max, fields)


async def iterate_change_stream(ctx: Context, reader: "ChangeReader", receiver: Receiver) -> None:
    """Read changes and send them on, in their order, until the context ends, which is a clean exit.

    What was read and not sent by then is read again after the next start.

    Raises:
        PositionLostError: The server no longer has the changes from the position on.
        VersionOverflowError, ValueError: The stream gave what no stream may give.
    """
    try:
        # One run for all of them: one for each change would cost more than reading it.
        await ctx.run(_pass_on(ctx, reader, receiver))
    except ContextError:
        if not ctx.is_done:
            raise
    finally:
        await reader.aclose()
        _log.info("Change stream stopped", stream=reader.stream)


async def _pass_on(ctx: Context, reader: "ChangeReader", receiver: Receiver) -> None:
    while True:
        await receiver.send(await reader.read(ctx))


class _Reading(IntEnum):
    """How the next event is asked for. An answer that is too large fails as a whole, whichever of its events it is."""

    BATCHES = 0
    ALONE = 1
    KEYS = 2


class ChangeReader:
    """One stream of changes, opened anew as often as it takes; for one task.

    Every event goes into the ledger in its order. What is about no document (a drop, a rename, an invalidate) is
    settled there at once: dropping a collection is an administrator's deed, not thousands of members' withdrawals, so
    it changes nothing in Salesforce; a resync would.

    Args:
        database: Where the collection is.
        stream: The collection's name, one of the two.
        ledger: Keeps account of what was read.
        begin: Where to begin.
        events_max: How many events the server sends at once.
        retry: The waits while the server is away.
    """

    def __init__(
        self,
        database: MongoDatabase,
        stream: str,
        ledger: StreamLedger,
        begin: Position,
        *,
        events_max: int,
        retry: RetrySettings,
    ) -> None:
        self.stream = stream
        self._database = database
        self._ledger = ledger
        self._position = begin
        self._events_max = events_max
        self._backoff = Backoff(retry.first_seconds, retry.most_seconds)
        self._source: ChangeStream | None = None
        self._has_answered = False
        self._reading = _Reading.BATCHES
        self._failure: DependencyUnavailable | None = None

    async def read(self, ctx: Context) -> Change:
        """Return the next change of a document, as soon as there is one and the ledger has room for it.

        The context's end is looked at between two questions, and interrupts none. A cancelled read loses the stream,
        which the next one opens anew where this one stood.

        Raises:
            ContextError: The context has ended.
            PositionLostError, ValueError: as `iterate_change_stream`.
        """
        while True:
            ctx.raise_if_done()  # a cancel that meets the answer is lost in the driver (`asyncio.wait_for` before 3.12)
            found = await self._next()
            if found is None:
                continue
            event, is_whole = found
            kind = event["operationType"]
            position = Position(event["clusterTime"], dict(event["_id"]), kind == _INVALIDATE)
            number = await self._ledger.register(position)
            self._position = position
            if kind in _OF_DOCUMENTS:
                return Change(number, event, is_whole)
            await self._pass_over(kind, number)

    def check(self) -> None:
        """Return when the stream is open or about to be, for readiness.

        Raises:
            DependencyUnavailable: The last try to open or to read it failed.
        """
        if self._failure is not None:
            raise DependencyUnavailable(self._failure.dependency, self._failure.detail) from self._failure

    async def aclose(self) -> None:
        """Close the stream at the server, as far as it can be reached. Idempotent."""
        source, self._source = self._source, None
        self._has_answered = False
        if source is not None:
            try:
                with self._database.call():
                    await source.close()
            except (DependencyUnavailable, InvalidOperation) as error:
                _log.debug("A change stream was not closed", stream=self.stream, reason=str(error))

    async def _next(self) -> tuple[Event, bool] | None:
        """Return the next event and whether it is whole; None after a quiet second, or after a failure waited out."""
        try:
            event = await self._try_next()
        except OperationFailure as error:
            is_lost = self._is_position_lost(error)
            await self.aclose()
            if error.code == _TOO_LARGE and self._reading is not _Reading.KEYS:
                self._reading = _Reading(self._reading + 1)
                return None
            if is_lost:
                raise PositionLostError(self.stream, error.code, error.code in _HISTORY_LOST) from error
            await self._wait(DependencyUnavailable(DEPENDENCY, f"{type(error).__name__} ({error.code})"))
        except (DependencyUnavailable, InvalidOperation) as error:  # the latter: the password was changed
            await self.aclose()
            failure = error if isinstance(error, DependencyUnavailable) else DependencyUnavailable(DEPENDENCY, "closed")
            await self._wait(failure)
        else:
            self._failure = None
            self._backoff.reset()
            if event is None or self._reading is _Reading.BATCHES:
                return None if event is None else (event, True)
            is_whole = self._reading is not _Reading.KEYS
            self._reading = _Reading.BATCHES
            await self.aclose()
            return event, is_whole
        return None

    async def _try_next(self) -> Event | None:
        with self._database.call():
            if self._source is None:
                self._source = await self._open_source()
            event = await self._source.try_next()
            self._has_answered = True
            if event is None:
                self._note_quiet(self._source)
            return event

    def _is_position_lost(self, error: OperationFailure) -> bool:
        """Tell whether the stream cannot go on from where it stands; only a refused opening judges the position itself.

        A server may refuse a token by its first answer, so until then a stream counts as being opened. One that has
        answered was opened from here; it is opened again, whatever its error, and that tells.
        """
        if error.code in _HISTORY_LOST or error.code == _TOO_LARGE:
            return True
        return not self._has_answered and error.code not in _NOT_OF_THE_POSITION

    async def _open_source(self) -> ChangeStream:
        if self._reading is _Reading.KEYS:
            return await _open(self._database, self.stream, self._position, 1, ())
        events_max = self._events_max if self._reading is _Reading.BATCHES else 1
        return await _STREAMS[self.stream](self._database, self._position, events_max)

    def _note_quiet(self, source: ChangeStream) -> None:
        """Move on with a stream that has nothing to give: its own token goes on all the same."""
        token = None if source.resume_token is None else dict(source.resume_token)
        if token is not None and token != self._position.token:
            self._ledger.quiet(token)
            self._position = Position(self._position.cluster_time, token)

    async def _wait(self, failure: DependencyUnavailable) -> None:
        self._failure = failure
        seconds = self._backoff.fail()
        _log.warning("Change stream interrupted", stream=self.stream, reason=failure.detail, wait_seconds=seconds)
        await asyncio.sleep(seconds)

    async def _pass_over(self, kind: str, number: int) -> None:
        self._ledger.settle(number)
        _log.warning("An event about no document was passed over", stream=self.stream, type=kind)
        if kind == _INVALIDATE:
            await self.aclose()


_STREAMS: Final = {CONSENT_MASTER: consent_master_stream, CONSENT_DETAIL: consent_detail_stream}


async def _open(
    database: MongoDatabase, collection: str, position: Position, events_max: int, fields: Sequence[str]
) -> ChangeStream:
    """Open a stream that shows these fields of each document; of none, it does not even look the document up."""
    shown: dict[str, Any] = dict(_KEY)
    options: dict[str, Any] = {"batch_size": events_max, "max_await_time_ms": _AWAIT_MS, "codec_options": FOREIGN}
    if fields:
        shown["fullDocument"] = {"_id": 1, **dict.fromkeys(fields, 1)}
        options["full_document"] = "updateLookup"
    if position.token is None:
        options["start_at_operation_time"] = position.cluster_time
    else:
        options["start_after" if position.is_invalidate else "resume_after"] = position.token
    return await database.watch([{"$project": shown}], collection=collection, **options)
