"""A channel against ``asyncio.Queue``: one producer task, one consumer task, the same items in the same process."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Callable, Coroutine
from typing import Final

from patterns import Channel
from tests.benchmarks.report import Row

ITEMS: Final = 200_000
ROUNDS: Final = 5
CAPACITIES: Final = (100, 1)


async def _through_channel(capacity: int, items: int) -> None:
    channel: Channel[int] = Channel(capacity)

    async def produce() -> None:
        for item in range(items):
            await channel.send(item)

    async def consume() -> None:
        for _ in range(items):
            await channel.receive()

    await asyncio.gather(produce(), consume())


async def _through_queue(capacity: int, items: int) -> None:
    queue: asyncio.Queue[int] = asyncio.Queue(capacity)

    async def produce() -> None:
        for item in range(items):
            await queue.put(item)

    async def consume() -> None:
        for _ in range(items):
            await queue.get()

    await asyncio.gather(produce(), consume())


def _rate(through: Callable[[int, int], Coroutine[None, None, None]], capacity: int, items: int) -> float:
    started = time.process_time()
    asyncio.run(through(capacity, items))
    return items / (time.process_time() - started)


def run(items: int = ITEMS, rounds: int = ROUNDS) -> list[Row]:
    """Measure in turn, and take the median of the ratios of neighbours; above 1 the channel is faster."""
    rows = []
    for capacity in CAPACITIES:
        pairs = [
            (_rate(_through_channel, capacity, items), _rate(_through_queue, capacity, items)) for _ in range(rounds)
        ]
        ratio = statistics.median(channel / queue for channel, queue in pairs)
        channel, queue = (statistics.median(rates) for rates in zip(*pairs, strict=True))
        detail = f"{channel:,.0f} against {queue:,.0f} items/s"
        rows.append(Row(f"channel of capacity {capacity}: rate against asyncio.Queue", ratio, ">= 1.0", detail))
    return rows
