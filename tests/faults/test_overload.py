"""More requests than one process can do: the excess is refused at once, the rest done, and then all is well (H13)."""

import asyncio
import secrets
import time
from itertools import count
from pathlib import Path
from random import Random

import httpx
import pytest

from sandbox.instance import COUPON_FLOW, ProcessInstance, Service
from sandbox.seed import make_seed, plant
from sandbox.system import open_system
from tests.support.eventually import eventually
from tests.support.fault_report import FaultReport
from tests.support.footprint import Footprint, footprint_of
from tests.support.judgement import judge_end, judge_time
from tests.support.ledger import Ledger
from tests.support.open_load import open_load
from tests.support.order_book import OrderBook
from tests.support.service_process import service_of

MEMBERS = 100
CLIENTS = 30
PROBE_SECONDS = 2.0
PHASE_SECONDS = 4.0
BACK_SECONDS = 50.0
POOL = 10
# A redemption is done, refused because there is no room, or has run out of time; nothing else may be answered.
EXPECTED = {"201", "503", "504"}


class _Store:
    """One reward_store under load: members redeem in turn, each order under a key of its own."""

    def __init__(self, orders: OrderBook, tokens: list[str]) -> None:
        self._orders = orders
        self._tokens = tokens
        self._numbers = count()

    async def redeem(self) -> httpx.Response:
        """Send one more order."""
        number = next(self._numbers)
        member = number % MEMBERS
        return await self._orders.redeem(f"order-{number:06}", member_id=f"m-{member + 1}", token=self._tokens[member])

    async def capacity(self) -> float:
        """Return how many redemptions a second it does for clients that wait for their answers."""
        ends_at = time.monotonic() + PROBE_SECONDS

        async def live() -> int:
            done = 0
            while time.monotonic() < ends_at:
                done += (await self.redeem()).is_success
            return done

        return sum(await asyncio.gather(*(live() for _ in range(CLIENTS)))) / PROBE_SECONDS


async def _idle_footprint(instance: ProcessInstance) -> Footprint:
    """Wait until all clients have gone and look at what the process holds."""

    async def is_idle() -> bool:
        metrics = await service_of(instance).metrics()
        return metrics["lp_http_connections"] == metrics["lp_http_requests_in_flight"] == 0

    await eventually(is_idle, seconds=BACK_SECONDS, pause_seconds=0.1)
    return footprint_of(instance.process.pid)


@pytest.mark.thorough
@pytest.mark.fault("H13", "redemptions in an open loop: as many as one process can do, three times as many, as before")
async def test_overload_is_refused_and_forgotten(tmp_path: Path, fault_report: FaultReport) -> None:
    """Each answer is 201, 503 with Retry-After or 504; what was promised is stored once; afterwards nothing is left."""
    seed = secrets.randbits(32)
    print(f"load seed {seed}")  # noqa: T201 - shown when the test fails
    random = Random(seed)
    async with open_system(tmp_path, services=COUPON_FLOW) as system:
        await plant(make_seed(MEMBERS, 100_000), system.rewards_url)
        instance = await system.start(Service.REWARD_STORE)
        with Ledger(tmp_path) as ledger:
            orders = OrderBook(system, ledger)
            store = _Store(orders, [system.token(f"m-{member + 1}") for member in range(MEMBERS)])
            rate = await store.capacity()
            await system.client.aclose()
            idle = await _idle_footprint(instance)
            for name, times in (("1x", 1), ("3x", 3), ("1x again", 1)):
                report = await open_load(store.redeem, rate=times * rate, seconds=PHASE_SECONDS, random=random)
                assert report.accepted > 0
                assert report.answers.keys() <= EXPECTED, report.answers
                assert report.lacking == 0
                began = time.monotonic()
                await orders.redeem_told(f"after-{name.replace(' ', '-')}", seconds=BACK_SECONDS)
                seconds = time.monotonic() - began
                fault_report.judge(judge_time(f"the first success after {name}", seconds, at_most=BACK_SECONDS))
                fault_report.measure(**{name: f"{report.shown()}; then a success within {seconds:.2f} s"})
            await system.client.aclose()
            left = (await _idle_footprint(instance)).judge(idle, more=POOL + 4)
            fault_report.judge(await orders.judge_redemptions(), left)
        assert await instance.is_ready()
        await system.stop_services()
        (stopped,) = system.ended
        fault_report.judge(judge_end(stopped.name, stopped.status, "", wanted=(0, "")))
