"""The network between reward_store and its database, hurt in every way and in both directions, under orders."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

import pytest

from sandbox.servers import KafkaServer, PostgresServer
from tests.support.fault_proxy import FaultProxy, Way, open_fault_proxy
from tests.support.fault_report import FaultReport
from tests.support.shop import open_shop
from tests.support.trade import Trade, open_trade

HURT_SECONDS: Final = 2.0
RESETS_AFTER: Final = (1, 4, 5, 60, 700, 3_000)
WAYS: Final = ("up", "down")

Hurt = Callable[[FaultProxy, Way, Trade], Awaitable[None]]


async def delay(_proxy: FaultProxy, way: Way, _trade: Trade) -> None:
    """Hold back each piece by 50 ms."""
    way.delay_seconds = 0.05
    await asyncio.sleep(HURT_SECONDS)
    way.delay_seconds = 0.0


async def jitter(_proxy: FaultProxy, way: Way, _trade: Trade) -> None:
    """Hold back each piece by up to 200 ms."""
    way.jitter_seconds = 0.2
    await asyncio.sleep(HURT_SECONDS)
    way.jitter_seconds = 0.0


async def crumble(_proxy: FaultProxy, way: Way, _trade: Trade) -> None:
    """Pass on one byte at a time."""
    way.slice_bytes = 1
    await asyncio.sleep(HURT_SECONDS)
    way.slice_bytes = None


async def cut(proxy: FaultProxy, _way: Way, trade: Trade) -> None:
    """Close all connections in order, five times."""
    for _ in range(5):
        proxy.cut()
        await trade.redeemers.wait_told(2)


async def reset(proxy: FaultProxy, _way: Way, trade: Trade) -> None:
    """Reset all connections, five times."""
    for _ in range(5):
        proxy.reset()
        await trade.redeemers.wait_told(2)


async def reset_in_a_message(_proxy: FaultProxy, way: Way, trade: Trade) -> None:
    """Reset the connection on which the n-th byte travels, for each n."""
    for count in RESETS_AFTER:
        way.reset_after(count)
        await trade.redeemers.wait_told(5)


async def swallow(_proxy: FaultProxy, way: Way, trade: Trade) -> None:
    """Be a black hole until requests have run into their deadlines."""
    way.swallow()
    await trade.redeemers.wait_answers("503 dependency-unavailable", "504 deadline-exceeded")
    await asyncio.sleep(HURT_SECONDS)
    way.restore()


async def swallow_and_forget(proxy: FaultProxy, way: Way, trade: Trade) -> None:
    """Be a black hole, and reset everything before anything goes on: what was held back never arrives."""
    way.swallow()
    await trade.redeemers.wait_answers("503 dependency-unavailable", "504 deadline-exceeded")
    await asyncio.sleep(HURT_SECONDS)
    proxy.reset()
    way.restore()


async def half_close(proxy: FaultProxy, way: Way, trade: Trade) -> None:
    """End one direction of all connections, three times."""
    for _ in range(3):
        proxy.half_close(way)
        await trade.redeemers.wait_told(2)


SHORT: Final = (reset_in_a_message, swallow_and_forget, half_close)
"""Those that find most, for every run of the tests; the others take their time."""


def rows() -> list[object]:
    """Return a parameter for each fault and direction, with its row of the table."""
    kinds: list[tuple[Hurt, str, tuple[str, ...]]] = [
        (delay, "each piece 50 ms late", WAYS),
        (jitter, "each piece up to 200 ms late", WAYS),
        (crumble, "one byte at a time", WAYS),
        (cut, "all connections closed, 5 times", ("both",)),
        (reset, "all connections reset, 5 times", ("both",)),
        (reset_in_a_message, f"reset with byte {', '.join(map(str, RESETS_AFTER))} of what comes", WAYS),
        (swallow, "black hole, then what it held back", WAYS),
        (swallow_and_forget, "black hole, then a reset", WAYS),
        (half_close, "half of each connection closed, 3 times", WAYS),
    ]
    arrow = {"up": "to the database: ", "down": "from the database: ", "both": "to and from the database: "}
    return [
        pytest.param(
            hurt,
            way,
            id=f"{hurt.__name__}-{way}",
            marks=[
                pytest.mark.fault("H12", f"network {arrow[way]}{injected}"),
                *([] if hurt in SHORT else [pytest.mark.thorough]),
            ],
        )
        for hurt, injected, ways in kinds
        for way in ways
    ]


@pytest.mark.parametrize(("hurt", "way"), rows())
async def test_database_behind_a_bad_network_loses_and_doubles_no_order(
    postgres: PostgresServer, kafka: KafkaServer, tmp_path: Path, fault_report: FaultReport, hurt: Hurt, way: str
) -> None:
    """Each order is there once, as its member was told; all answers were known ones, and nothing is left behind."""
    async with (
        open_shop(postgres, kafka, tmp_path) as shop,
        open_fault_proxy(postgres.port) as proxy,
        open_trade(shop, {"POSTGRES__PORT": str(proxy.port)}) as trade,
    ):
        await hurt(proxy, proxy.down if way == "down" else proxy.up, trade)
        back_seconds = await trade.wait_back()
        await trade.report(fault_report, back_seconds)
