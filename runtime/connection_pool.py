"""Lend a bounded number of connections, one borrower each, and take back only what is fit to be lent again.

asyncpg's own pool sends a reset query on each release and starts a task for it; this one sends nothing, which is right
as long as no session state outlives a transaction: ``set local`` only, no ``listen``, no session advisory locks. Go's
``database/sql`` waits for a free connection until the context ends; here a setting bounds the wait as well.
"""

import asyncio
import random
from collections import deque
from collections.abc import Coroutine
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Final

import asyncpg

from runtime.errors import DependencyUnavailable, PoolExhausted
from runtime.logs import get_logger
from runtime.postgres_connection import Connect, Connection
from runtime.postgres_error import DEPENDENCY, Verdict, as_unavailable, judge
from runtime.settings import PostgresSettings

_BACKOFF_SECONDS: Final = 0.05
_BACKOFF_MOST_SECONDS: Final = 1.0
_TIDY_SECONDS: Final = 15.0
_NEVER: Final = float("-inf")

log = get_logger(__name__)


@dataclass(frozen=True)
class PoolStatistics:
    """Show a pool: ``size`` counts what is open (idle, lent and in repair), the rest counts since the start."""

    size: int
    idle: int
    waiting: int
    connecting: int
    opened: int
    failed_connects: int
    exhausted: int
    interrupted: int
    expired: int


class Lease:
    """Borrow a connection for the length of an ``async with`` block."""

    __slots__ = ("_connection", "_pool")

    def __init__(self, pool: "ConnectionPool") -> None:
        self._pool = pool

    async def __aenter__(self) -> Connection:
        self._connection = self._pool.take_nowait() or await self._pool.take()
        return self._connection

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self._pool.give_back(self._connection)
        else:
            self._pool.give_back_after(self._connection, error)


