"""The database and the broker going away under traffic: requests may fail meanwhile, nothing that was promised does."""

import asyncio
import time
from http import HTTPStatus
from pathlib import Path
from typing import Final

import pytest

from sandbox.instance import COUPON_FLOW, Service
from sandbox.probe import probe
from sandbox.system import System
from tests.support.eventually import eventually
from tests.support.fault_report import FaultReport
from tests.support.flow import Flow, open_flow
from tests.support.footprint import Footprint, footprint_of, judge_settled
from tests.support.judgement import Judgement, judge_time

AWAY_SECONDS: Final = 5.0
BACK_SECONDS: Final = 60.0
GROWN: Final = 12
"""How many connections more an instance may hold than at first: its pool has grown to its size."""


async def _is_live(flow: Flow[System], service: Service) -> bool:
    status, _ = await probe(f"{flow.instance(service).admin_url}/livez")
    return status == HTTPStatus.OK


async def _answer(flow: Flow[System], service: Service, path: str) -> tuple[int, str | None]:
    """Ask a service something on behalf of m-1; return the status and when it says to come again."""
    answer = await flow.system.client.request(
        "GET",
        f"{flow.system.base_url(service)}{path}",
        headers={"authorization": f"Bearer {flow.system.token('m-1')}"},
        content=None,
        timeout=30,
    )
    return answer.status_code, answer.headers.get("retry-after")


async def _first_success(flow: Flow[System]) -> float:
    """Wait until one more member was told of a redemption; return how many seconds it took."""
    began, before = time.monotonic(), flow.traffic.statistics().redemptions
    await eventually(lambda: flow.traffic.statistics().redemptions > before, seconds=2 * BACK_SECONDS)
    return time.monotonic() - began


def _footprints(flow: Flow[System]) -> dict[int, Footprint]:
    return {instance.process.pid: footprint_of(instance.process.pid) for instance in flow.system.instances}


async def _judge_footprints(before: dict[int, Footprint]) -> Judgement:
    judgement = Judgement()
    for pid, idle in before.items():
        judgement |= await judge_settled(pid, idle, more=GROWN)
    return judgement


@pytest.mark.parametrize(
    "how",
    [
        pytest.param(
            "stop_fast", marks=pytest.mark.fault("H9", "Postgres stopped fast for 5 s under 20 requests a second")
        ),
        pytest.param(
            "stop_immediately",
            marks=pytest.mark.fault("H9", "Postgres stopped immediately for 5 s under 20 requests a second"),
        ),
    ],
)
async def test_postgres_stopped_and_started_again_costs_requests_but_no_promise(
    tmp_path: Path, fault_report: FaultReport, how: str
) -> None:
    """Every service lives through it without a restart: 503 and not ready while it is away, live all the time."""
    async with open_flow(tmp_path, rate=20, services=COUPON_FLOW) as flow:
        await flow.wait_requests(60)
        before = _footprints(flow)
        await getattr(flow.system.postgres, how)()
        await asyncio.sleep(AWAY_SECONDS)
        for service in COUPON_FLOW:
            assert await _is_live(flow, service), f"{service} is not live without its database"
            assert not await flow.instance(service).is_ready(), f"{service} is ready without it"
        assert await _answer(flow, Service.REWARD_STORE, "/v1/rewards") == (503, "1")
        assert await _answer(flow, Service.COUPON_API, "/v1/members/m-1/coupons") == (503, "1")
        await flow.system.postgres.start()
        back_seconds = await _first_success(flow)
        await flow.wait_all_ready()
        await flow.wait_requests(100)
        await flow.stop_traffic()
        await flow.drain()
        assert [instance.process.pid for instance in flow.system.instances] == list(before)
        await flow.system.client.aclose()  # after a stall the members keep many connections, which are no leak
        held = await _judge_footprints(before)
        verdict, judgement = await flow.judgement(failures_allowed=True)
    fault_report.judge(judgement, held, judge_time("the first success", back_seconds, at_most=BACK_SECONDS))
    fault_report.measure(first_success=f"{back_seconds:.1f} s", failed_requests=str(verdict.failed_requests))
    assert verdict.failed_requests > 0


@pytest.mark.fault("K7", "broker frozen for 200 requests under 20 a second")
async def test_frozen_broker_costs_no_request_and_its_events_arrive_later(
    tmp_path: Path, fault_report: FaultReport
) -> None:
    """While the broker is frozen members redeem as always; what waited in the outbox becomes coupons after it."""
    async with open_flow(tmp_path, rate=20, services=COUPON_FLOW) as flow:
        await flow.wait_requests(60)
        flow.system.kafka.freeze()
        try:
            await flow.wait_requests(200)
            assert await flow.instance(Service.REWARD_STORE).is_ready()
        finally:
            flow.system.kafka.thaw()
        await flow.wait_requests(60)
        _, judgement = await flow.judgement()
    fault_report.judge(judgement)
