"""G7: a coupon is spent once, however many ask for it and whoever dies with it in hand."""

import asyncio
import functools
import operator
from pathlib import Path
from typing import Final

import httpx
import pytest

from loyalty.coupon import FIRST_VERSION, Coupon
from sandbox.servers import KafkaServer, PostgresServer
from tests.support.coupon_store_contract import some_coupon
from tests.support.fault_report import FaultReport
from tests.support.guard_scene import KILLS, GuardScene, ask, open_guard_scene, work_until_killed
from tests.support.judgement import Judgement, Rule, judge
from tests.support.ledger import digest, judge_units
from tests.support.seeds import seeded
from tests.support.service_process import HttpServiceProcess, armed
from tests.support.stored_coupon import put_coupon

RACERS: Final = 200
CALLS_A_KILL: Final = 20
HITS_MOST: Final = 8
_SPENT: Final = digest("spent")


async def _put(scene: GuardScene) -> Coupon:
    """Let a coupon be there."""
    coupon = some_coupon()
    await put_coupon(scene.coupons, coupon)
    return coupon


async def _spend(coupon: Coupon, *services: HttpServiceProcess) -> httpx.Response:
    return await ask(coupon.member_id, f"/v1/coupons/{coupon.code}/redeem", services)


async def _judge(scene: GuardScene, coupon: Coupon, answers: list[httpx.Response]) -> Judgement:
    """Hold the callers who were told that the coupon is spent against how often it was, by its version."""
    row = await scene.coupons.fetchrow("select version, redeemed_at from coupons where code = $1", coupon.code)
    assert row is not None
    told = [(coupon.code, _SPENT) for answer in answers if answer.is_success]
    spent = [(coupon.code, _SPENT)] * (row["version"] - FIRST_VERSION)
    views = {answer.content for answer in answers}
    differing = [f"{coupon.code} was told in {len(views)} ways"] if len(views) > 1 else []
    return judge_units(told, told, spent) | judge(Rule.RIGHT_CONTENT, differing)


async def _race(scene: GuardScene, without: str | None) -> Judgement:
    """Let two hundred callers race for one coupon at two instances."""
    coupon = await _put(scene)
    async with scene.coupon_api(without=without) as one, scene.coupon_api(without=without) as other:
        for service in (one, other):
            await service.wait_readiness(200)
        answers = await asyncio.gather(*(_spend(coupon, (one, other)[number % 2]) for number in range(RACERS)))
    assert len(answers) == sum(answer.is_success for answer in answers)
    return await _judge(scene, coupon, list(answers))


@pytest.mark.fault("G7", f"{RACERS} calls race for one coupon at two instances")
async def test_coupon_that_two_hundred_ask_for_is_spent_once(
    postgres: PostgresServer, kafka: KafkaServer, tmp_path: Path, fault_report: FaultReport
) -> None:
    """All of them are told the same: spent, once, at one time."""
    async with open_guard_scene(postgres, kafka, tmp_path) as scene:
        fault_report.judge(await _race(scene, None))


@pytest.mark.fault("G7", f"without the status in the update: {RACERS} calls race")
async def test_without_the_status_in_the_update_a_coupon_is_spent_again_and_again(
    postgres: PostgresServer, kafka: KafkaServer, tmp_path: Path, fault_report: FaultReport
) -> None:
    """Each call spends it anew, and each is told something else."""
    async with open_guard_scene(postgres, kafka, tmp_path) as scene:
        fault_report.notice(await _race(scene, "redeem-once"), Rule.NOTHING_DOUBLED, Rule.RIGHT_CONTENT)


async def _die(scene: GuardScene, steady: HttpServiceProcess, hit: int, calls: int) -> Judgement:
    """Kill an instance when it has spent the coupon, or found it spent, and before it says so; all ask again."""
    judgements: list[Judgement] = []
    async with scene.coupon_api(**armed("after-redeem", hit)) as doomed:
        await doomed.wait_readiness(200)

        async def spend(_: int) -> None:
            coupon = await _put(scene)
            answers = await asyncio.gather(*(_spend(coupon, doomed, steady) for _ in range(calls)))
            judgements.append(await _judge(scene, coupon, list(answers)))

        await work_until_killed(doomed, spend)
    return functools.reduce(operator.or_, judgements)


@pytest.mark.fault("H7", "kill -9 of coupon_api when a coupon is spent, before the answer")
async def test_coupon_whose_spending_was_never_answered_is_spent_and_told_when_asked_again(
    postgres: PostgresServer, kafka: KafkaServer, tmp_path: Path, fault_report: FaultReport
) -> None:
    """The repetition at another instance finds it spent and says so."""
    async with open_guard_scene(postgres, kafka, tmp_path) as scene, scene.coupon_api() as steady:
        await steady.wait_readiness(200)
        fault_report.judge(await _die(scene, steady, hit=1, calls=1))


@pytest.mark.thorough
@pytest.mark.timeout(900)
@pytest.mark.fault("G7", f"{KILLS} kills of an instance that spends a coupon, before it answers")
async def test_twenty_deaths_with_a_coupon_in_hand_spend_each_once(
    postgres: PostgresServer, kafka: KafkaServer, tmp_path: Path, fault_report: FaultReport
) -> None:
    """Whichever of twenty racing calls it dies in, all of them are told the same in the end."""
    random = seeded("kill")
    async with open_guard_scene(postgres, kafka, tmp_path) as scene, scene.coupon_api() as steady:
        await steady.wait_readiness(200)
        for _ in range(KILLS):
            fault_report.judge(await _die(scene, steady, random.randrange(1, HITS_MOST + 1), CALLS_A_KILL))
