"""Run queries and whole transactions on a bounded pool of Postgres connections."""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final, Literal, TypeVar, TypeVarTuple

from patterns.context import Context
from runtime.connection_pool import ConnectionPool, PoolStatistics
from runtime.dependency import wait_for_dependency
from runtime.errors import TransactionAbortedError, TransactionContended
from runtime.logs import get_logger
from runtime.metrics import StatisticsCollector, registry
from runtime.postgres_connection import Connection, Row, build_connect
from runtime.postgres_error import DEPENDENCY
from runtime.settings import PostgresSettings

__all__ = ["Connection", "Isolation", "PoolStatistics", "PostgresPool", "Row", "expose_pool", "open_pool"]

T = TypeVar("T")
Ts = TypeVarTuple("Ts")
Isolation = Literal["read_committed", "repeatable_read", "serializable"]

_BEGIN: Final[dict[Isolation, str]] = {
    "read_committed": "begin",
    "repeatable_read": "begin isolation level repeatable read",
    "serializable": "begin isolation level serializable",
}
_COUNTERS: Final = frozenset({"opened", "failed_connects", "exhausted", "interrupted", "expired"})
_RETRIES: Final = 3
_RETRY_SECONDS: Final = 0.02
_FRESH_SECONDS: Final = 2.0

log = get_logger(__name__)


class PostgresPool(ConnectionPool):
    """A pool with the four ways to use a connection: one statement, several, a transaction, a question of health.

    Every method raises ``DependencyUnavailable`` (or its kinds ``PoolExhausted``, ``TransactionContended``) for a state
    of the server, and asyncpg's own errors, without the row that they may quote, for anything else, such as a violated
    constraint. A single statement that lost to others, or whose plan a change of the schema made stale, is run again as
    ``transaction`` does.
    """

    async def fetch_row(self, sql: str, *args: object) -> Row | None:
        """Run one statement of its own transaction in one round trip; return its first row."""
        connection = self.take_nowait() or await self.take()
        try:
            row = await connection.fetchrow(sql, *args)
        except BaseException as error:
            try:
                self.give_back_after(connection, error)
            except TransactionContended:
                return await self.transaction(Connection.fetchrow, sql, *args, retries=_RETRIES - 1)
            raise
        self.give_back(connection)
        return row

    async def fetch(self, sql: str, *args: object) -> list[Row]:
        """Run one statement of its own transaction in one round trip; return its rows."""
        try:
            async with self.acquire() as connection:
                return await connection.fetch(sql, *args)
        except TransactionContended:
            return await self.transaction(Connection.fetch, sql, *args, retries=_RETRIES - 1)

    async def execute(self, sql: str, *args: object) -> str:
        """Run one statement of its own transaction; return the server's tag, such as ``UPDATE 3``."""
        try:
            async with self.acquire() as connection:
                return await connection.execute(sql, *args)
        except TransactionContended:
            return await self.transaction(Connection.execute, sql, *args, retries=_RETRIES - 1)

    async def transaction(
        self,
        fn: Callable[[Connection, *Ts], Awaitable[T]],
        *args: *Ts,
        isolation: Isolation = "read_committed",
        retries: int = _RETRIES,
    ) -> T:
        """Run ``fn(connection, *args)`` in a transaction: committed when it returns, rolled back when it raises.

        A serialization failure, a deadlock or a plan made stale by a change of the schema rolls back and runs all of
        ``fn`` again after a short random pause, at most ``retries`` times; so ``fn`` must have no effect outside. A
        cancel rolls back aside. When the connection breaks during the commit the outcome is unknown, and
        ``DependencyUnavailable`` says nothing about it: repeat only what has an idempotency key.

        Raises:
            TransactionContended: it lost to others ``retries`` + 1 times.
            TransactionAbortedError: ``fn`` swallowed an error of the database and returned as if all were well.
        """
        for attempt in range(retries + 1):
            try:
                async with self.acquire() as connection:
                    return await self._transact(connection, _BEGIN[isolation], fn, args)
            except TransactionContended:
                if attempt == retries:
                    raise
            await asyncio.sleep(self._random.uniform(0, _RETRY_SECONDS * 2**attempt))
        raise AssertionError("unreachable: the last attempt returns or raises")

    async def _transact(
        self, connection: Connection, begin: str, fn: Callable[[Connection, *Ts], Awaitable[T]], args: tuple[*Ts]
    ) -> T:
        await connection.execute(begin)
        try:
            result = await fn(connection, *args)
        except Exception:
            # Before the caller hears of it, so that its next request meets no lock of this one; bounded, because a
            # rollback on a frozen server does not end. A cancel does not wait: the pool rolls back aside.
            await self._roll_back(connection)
            raise
        if await connection.execute("commit") != "COMMIT":
            raise TransactionAbortedError("a statement had failed and its error was swallowed: nothing was committed")
        return result

    async def _roll_back(self, connection: Connection) -> None:
        if connection.is_closed() or connection.is_interrupted:
            return
        try:
            async with asyncio.timeout(self._settings.repair_timeout_seconds):
                await connection.execute("rollback")
        except Exception as error:  # noqa: BLE001 - the first error is the one to tell; the pool mends or cuts the rest
            log.debug("A rollback failed", dependency=DEPENDENCY, error=str(error))

    async def check(self) -> None:
        """Return when the server answers, for readiness; at once when it did in the last two seconds.

        Raises:
            DependencyUnavailable: it does not.
        """
        if self._loop.time() - self._last_success_at > _FRESH_SECONDS:
            await self.fetch_row("select 1")

    async def wait_for_connection(self, ctx: Context, timeout_seconds: float | None = None) -> None:
        """Return when the server answers, and open what the pool holds at least; see ``wait_for_dependency``."""

        async def ask() -> None:
            await self.fetch_row("select 1")

        await wait_for_dependency(ctx, ask, dependency=DEPENDENCY, timeout_seconds=timeout_seconds, rng=self._random)
        self._grow()


@asynccontextmanager
async def open_pool(
    settings: PostgresSettings, *, application_name: str = "loyalty-platform", rng: random.Random | None = None
) -> AsyncIterator[PostgresPool]:
    """Open a pool for the length of a block; nothing is connected until it is asked for."""
    pool = PostgresPool(settings, build_connect(settings, application_name=application_name), rng=rng)
    try:
        yield pool
    finally:
        await pool.aclose(settings.close_timeout_seconds)


def expose_pool(pool: ConnectionPool) -> None:
    """Show a pool's statistics among the process's metrics; for the one pool of a process."""
    registry.register(StatisticsCollector("postgres_pool", pool.statistics, counters=_COUNTERS))
