"""Dependencies that are missing at the start and appear later, in every order there is (X7)."""

import functools
import itertools
import time
from pathlib import Path

import pytest

from sandbox.instance import COUPON_FLOW, Service
from sandbox.seed import make_seed, plant
from sandbox.system import PARTITIONS, System, open_system
from tests.support.eventually import eventually
from tests.support.fault_report import FaultReport
from tests.support.judgement import Rule, judge, judge_end, judge_time
from tests.support.ledger import Ledger
from tests.support.order_book import OrderBook
from tests.support.service_process import ServiceProcess, service_of

POSTGRES, BROKER, STORE, READERS = "Postgres", "broker", "reward_store", "coupon_api and coupon_consumer"
PARTS = (POSTGRES, BROKER, STORE, READERS)
NEEDS = {
    Service.REWARD_STORE: {POSTGRES},
    Service.COUPON_API: {POSTGRES},
    Service.COUPON_CONSUMER: {POSTGRES, BROKER},
}
READY_SECONDS = 60.0


async def _stop_everything(system: System) -> None:
    await system.stop_services()
    await system.postgres.stop_fast()
    await system.kafka.stop()


async def _start(system: System, part: str) -> None:
    """Start one part; a service is left alone as soon as its admin port answers."""
    if part == POSTGRES:
        await system.postgres.start()
    elif part == BROKER:
        await system.kafka.start()
        await system.kafka.create_topic(system.topic, partitions=PARTITIONS)  # the embedded one has forgotten it
    else:
        services = [Service.REWARD_STORE] if part == STORE else [Service.COUPON_API, Service.COUPON_CONSUMER]
        for service in services:
            launched = service_of(await system.launch(service))
            await eventually(functools.partial(_answers, launched), seconds=READY_SECONDS, pause_seconds=0.02)


async def _answers(service: ServiceProcess) -> bool:
    return await service.readiness() is not None


async def _too_early(system: System, started: set[str]) -> list[str]:
    """Name each instance that has ended, or that says it is ready while something that it needs is not there."""
    ended = [f"{one.name} has ended" for one in system.instances if not one.process.is_running]
    return ended + [
        f"{one.name} is ready without {missing}"
        for one in system.instances
        if (missing := NEEDS[one.service] - started) and await one.is_ready()
    ]


@pytest.mark.thorough
@pytest.mark.timeout(1_200)
@pytest.mark.fault(
    "X7", "Postgres, broker, reward_store, and coupon_api with coupon_consumer, started in all 24 orders"
)
async def test_services_wait_for_what_is_missing_at_their_start(tmp_path: Path, fault_report: FaultReport) -> None:
    """Each waits, live and not ready, for what it needs, and then works; a redemption becomes a coupon in the end."""
    slowest = 0.0
    async with open_system(tmp_path, services=COUPON_FLOW) as system:
        await plant(make_seed(1, 100_000), system.rewards_url)
        with Ledger(tmp_path) as ledger:
            orders = OrderBook(system, ledger)
            for number, order in enumerate(itertools.permutations(PARTS), 1):
                await _stop_everything(system)
                started: set[str] = set()
                for part in order:
                    await _start(system, part)
                    started.add(part)
                    fault_report.judge(judge(Rule.RIGHT_END, await _too_early(system, started)))
                began = time.monotonic()
                await orders.redeem_told(f"order-{number:04}", seconds=READY_SECONDS)
                await orders.wait_coupons(number, seconds=READY_SECONDS)
                seconds = time.monotonic() - began
                slowest = max(slowest, seconds)
                fault_report.judge(
                    judge_time(f"{' before '.join(order)}: first coupon", seconds, at_most=READY_SECONDS)
                )
            await system.stop_services()
            fault_report.judge(await orders.judge_coupons())
        fault_report.judge(*(judge_end(one.name, one.status, "", wanted=(0, "")) for one in system.ended))
    fault_report.measure(slowest_first_coupon=f"{slowest:.1f} s")
