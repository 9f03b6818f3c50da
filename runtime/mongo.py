"""Open a MongoDB database for a process: one client, deadlines on everything, a password that may change.

Go's driver takes a context with each call and obeys it. Here the client has a deadline for each operation, a
transaction one for all of it, and a cancel of the task ends the call: PyMongo closes the connection it was waiting on.
(Motor's thread goes on in the background, for no longer than the operation's time.)
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, TypeVar, TypeVarTuple

import pymongo
from bson.codec_options import CodecOptions
from pymongo.asynchronous.change_stream import AsyncChangeStream
from pymongo.asynchronous.client_session import AsyncClientSession
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.errors import OperationFailure
from pymongo.operations import IndexModel

from patterns.context import Context
from runtime.dependency import wait_for_dependency
from runtime.errors import IndexConflictError, PoolExhausted
from runtime.logs import get_logger
from runtime.metrics import StatisticsCollector, registry
from runtime.mongo_client import Client, Document, PoolListener, build_client, settle
from runtime.mongo_error import DEPENDENCY, as_unavailable, is_password_refused
from runtime.mongo_settings import MongoSettings
from runtime.settings import read_secret

__all__ = [
    "ChangeStream",
    "Collection",
    "Document",
    "MongoDatabase",
    "MongoStatistics",
    "Session",
    "expose_mongo",
    "open_mongo",
]

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

Collection = AsyncCollection[Document]
Session = AsyncClientSession
ChangeStream = AsyncChangeStream[Document]

_INDEX_CONFLICTS: Final = frozenset({85, 86})  # other options, or other keys, under the same name
_SLACK_SECONDS: Final = 0.25
_COUNTERS: Final = frozenset({"opened", "failed", "cleared", "renewed"})

_log = get_logger(__name__)


@dataclass(frozen=True)
class MongoStatistics:
    """Show the client's pools: ``open`` and ``lent`` are now, the rest counts since the start."""

    open: int
    lent: int
    opened: int
    failed: int
    cleared: int
    renewed: int


class MongoDatabase:
    """One database, and the four ways to use it: a call, a transaction, a stream of changes, a question of health.

    Building it dials nobody, but reads the password's file, so it blocks for that long. It may be built on any thread;
    from its first operation on it belongs to that operation's event loop.
    """

    def __init__(self, settings: MongoSettings, *, application_name: str = "loyalty-platform") -> None:
        self._settings = settings
        self._application_name = application_name
        self._listener = PoolListener()
        self._password = read_secret(settings.password, settings.password_file)
        self._client = self._build()
        self._old: set[asyncio.Task[None]] = set()
        self._renewal: asyncio.Task[None] | None = None
        self._renewed = 0
        self._is_closed = False
        self._call = _Call(self._renew_client, settings)

    @property
    def name(self) -> str:
        """The database's name."""
        return self._settings.database

    @property
    def client(self) -> Client:
        """The driver's client at this moment; a changed password replaces it, so do not keep it."""
        return self._client

    def collection(self, name: str) -> Collection:
        """Return a collection of the database; ask anew each time, do not keep it."""
        return self._client[self._settings.database][name]

    def call(self) -> "_Call":
        """Turn what is a state of the server, inside of the block, into ``DependencyUnavailable``.

        `async with` waits for its turn first, for one operation's time at most: as many blocks are entered at once as
        the pool has connections, in the order in which they came. The driver's own queue has no order, so that under
        load some wait for seconds while others come and go. Do not nest it, nor use it in a transaction.

        Each operation in the block has its own time. After an error of a write it is not known whether it happened,
        since its answer may be what was lost: repeat only what may happen twice.

        Raises:
            DependencyUnavailable: no primary, no answer, or no majority in time; ``PoolExhausted`` and
                ``TransactionContended`` are kinds of it.
            PyMongoError: anything else, such as ``DuplicateKeyError``.
        """
        return self._call

    async def transaction(self, fn: Callable[[Session, *Ts], Awaitable[T]], *args: *Ts) -> T:
        """Run ``fn(session, *args)`` in a transaction: committed by a majority when it returns, undone when it raises.

        What lost to another transaction, or met a change of the primary, is run again from its beginning, so ``fn``
        must have no effect outside; a commit whose answer was lost is asked for again. All of it has one operation's
        time. A cancel undoes what was not committed.

        Raises:
            DependencyUnavailable, PyMongoError: as ``call``; whether it was committed may then not be known.
        """

        async def run(session: Session) -> T:
            return await fn(session, *args)

        seconds = self._settings.operation_timeout_seconds
        # The driver keeps the deadline itself, and says what it waited for; Motor runs a transaction again for 120 s.
        async with self.call():
            with pymongo.timeout(seconds):
                async with asyncio.timeout(seconds + _SLACK_SECONDS):
                    session: Session = await settle(self._client.start_session())
                    async with session:
                        return await session.with_transaction(run)

    async def create_indexes(self, indexes: Mapping[str, Sequence[IndexModel]]) -> None:
        """Create the indexes, by collection, that are not there; any number of processes may do so at once.

        Raises:
            IndexConflictError: one is there in another form.
            DependencyUnavailable: the database does not answer, or is not done in the time of one operation.
        """
        for name, models in indexes.items():
            try:
                with self.call():
                    await self.collection(name).create_indexes(models)
            except OperationFailure as error:
                if error.code not in _INDEX_CONFLICTS:
                    raise
                reason = (error.details or {}).get("errmsg")
                raise IndexConflictError(f"{self.name}.{name}: {reason}") from error

    async def watch(
        self,
        pipeline: Sequence[Mapping[str, Any]],
        *,
        collection: str | None = None,
        codec_options: CodecOptions[Any] | None = None,
        **options: object,
    ) -> ChangeStream:
        """Open a stream of changes of one collection, or of the whole database; its ``close`` ends it.

        Call it, and the stream's own methods, inside of ``call``. Read it with ``try_next``: a timeout around ``next``
        closes the stream without a word.
        """
        of: Any = self._client[self._settings.database] if collection is None else self.collection(collection)
        if codec_options is not None:
            of = of.with_options(codec_options=codec_options)
        stream: ChangeStream = await settle(of.watch(pipeline, **options))
        return stream

    async def check(self) -> None:
        """Return when a primary answers, for readiness.

        Raises:
            DependencyUnavailable: there is none.
        """
        with self.call():
            await self._client.admin.command("ping")

    async def wait_for_connection(self, ctx: Context, timeout_seconds: float | None = None) -> None:
        """Return when a primary answers; see ``wait_for_dependency``."""
        await wait_for_dependency(ctx, self.check, dependency=DEPENDENCY, timeout_seconds=timeout_seconds)

    def statistics(self) -> MongoStatistics:
        """Return the state of the client's pools; safe from any thread."""
        seen = self._listener
        return MongoStatistics(
            open=seen.created.load() - seen.closed.load(),
            lent=seen.lent.load() - seen.returned.load(),
            opened=seen.created.load(),
            failed=seen.failed.load(),
            cleared=seen.cleared.load(),
            renewed=self._renewed,
        )

    async def aclose(self) -> None:
        """Close every connection, within ``close_timeout_seconds``; calls under way fail. May be called twice."""
        self._is_closed = True
        under_way = [*self._old, *([self._renewal] if self._renewal is not None else [])]
        for task in under_way:
            task.cancel()
        if under_way:
            await asyncio.wait(under_way)
        await self._close(self._client)

    def _build(self) -> Client:
        return build_client(
            self._settings, self._password, application_name=self._application_name, listener=self._listener
        )

    def _renew_client(self) -> None:
        if self._settings.password_file is None or self._renewal is not None or self._is_closed:
            return
        self._renewal = asyncio.get_running_loop().create_task(self._read_password_anew(), name="mongo password")

    async def _read_password_anew(self) -> None:
        """Replace the client by one with the password that the file has now, if it is another one."""
        try:
            password = await asyncio.to_thread(read_secret, None, self._settings.password_file)
        except (OSError, ValueError) as error:
            _log.warning("The password's file cannot be read", dependency=DEPENDENCY, error=str(error))
            return
        finally:
            self._renewal = None
        if password == self._password or self._is_closed:
            return
        old, self._password = self._client, password
        self._client = self._build()
        self._renewed += 1
        _log.info("The password was changed: new connections use the new one", dependency=DEPENDENCY)
        closing = asyncio.get_running_loop().create_task(self._close_when_idle(old), name="mongo old client")
        self._old.add(closing)
        closing.add_done_callback(self._old.discard)

    async def _close_when_idle(self, client: Client) -> None:
        """Let calls that are under way on the replaced client end, then close it."""
        try:
            await asyncio.sleep(self._settings.operation_timeout_seconds)
        finally:
            await self._close(client)

    async def _close(self, client: Client) -> None:
        try:
            async with asyncio.timeout(self._settings.close_timeout_seconds):
                await settle(client.close())
        except TimeoutError:
            _log.warning("Connections did not close in time", dependency=DEPENDENCY)


