"""Rolling restarts of the real services under busy keep-alive clients."""

from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import pytest

from sandbox.instance import Service
from sandbox.seed import make_seed, plant
from sandbox.system import System, open_system
from tests.support.busy_clients import BusyClients
from tests.support.fault_report import FaultReport
from tests.support.judgement import judge_end

CLIENTS = 100
RESTARTS = 10


async def _path(system: System, service: Service) -> str:
    """Return a path of the service that one query of its database answers."""
    if service is Service.REWARD_STORE:
        return "/v1/members/m-1"
    if service is Service.CAMPAIGN_API:
        return "/v1/campaigns"
    connection = await asyncpg.connect(system.coupons_url)
    await connection.execute(
        """
        insert into coupons
            (code, member_id, reward_id, value_cents, currency, issued_at, expires_at, status, version, source)
        values ('0123456789ABCDEF', 'm-1', 'rw-1', 500, 'EUR', now(), now() + interval '1 day', 'issued', 1, 'operator')
        """
    )
    await connection.close()
    return "/v1/coupons/0123456789ABCDEF"


@pytest.mark.parametrize(
    "service",
    [
        pytest.param(
            one, marks=pytest.mark.fault("H1", f"{RESTARTS} rolling restarts of {one}, {CLIENTS} busy clients")
        )
        for one in Service
        if one.serves_members
    ],
)
async def test_rolling_restarts_under_a_hundred_busy_clients_cost_no_request(
    tmp_path: Path, service: Service, fault_report: FaultReport
) -> None:
    """Ten times an instance is replaced by another on the same socket, and every request has its answer."""
    async with open_system(tmp_path) as system:
        await plant(make_seed(1, 1_000), system.rewards_url)
        path = await _path(system, service)
        instance = await system.start(service)
        address = urlsplit(system.base_url(service))
        headers = {"authorization": f"Bearer {system.token('m-1')}"}
        where = (str(address.hostname), int(address.port or 0))
        async with BusyClients(where, CLIENTS, path=path, headers=headers, pause_seconds=0.05) as clients:
            await clients.wait_answers(CLIENTS)
            for _ in range(RESTARTS):
                instance = await system.replace(instance)
                await clients.wait_answers(CLIENTS)
        await system.stop_services()
    assert not clients.errors
    assert clients.closing_answers > 0
    assert len(system.ended) == RESTARTS + 1
    fault_report.judge(clients.judge(), *(judge_end(one.name, one.status, "", wanted=(0, "")) for one in system.ended))
    fault_report.measure(requests=str(clients.answers))
