"""Services killed at random under traffic: what members were told stays true."""

import secrets
from pathlib import Path
from random import Random

import pytest

from sandbox.instance import Service
from tests.support.flow import open_flow

KILLS = 10


def _random() -> Random:
    """Return a source of chance whose seed is shown when the test fails."""
    seed = secrets.randbits(32)
    print(f"kill seed {seed}")  # noqa: T201 - shown when the test fails
    return Random(seed)


@pytest.mark.parametrize("service", [Service.REWARD_STORE, Service.COUPON_CONSUMER])
async def test_kill_nine_of_a_service_ten_times_loses_and_doubles_nothing(tmp_path: Path, service: Service) -> None:
    """Whatever moment a process dies in, the audit finds every redemption with its one coupon."""
    random = _random()
    async with open_flow(tmp_path) as flow:
        for _ in range(KILLS):
            await flow.wait_requests(random.randrange(5, 60))
            await flow.replace_killed(service)
        await flow.wait_requests(50)
        verdict = await flow.verdict(failures_allowed=True)
    assert verdict.is_ok, "\n".join(verdict.lines())
    assert verdict.redemptions_told > KILLS


@pytest.mark.parametrize("point", ["after-claim", "after-publish"])
async def test_relay_killed_between_its_steps_publishes_every_event(tmp_path: Path, point: str) -> None:
    """A relay that dies after the claim, or after the broker's word, leaves its rows to the next one."""
    async with open_flow(tmp_path) as flow:
        random = _random()
        for _ in range(KILLS // 2):
            await flow.system.kill(flow.instance(Service.REWARD_STORE))
            doomed = await flow.system.launch(
                Service.REWARD_STORE,
                {
                    "REWARD_STORE_CRASH__IS_TEST": "true",
                    "REWARD_STORE_CRASH__POINT": point,
                    "REWARD_STORE_CRASH__HIT": str(random.randrange(1, 10)),
                    # Short enough for several rounds; the lease has to outlive the broker's word and one statement.
                    "REWARD_STORE_KAFKA__DELIVERY_TIMEOUT_SECONDS": "2",
                    "REWARD_STORE_POSTGRES__STATEMENT_TIMEOUT_SECONDS": "3",
                    "REWARD_STORE_RELAY__LEASE_SECONDS": "8",
                },
            )
            assert await doomed.process.wait(60) == 137
            doomed.process.release()
            flow.system.forget(doomed)
            await flow.system.start(Service.REWARD_STORE)
            await flow.wait_requests(10)
        verdict = await flow.verdict(failures_allowed=True)
    assert verdict.is_ok, "\n".join(verdict.lines())