class _Call:
    """See `MongoDatabase.call`; a class, since a stream enters it for each change, and a generator costs more."""

    __slots__ = ("_renew_client", "_seconds", "_turns")

    def __init__(self, renew_client: Callable[[], None], settings: MongoSettings) -> None:
        self._renew_client = renew_client
        self._turns = asyncio.Semaphore(settings.pool_max)
        self._seconds = settings.operation_timeout_seconds

    async def __aenter__(self) -> None:
        """Wait for a turn."""
        if not self._turns.locked():
            await self._turns.acquire()
            return
        try:
            async with asyncio.timeout(self._seconds):
                await self._turns.acquire()
        except TimeoutError as error:
            raise PoolExhausted(DEPENDENCY, f"no connection was free for {self._seconds:g} s") from error

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Give the turn to whoever waits longest, then do as `__exit__`."""
        self._turns.release()
        self.__exit__(exc_type, exc, traceback)

    def __enter__(self) -> None:
        """Do nothing."""

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if not isinstance(exc, pymongo.errors.PyMongoError | OSError):
            return
        if is_password_refused(exc):
            self._renew_client()
        if (unavailable := as_unavailable(exc)) is not None:
            raise unavailable from exc


@asynccontextmanager
async def open_mongo(
    ctx: Context, settings: MongoSettings, *, application_name: str = "loyalty-platform"
) -> AsyncIterator[MongoDatabase]:
    """Open a database for the length of a block, and enter it when a primary answered.

    Raises:
        DependencyUnavailable: the context's time ran out; the message has the last error.
        ContextCancelled: the context was cancelled, as by a signal.
        OSError, ValueError: the password's file cannot be read.
    """
    database = await asyncio.to_thread(MongoDatabase, settings, application_name=application_name)
    try:
        await database.wait_for_connection(ctx)
        yield database
    finally:
        await database.aclose()


def expose_mongo(database: MongoDatabase) -> None:
    """Show a client's statistics among the process's metrics; for the one client of a process."""
    registry.register(StatisticsCollector("mongo_pool", database.statistics, counters=_COUNTERS))
