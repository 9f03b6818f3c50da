"""Move a stored offset in the very moment in which a member's transaction waits for it: nothing is left to timing.

An operator moves offsets with one statement. Here that statement's row lock is held until the database says that a
member's own statement waits for it; then the member goes on from an offset that is no longer the one it knows.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from random import Random
from typing import Final

import asyncpg

from tests.support.coupon_consumer_world import World
from tests.support.coupon_events import some_event
from tests.support.eventually import eventually

PARTITION: Final = 0

_STANDS: Final = "select next_offset from consumer_offsets where partition = $1"
_HOLD: Final = f"{_STANDS} for update"
_MOVE: Final = "update consumer_offsets set next_offset = $2 where partition = $1"
_WAITING: Final = """
select count(*) from pg_stat_activity
where datname = current_database() and wait_event_type = 'Lock' and query ilike '%update consumer_offsets%'
"""
_ENOUGH: Final = 100
_PIECE: Final = 1_000
_CONNECT_SECONDS: Final = 10.0


class OffsetMover:
    """An operator who moves the offset of partition 0, to which everything was produced; see `open_offset_mover`."""

    def __init__(self, world: World, random: Random, *connections: asyncpg.Connection) -> None:
        self._world = world
        self._random = random
        self._mover, self._other, self._watcher = connections

    async def rewind(self) -> int:
        """Move the offset back under a waiting transaction, because the coupons from there on were lost.

        Returns:
            How many coupons that were.
        """
        async with self._mover.transaction():
            stands, back = await self._hold()
            lost = [event.coupon.code for event in self._world.events[back:stands]]
            await self._mover.execute("delete from coupons where code = any ($1::text[])", lost)
            await self._mover.execute(_MOVE, PARTITION, back)
            await self._wait_waiting(1)
        return len(lost)

    async def rewind_and_undo(self) -> None:
        """Move the offset back under a waiting transaction, and then to where it was, before another can begin."""
        async with self._mover.transaction():
            stands, back = await self._hold()
            await self._mover.execute(_MOVE, PARTITION, back)
            await self._wait_waiting(1)
            # It waits behind the member's statement, so its turn comes between that one and the member's next.
            undoing = asyncio.create_task(self._other.execute(_MOVE, PARTITION, stands))
            await self._wait_waiting(2)
        await undoing

    async def _hold(self) -> tuple[int, int]:
        """Lock the offset, and see that the next transactions find records; return it, and one before it."""
        await eventually(self._has_begun, seconds=20)
        stands: int = await self._mover.fetchval(_HOLD, PARTITION)
        if self._world.records - stands < _ENOUGH:
            await self._world.produce([some_event() for _ in range(_PIECE)], partition=PARTITION)
        return stands, self._random.randrange(stands)

    async def _has_begun(self) -> bool:
        stands: int = await self._watcher.fetchval(_STANDS, PARTITION)
        return stands > 0

    async def _wait_waiting(self, count: int) -> None:
        async def are_waiting() -> bool:
            waiting: int = await self._watcher.fetchval(_WAITING)
            return waiting >= count

        await eventually(are_waiting, seconds=20, pause_seconds=0.001)


@asynccontextmanager
async def open_offset_mover(world: World, random: Random) -> AsyncIterator[OffsetMover]:
    """Open an operator's connections, who goes back by random ways; some records must be stored by then."""
    url = world.postgres.url(world.database)
    connections = [await asyncpg.connect(url, timeout=_CONNECT_SECONDS) for _ in range(3)]
    try:
        yield OffsetMover(world, random, *connections)
    finally:
        for connection in connections:
            await connection.close(timeout=_CONNECT_SECONDS)
