"""reward_store as a process under members' orders: a test hurts what it depends on and then asks for the verdict."""

import contextlib
import signal
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from sandbox.probe import probe
from tests.support.fault_report import FaultReport
from tests.support.footprint import Footprint, footprint_of, judge_settled
from tests.support.judgement import Judgement, judge_end, judge_time
from tests.support.redeemers import Redeemers, open_redeemers
from tests.support.reward_store_process import open_reward_store
from tests.support.service_process import HttpServiceProcess
from tests.support.shop import Shop

POOL_MAX: Final = 4
REQUEST_SECONDS: Final = 2.0
SETTINGS: Final[Mapping[str, str]] = {
    "HTTP__REQUEST_TIMEOUT_SECONDS": str(REQUEST_SECONDS),
    "POSTGRES__POOL_MAX": str(POOL_MAX),
    "POSTGRES__CONNECT_TIMEOUT_SECONDS": "2",
    "POSTGRES__ACQUIRE_TIMEOUT_SECONDS": "1",
    "POSTGRES__STATEMENT_TIMEOUT_SECONDS": "2",
    "POSTGRES__LOCK_TIMEOUT_SECONDS": "1",
    "POSTGRES__IDLE_IN_TRANSACTION_SECONDS": "3",
    "KAFKA__DELIVERY_TIMEOUT_SECONDS": "2",
    "RELAY__LEASE_SECONDS": "6",
    "RELAY__BACKOFF_MOST_SECONDS": "1",
}
"""Times short enough for a test to see each of them end."""
_BACK_SECONDS: Final = 60.0
_STOP_SECONDS: Final = 30.0
_LAST_EVENT: Final = "Process stopped"


@dataclass(slots=True)
class Trade:
    """See `open_trade`. `idle` is what the service held before the first order."""

    shop: Shop
    service: HttpServiceProcess
    redeemers: Redeemers
    idle: Footprint

    async def is_live(self) -> bool:
        """Ask whether the process says that it lives."""
        status, _ = await probe(f"{self.service.admin_url}/livez")
        return status == 200

    async def wait_back(self) -> float:
        """Wait until an order is acknowledged and the service is ready; return the seconds until the first order."""
        seconds = await self.redeemers.wait_told(seconds=_BACK_SECONDS)
        await self.service.wait_readiness(200, seconds=_BACK_SECONDS)
        return seconds

    async def settle(self) -> Judgement:
        """Wait for the last order, judge what is stored and held, stop the service, and judge its end (L1 to L8)."""
        await self.redeemers.finish()
        process = self.service.process
        stored = await self.shop.judge(self.redeemers.ledger, self.redeemers.told)
        held = await judge_settled(process.pid, self.idle, more=POOL_MAX) | await self.shop.judge_backends(
            at_most=POOL_MAX
        )
        began = time.monotonic()
        process.send_signal(signal.SIGTERM)
        status = await process.wait(2 * _STOP_SECONDS)
        end = judge_end("reward_store", status, self.service.events()[-1], wanted=(0, _LAST_EVENT))
        return stored | held | judge_time("stopping", time.monotonic() - began, at_most=_STOP_SECONDS) | end

    async def report(self, fault_report: FaultReport, back_seconds: float) -> None:
        """Settle, and fill in a row whose fault is over: every answer was one that a member may be given.

        Args:
            fault_report: the row.
            back_seconds: how long after the fault's end the first order was acknowledged.
        """
        redeemers = self.redeemers
        judgement = await self.settle()
        assert not redeemers.strange, redeemers.shown()
        fault_report.judge(judgement, judge_time("the first success", back_seconds, at_most=_BACK_SECONDS))
        fault_report.measure(
            first_success=f"{back_seconds:.1f} s",
            slowest_answer=f"{redeemers.slowest_seconds:.1f} s",
            answers=redeemers.shown(),
        )


@contextlib.asynccontextmanager
async def open_trade(
    shop: Shop,
    settings: Mapping[str, str] | None = None,
    *,
    rate: float = 10.0,
    log_directory: Path | None = None,
) -> AsyncIterator[Trade]:
    """Start reward_store in a shop and let members redeem; it goes on when the first orders are acknowledged.

    The service is stopped on leaving, in order or not.

    Args:
        shop: its database.
        settings: variables without their prefix, on top of `SETTINGS`.
        rate: orders a second.
        log_directory: where the service's log goes; beside the ledger if left out.
    """
    place = replace(shop.place, directory=log_directory or shop.place.directory)
    async with open_reward_store(place, **{**SETTINGS, **(settings or {})}) as service:
        await service.wait_readiness(200)
        idle = footprint_of(service.process.pid)
        async with open_redeemers(service, shop.place.directory, rate=rate) as redeemers:
            await redeemers.wait_told(10)
            yield Trade(shop, service, redeemers, idle)
