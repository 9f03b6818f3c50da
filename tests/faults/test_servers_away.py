"""The database and the broker going away under traffic: requests may fail meanwhile, nothing that was promised does."""

import asyncio
from http import HTTPStatus
from pathlib import Path

import pytest

from sandbox.instance import Service
from sandbox.probe import probe
from sandbox.system import System
from tests.support.flow import Flow, open_flow

AWAY_SECONDS = 5.0


async def _is_live(flow: Flow[System], service: Service) -> bool:
    status, _ = await probe(f"{flow.instance(service).admin_url}/livez")
    return status == HTTPStatus.OK


@pytest.mark.parametrize("how", ["stop_fast", "stop_immediately"])
async def test_postgres_stopped_and_started_again_costs_requests_but_no_promise(tmp_path: Path, how: str) -> None:
    """Every service lives through it without a restart: not ready while it is away, live all the time, ready after."""
    async with open_flow(tmp_path, rate=20) as flow:
        await flow.wait_requests(60)
        processes = [instance.process.pid for instance in flow.system.instances]
        await getattr(flow.system.postgres, how)()
        await asyncio.sleep(AWAY_SECONDS)
        for service in Service:
            assert await _is_live(flow, service), f"{service} is not live without its database"
            assert not await flow.instance(service).is_ready(), f"{service} is ready without it"
        await flow.system.postgres.start()
        await flow.wait_all_ready()
        await flow.wait_requests(100)
        assert [instance.process.pid for instance in flow.system.instances] == processes
        verdict = await flow.verdict(failures_allowed=True)
    assert verdict.is_ok, "\n".join(verdict.lines())
    assert verdict.failed_requests > 0


async def test_frozen_broker_costs_no_request_and_its_events_arrive_later(tmp_path: Path) -> None:
    """While the broker is frozen members redeem as always; what waited in the outbox becomes coupons after it."""
    async with open_flow(tmp_path, rate=20) as flow:
        await flow.wait_requests(60)
        flow.system.kafka.freeze()
        try:
            await flow.wait_requests(200)
            assert await flow.instance(Service.REWARD_STORE).is_ready()
        finally:
            flow.system.kafka.thaw()
        await flow.wait_requests(60)
        verdict = await flow.verdict()
    assert verdict.is_ok, "\n".join(verdict.lines())