class ConnectionPool:
    """Hold up to ``pool_max`` connections, opened when they are needed, the most recently used one lent first.

    Waiting borrowers are served in order, at most ``acquire_timeout_seconds`` each and at most ``waiting_max`` of them;
    then ``PoolExhausted``. While no server answers, tries to connect (at most ``pool_max`` at once) come after pauses
    that grow to a second, and in a pause borrowers are refused at once. Cancellation never harms the pool: a borrower
    cancelled in a query gives back a connection that is rolled back aside, within ``repair_timeout_seconds``, or cut.
    Bound to the event loop that made it.
    """

    def __init__(self, settings: PostgresSettings, connect: Connect, *, rng: random.Random | None = None) -> None:
        self._settings = settings
        self._connect = connect
        self._random = rng or random.Random()  # noqa: S311 - spreads retries in time, guards nothing
        self._loop = asyncio.get_running_loop()
        self._idle: list[Connection] = []
        self._open_ones: set[Connection] = set()
        self._waiters: deque[asyncio.Future[Connection]] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        self._size = 0
        self._connecting = 0
        self._generation = 0
        self._failures = 0
        self._next_attempt_at = 0.0
        self._retry: asyncio.TimerHandle | None = None
        self._tidy: asyncio.TimerHandle | None = self._loop.call_later(_TIDY_SECONDS, self._tidy_up)
        self._last_error: DependencyUnavailable | None = None
        self._is_closed = False
        self._all_back = asyncio.Event()
        self._opened = self._failed_connects = self._exhausted = self._interrupted = self._expired = 0
        self._last_success_at = _NEVER

    def acquire(self) -> Lease:
        """Return a lease: ``async with pool.acquire() as connection``; errors of the server leave it translated.

        Raises (on entering):
            PoolExhausted: no connection came free in time.
            DependencyUnavailable: no server answers, or the pool is closed.
        """
        return Lease(self)

    def statistics(self) -> PoolStatistics:
        """Return the pool's state; safe from any thread."""
        return PoolStatistics(
            size=self._size,
            idle=len(self._idle),
            waiting=len(self._waiters),
            connecting=self._connecting,
            opened=self._opened,
            failed_connects=self._failed_connects,
            exhausted=self._exhausted,
            interrupted=self._interrupted,
            expired=self._expired,
        )

    def take_nowait(self) -> Connection | None:
        """Return an idle connection, or None when there is none or others wait for one."""
        now = self._loop.time()
        while self._idle:
            connection = self._idle.pop()
            if not connection.is_closed() and connection.expires_at > now:
                return connection
            self._discard(connection)
        return None

    async def take(self) -> Connection:
        """Wait in line for a connection, bounded; a cancel leaves the line, or hands on what had just come."""
        self._refuse_if_hopeless()
        waiter: asyncio.Future[Connection] = self._loop.create_future()
        self._waiters.append(waiter)
        self._grow()
        timer = self._loop.call_later(self._settings.acquire_timeout_seconds, self._give_up, waiter)
        try:
            return await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled() and waiter.exception() is None:
                self.give_back(waiter.result())
            raise
        finally:
            timer.cancel()
            with suppress(ValueError):
                self._waiters.remove(waiter)

    def give_back(self, connection: Connection) -> None:
        """Take a connection back after a clean use; never waits."""
        now = self._loop.time()
        if connection.is_closed() or connection.generation != self._generation or connection.expires_at <= now:
            self._discard(connection)
        elif connection.is_interrupted or connection.is_in_transaction():
            self._interrupted += 1
            self._start(self._mend(connection))
        else:
            self._last_success_at = now
            self._lend(connection, now)

    def give_back_after(self, connection: Connection, error: BaseException) -> None:
        """Take a connection back after an error, and raise the pool's word for it if the server caused it.

        An error that is the caller's loses its `detail`, in which the server repeats the row: logs and reports have the
        rest of it.
        """
        verdict = _judge_on(connection, error)
        if verdict is Verdict.OTHER and isinstance(error, asyncpg.PostgresError):
            error.detail = None
        if isinstance(error, asyncpg.InternalClientError):
            connection.terminate()  # it is over, though the driver may not have seen its end yet
        if verdict is Verdict.EXPIRE:
            self.expire()
        self.give_back(connection)
        if verdict is not Verdict.OTHER:
            self._last_success_at = _NEVER
            raise as_unavailable(error) from error

    def expire(self) -> None:
        """Close every connection that is open now, the lent ones when they come back."""
        self._generation += 1
        self._expired += 1
        idle, self._idle = self._idle, []
        for connection in idle:
            self._discard(connection)

    async def aclose(self, timeout_seconds: float) -> None:
        """Refuse new borrowers, wait for the lent connections, close all; what is left then is cut. Idempotent."""
        self._is_closed = True
        for timer in (self._retry, self._tidy):
            if timer is not None:
                timer.cancel()
        self._reject_waiters(DependencyUnavailable(DEPENDENCY, "the pool is closed"))
        for connection in self._idle:
            self._discard(connection)
        self._idle.clear()
        try:
            async with asyncio.timeout(timeout_seconds):
                while self._size > 0:
                    self._all_back.clear()
                    await self._all_back.wait()
                while self._tasks:
                    await asyncio.wait(self._tasks)
        except TimeoutError:
            log.warning("Connections were cut off at the end", dependency=DEPENDENCY, connections=self._size)
        finally:
            for connection in self._open_ones:
                connection.terminate()  # whoever still has it gets an error at once
            for task in self._tasks:
                task.cancel()
            if self._tasks:
                await asyncio.wait(self._tasks)

    def _refuse_if_hopeless(self) -> None:
        if self._is_closed:
            raise DependencyUnavailable(DEPENDENCY, "the pool is closed")
        if len(self._waiters) >= self._settings.waiting_max:
            self._exhausted += 1
            raise PoolExhausted(DEPENDENCY, f"{len(self._waiters)} others already wait for a connection")
        is_backing_off = self._loop.time() < self._next_attempt_at
        if self._size + self._connecting == 0 and is_backing_off and self._last_error is not None:
            raise DependencyUnavailable(DEPENDENCY, self._last_error.detail)

    def _give_up(self, waiter: asyncio.Future[Connection]) -> None:
        if waiter.done():
            return
        seconds = self._settings.acquire_timeout_seconds
        if self._size == 0:
            last = f"; last error: {self._last_error.detail}" if self._last_error is not None else ""
            waiter.set_exception(DependencyUnavailable(DEPENDENCY, f"no connection opened within {seconds:g} s{last}"))
        else:
            self._exhausted += 1
            detail = f"none of {self._size} connections came free within {seconds:g} s"
            waiter.set_exception(PoolExhausted(DEPENDENCY, detail))

    def _lend(self, connection: Connection, now: float) -> None:
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(connection)
                return
        if self._is_closed:
            self._discard(connection)
        else:
            connection.idle_since = now
            self._idle.append(connection)

    def _grow(self) -> None:
        """Open as many connections as borrowers wait for, within the bounds and not before the backoff is over."""
        now = self._loop.time()
        wanted = max(len(self._waiters), self._settings.pool_min - self._size)
        while self._connecting < wanted and self._size + self._connecting < self._settings.pool_max:
            if self._is_closed:
                break
            if now < self._next_attempt_at:
                # However it came to this (uvloop's timers fire up to a millisecond early), there is a next time.
                self._retry = self._retry or self._loop.call_at(self._next_attempt_at, self._grow_again)
                break
            self._connecting += 1
            self._start(self._open())

    def _grow_again(self) -> None:
        self._retry = None
        self._grow()

    async def _open(self) -> None:
        try:
            connection = await self._connect()
        except Exception as error:  # noqa: BLE001 - whatever it is, the borrowers are told and the next try is later
            self._connecting -= 1
            self._note_failure(error)
            return
        except BaseException:
            self._connecting -= 1
            raise
        self._connecting -= 1
        self._open_ones.add(connection)
        self._size += 1
        self._opened += 1
        self._failures = 0
        now = self._loop.time()
        connection.generation = self._generation
        connection.expires_at = now + self._settings.lifetime_seconds * self._random.uniform(0.8, 1.0)
        self._lend(connection, now)

    def _note_failure(self, error: Exception) -> None:
        self._failed_connects += 1
        self._failures += 1
        self._last_success_at = _NEVER
        most = min(_BACKOFF_MOST_SECONDS, _BACKOFF_SECONDS * 2 ** min(self._failures, 10))
        delay = most * self._random.uniform(0.5, 1.0)
        self._next_attempt_at = self._loop.time() + delay
        self._last_error = as_unavailable(error)
        log.warning("No connection could be opened", dependency=DEPENDENCY, error=self._last_error.detail)
        if self._size == 0 and self._connecting == 0:
            self._reject_waiters(self._last_error)
        else:
            self._grow()

    def _reject_waiters(self, error: DependencyUnavailable) -> None:
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_exception(DependencyUnavailable(DEPENDENCY, error.detail))

    async def _mend(self, connection: Connection) -> None:
        """Wait for the interrupted command's end and roll back, bounded; a connection that will not is cut."""
        try:
            async with asyncio.timeout(self._settings.repair_timeout_seconds):
                await connection.execute("rollback")
        except Exception as error:  # noqa: BLE001 - whatever it is, this connection is not fit to be lent
            log.debug("An interrupted connection was cut", dependency=DEPENDENCY, error=str(error))
            connection.terminate()
        except BaseException:
            connection.terminate()
            self._discard(connection)
            raise
        connection.is_interrupted = False
        self.give_back(connection)

    def _discard(self, connection: Connection) -> None:
        """Close a connection that is not to be lent again, and make room for another."""
        if connection.is_closed():
            self._forget(connection)
        else:
            self._start(self._close(connection))

    async def _close(self, connection: Connection) -> None:
        try:
            async with asyncio.timeout(self._settings.repair_timeout_seconds):
                await connection.close()
        except Exception as error:  # noqa: BLE001 - closing is best effort; terminate below always works
            log.debug("A connection would not close", dependency=DEPENDENCY, error=str(error))
        finally:
            connection.terminate()
            self._forget(connection)

    def _forget(self, connection: Connection) -> None:
        self._open_ones.discard(connection)
        self._size -= 1
        if self._size == 0:
            self._all_back.set()
        if self._waiters:
            self._grow()

    def _tidy_up(self) -> None:
        """Close what has lain idle for too long, and open what the minimum asks for."""
        self._tidy = self._loop.call_later(_TIDY_SECONDS, self._tidy_up)
        now = self._loop.time()
        dead = [connection for connection in self._idle if connection.is_closed()]
        spare = max(0, self._size - len(dead) - self._settings.pool_min)
        stale_since = now - self._settings.idle_seconds
        stale = [c for c in self._idle if c.idle_since < stale_since and not c.is_closed()][:spare]
        for connection in dead + stale:
            self._idle.remove(connection)
            self._discard(connection)
        self._grow()

    def _start(self, work: Coroutine[object, object, None]) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _judge_on(connection: Connection, error: BaseException) -> Verdict:
    """Judge an error by its connection's state too: a borrower's own time limit or socket is no word on the server."""
    if isinstance(error, OSError | asyncpg.InterfaceError) and not isinstance(error, TimeoutError):
        return Verdict.EXPIRE if connection.is_closed() else Verdict.OTHER
    if isinstance(error, TimeoutError) and not _is_drivers(connection, error):
        return Verdict.OTHER
    return judge(error)


def _is_drivers(connection: Connection, error: TimeoutError) -> bool:
    """Tell the driver's time limit from a borrower's own.

    The driver's interrupts a command, or, found over between two messages (after a freeze, say), is raised plain.
    asyncio raises a borrower's from a cancel, and a socket's has a number.
    """
    return type(error) is TimeoutError and (connection.is_interrupted or not (error.args or error.__cause__))
