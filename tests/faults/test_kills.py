"""Services killed at random under traffic: what members were told stays true."""

from pathlib import Path
from typing import Final

import pytest

from sandbox.instance import Service
from tests.support.fault_report import FaultReport
from tests.support.flow import open_flow
from tests.support.guard_scene import KILLS
from tests.support.seeds import seeded

ROWS: Final = {
    Service.REWARD_STORE: "H7",
    Service.COUPON_CONSUMER: "K2",
    Service.CAMPAIGN_API: "H7",
    Service.CONSENT_CONSUMER: "C2",
}


@pytest.mark.thorough
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    "service",
    [
        pytest.param(
            service, marks=pytest.mark.fault(row, f"{KILLS} kills of {service} at random under the whole flow")
        )
        for service, row in ROWS.items()
    ],
)
async def test_twenty_kills_of_a_service_lose_and_double_nothing(
    tmp_path: Path, fault_report: FaultReport, service: Service
) -> None:
    """Whatever moment a process dies in, the audit finds each coupon, campaign and consent as it was promised."""
    random = seeded("kill")
    async with open_flow(tmp_path) as flow:
        for _ in range(KILLS):
            await flow.wait_requests(random.randrange(5, 60))
            await flow.replace_killed(service)
        await flow.wait_requests(50)
        verdict, judgement = await flow.judgement(failures_allowed=True)
    fault_report.judge(judgement)
    fault_report.measure(redemptions=str(verdict.redemptions_told))
    assert verdict.redemptions_told > KILLS
