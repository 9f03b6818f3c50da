"""Hold a file against other processes, alone or together with others who share it, and claim parts of it.

All of it is advisory locks in one transaction on a connection of its own, so whoever dies lets go at once. They spare
processes the work, not the table the rows: what keeps a byte from being loaded twice is the ledger alone.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Final

import asyncpg

from etl.errors import FileBusyError
from patterns import Mutex, Ticker
from runtime.errors import DependencyUnavailable
from runtime.logs import get_logger
from runtime.postgres import Connection, PostgresPool
from runtime.postgres_error import Verdict, judge

_log = get_logger("etl")

_COMMAND_SECONDS: Final = 5.0
_RENEWALS: Final = 3
_LOST: Final = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError)

_ALONE: Final = "select pg_try_advisory_xact_lock($1)"
_TOGETHER: Final = "select pg_try_advisory_xact_lock_shared($1)"
_CLAIM: Final = "select part from unnest($2::int[]) as part where pg_try_advisory_xact_lock($1, part) limit 1"

# No timeout of the server ends a COPY that waits for its client: a process that is frozen in one would keep whoever
# needs what it has locked for as long.
_END_STUCK: Final = """
select pg_terminate_backend(stuck.pid) from pg_stat_activity as stuck
where stuck.usename = current_user and stuck.datname = current_database()
    and stuck.state = 'active' and stuck.wait_event = 'ClientRead'
    and now() - stuck.query_start > make_interval(secs => $1)
    and exists (
        select from pg_stat_activity as waiting
        where waiting.wait_event_type = 'Lock' and stuck.pid = any (pg_blocking_pids(waiting.pid))
    )
"""


@asynccontextmanager
async def hold_alone(pool: PostgresPool, content_sha256: bytes) -> AsyncIterator[None]:
    """Keep all other processes from loading the same content for the length of a block.

    If its connection breaks, the lock is gone, and nobody hears of it before the end.

    Raises:
        FileBusyError: Another one has it, or several share it.
    """
    connection = await _take(pool, _ALONE, content_sha256, idle_seconds=0)
    try:
        yield
    finally:
        await _release(pool, connection)


@asynccontextmanager
async def hold_together(
    pool: PostgresPool, content_sha256: bytes, *, lease_seconds: float, stuck_seconds: float
) -> AsyncIterator["PartClaims"]:
    """Keep those who want it alone from loading the same content for the length of a block, and claim parts of it.

    A process that lives and does not go on loses the lock and its parts after the lease, and what a COPY of it keeps
    locked when that is overdue: the others see to it.

    Args:
        pool: One of its connections is taken, and now and then a second one.
        content_sha256: Of the file.
        lease_seconds: For how long the server waits to hear of this process.
        stuck_seconds: For how long a statement for which others wait may wait for data of its process.

    Raises:
        FileBusyError: Another one has it alone.
    """
    connection = await _take(pool, _TOGETHER, content_sha256, idle_seconds=lease_seconds)
    try:
        claims = PartClaims(connection, content_sha256, lease_seconds)
        keeper = asyncio.create_task(_keep(pool, claims, lease_seconds, stuck_seconds), name="lease keeper")
        try:
            yield claims
        finally:
            keeper.cancel()
            await asyncio.wait({keeper})
    finally:
        await _release(pool, connection)


class PartClaims:
    """The parts of a file that one process has claimed, until `hold_together` is left.

    Attributes:
        is_lost: the connection broke, or the lease ran out: others may claim the same parts.
    """

    def __init__(self, connection: Connection, content_sha256: bytes, lease_seconds: float) -> None:
        self._connection = connection
        self._key = int.from_bytes(content_sha256[:4], signed=True)
        self._renew = _stay(lease_seconds)
        self._turn = Mutex()
        self.is_lost = False

    async def claim(self, parts: Sequence[int]) -> int | None:
        """Claim the first of some parts that no other process has; None if there is none, or the claims are lost."""
        async with self._turn:
            try:
                part: int | None = await self._connection.fetchval(_CLAIM, self._key, parts, timeout=_COMMAND_SECONDS)
                await self._connection.execute(self._renew, timeout=_COMMAND_SECONDS)
            except _LOST as error:
                self._lose(error)
                return None
        return part

    async def renew(self) -> None:
        """Begin the lease anew."""
        async with self._turn:
            try:
                await self._connection.execute(self._renew, timeout=_COMMAND_SECONDS)
            except _LOST as error:
                self._lose(error)

    def _lose(self, error: Exception) -> None:
        if isinstance(error, asyncpg.PostgresError) and judge(error) is Verdict.OTHER:
            raise error  # a mistake of ours
        if not self.is_lost:
            _log.warning("Claims were lost: others may load the same parts", error=repr(error))
        self.is_lost = True


async def _keep(pool: PostgresPool, claims: PartClaims, lease_seconds: float, stuck_seconds: float) -> None:
    """Renew the claims and end stuck statements until cancelled; no error ends it, for nobody would hear of that."""
    with Ticker(lease_seconds / _RENEWALS) as ticker:
        async for _ in ticker.channel:
            try:
                await claims.renew()
                stuck = await pool.fetch(_END_STUCK, stuck_seconds)
            except DependencyUnavailable as error:
                _log.debug("Nobody can be asked for stuck statements", error=error.detail)
            except Exception as error:  # noqa: BLE001 - whatever it is, the lease has to be renewed the next time
                _log.error("The keeper of a lease failed, and goes on", exc_info=error)
            else:
                if stuck:
                    _log.warning("Ended statements whose process did not go on", statements=len(stuck))


async def _take(pool: PostgresPool, lock: str, content_sha256: bytes, *, idle_seconds: float) -> Connection:
    connection = pool.take_nowait() or await pool.take()
    try:
        await connection.execute("begin")
        is_held = await connection.fetchval(lock, int.from_bytes(content_sha256[:8], signed=True))
        await connection.execute(_stay(idle_seconds))
    except BaseException as error:
        pool.give_back_after(connection, error)
        raise
    if not is_held:
        await _release(pool, connection)
        raise FileBusyError
    return connection


def _stay(idle_seconds: float) -> str:
    """Return what lets a transaction be idle for so long, 0 for ever.

    As its last statement it also ends the snapshot of the one before, which would keep the server from cleaning up.
    """
    return f"set local idle_in_transaction_session_timeout = {round(idle_seconds * 1_000)}"


async def _release(pool: PostgresPool, connection: Connection) -> None:
    try:
        if not connection.is_interrupted:  # else the pool rolls back
            await connection.execute("rollback", timeout=_COMMAND_SECONDS)
    except _LOST as error:
        _log.warning("The lock of a file was lost", error=repr(error))
    finally:
        pool.give_back(connection)
