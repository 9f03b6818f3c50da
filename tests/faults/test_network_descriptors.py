"""A service that may open nothing more, or whose calls for a socket fail: connections wait, and none is lost."""

import asyncio
from pathlib import Path
from typing import Final

import httpx
import pytest

from sandbox.servers import KafkaServer, PostgresServer
from tests.support.fault_report import FaultReport
from tests.support.redeemers import outcome
from tests.support.shop import Shop, open_shop
from tests.support.system_call import no_more_descriptors, open_injection
from tests.support.trade import Trade, open_trade

UNAVAILABLE: Final = "503 dependency-unavailable"
NEWCOMERS: Final = 10
HURT_SECONDS: Final = 2.0

END_BACKENDS: Final = """
select pg_terminate_backend(pid) from pg_stat_activity where usename = 'reward_store' and datname = $1
"""


async def read_as_newcomer(trade: Trade) -> str:
    """Read something on a connection of its own; return how it was answered."""
    async with trade.service.client("m-1", connections=1) as client:
        try:
            return outcome(await client.get("/v1/rewards"))
        except httpx.TransportError as error:
            return type(error).__name__


async def lose_connections(shop: Shop) -> None:
    """End every connection that the service has to its database."""
    await shop.fetch(END_BACKENDS, shop.place.database)


@pytest.mark.fault(
    "X2", f"reward_store without a free descriptor for {HURT_SECONDS:g} s, its database connections ended"
)
async def test_service_without_descriptors_serves_whom_it_has_and_then_all(
    postgres: PostgresServer, kafka: KafkaServer, tmp_path: Path, fault_report: FaultReport
) -> None:
    """Newcomers wait in the kernel and are answered in the end; those who are connected are told to come again."""
    async with open_shop(postgres, kafka, tmp_path) as shop, open_trade(shop) as trade:
        with no_more_descriptors(trade.service.process.pid):
            await lose_connections(shop)
            newcomers = [asyncio.create_task(read_as_newcomer(trade)) for _ in range(NEWCOMERS)]
            await asyncio.sleep(HURT_SECONDS)
        back_seconds = await trade.wait_back()
        answers = set(await asyncio.gather(*newcomers))
        assert answers <= {"200", UNAVAILABLE}
        await trade.report(fault_report, back_seconds)


@pytest.mark.thorough
@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(
            "socket:error=EMFILE", marks=pytest.mark.fault("X2", "each new socket of reward_store: EMFILE, for 2 s")
        ),
        pytest.param(
            "connect:error=ETIMEDOUT", marks=pytest.mark.fault("X2", "each connect of reward_store: ETIMEDOUT, for 2 s")
        ),
        pytest.param(
            "accept,accept4:error=EMFILE",
            marks=pytest.mark.fault("X2", "each accept of reward_store: EMFILE, for 2 s"),
        ),
        pytest.param(
            "accept,accept4:error=ECONNABORTED:when=1+2",
            marks=pytest.mark.fault("X2", "every other accept of reward_store: ECONNABORTED, for 2 s"),
        ),
    ],
)
async def test_socket_calls_that_fail_cost_time_and_nothing_else(
    postgres: PostgresServer, kafka: KafkaServer, tmp_path: Path, fault_report: FaultReport, fault: str
) -> None:
    """The service lives through it, and who had to wait for a connection is answered in the end."""
    async with open_shop(postgres, kafka, tmp_path) as shop, open_trade(shop) as trade:
        async with open_injection([trade.service.process.pid], fault):
            await lose_connections(shop)
            newcomers = [asyncio.create_task(read_as_newcomer(trade)) for _ in range(NEWCOMERS)]
            await asyncio.sleep(HURT_SECONDS)
        back_seconds = await trade.wait_back()
        answers = set(await asyncio.gather(*newcomers))
        assert answers <= {"200", UNAVAILABLE}
        await trade.report(fault_report, back_seconds)
