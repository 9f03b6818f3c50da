"""G6: a cancellation across two databases gives points back once for each coupon that it killed, whoever dies."""

import asyncio
from collections import Counter
from collections.abc import Iterable
from http import HTTPStatus
from pathlib import Path
from random import Random
from typing import Final

import httpx
import pytest

from loyalty.reward import Redemption, RedemptionStatus
from sandbox.servers import KafkaServer, PostgresServer
from tests.support.eventually import eventually
from tests.support.fault_report import FaultReport
from tests.support.guard_scene import (
    KILLED,
    KILLS,
    PATIENT,
    PRICE,
    GuardScene,
    ask,
    open_guard_scene,
    wait_frozen,
    wait_ready_or_dead,
    work_until_killed,
)
from tests.support.judgement import Judgement, Rule, judge, judge_progress
from tests.support.ledger import digest, judge_units
from tests.support.seeds import seeded
from tests.support.service_process import HttpServiceProcess, armed
from tests.support.stored_coupon import put_coupon

POINTS: Final = ("after-cancelling", "after-coupon-cancelled", "after-give-back", "after-cancelled")
MEMBERS_A_ROUND: Final = 8
SPENDERS_A_ROUND: Final = 2
# As long as the default times of its steps need on a busy machine, and no longer.
LEASES: Final = {"CANCEL__LEASE_SECONDS": "11", "CANCEL__INTERVAL_SECONDS": "0.5"}
_BACK: Final = digest("points given back")


def _settings(coupon_api: HttpServiceProcess) -> dict[str, str]:
    return {"COUPON_API__URLS": f"http://127.0.0.1:{coupon_api.port}"}


async def _redemption_of(scene: GuardScene, member: str) -> Redemption:
    """Let a member redeem, and return what became of it."""
    await scene.enrol(member, points=PRICE)
    redemption_id = await scene.redeem_beside(member)
    return next(one for one in await scene.world.redemptions() if one.redemption_id == redemption_id)


async def _cancel(redemption: Redemption, *services: HttpServiceProcess) -> httpx.Response:
    return await ask(redemption.member_id, f"/v1/redemptions/{redemption.redemption_id}/cancel", services)


async def _wait_finished(scene: GuardScene) -> None:
    """Wait until nobody has a cancellation to finish."""

    async def are_finished() -> bool:
        return (await scene.world.store.cancelling()).rows == 0

    await eventually(are_finished, seconds=60, pause_seconds=0.05)


async def _judge(scene: GuardScene, told: Iterable[str] = (), spenders: Iterable[str] = ()) -> Judgement:
    """Hold who was told of a cancellation, and whose coupon was killed, against whose points came back, and how often.

    Those who had spent their coupon first get nothing back; and both databases say the same of every coupon.
    """
    members = await scene.world.administrator.fetch("select member_id, points from members")
    points = {row["member_id"]: row["points"] for row in members}
    rows = await scene.coupons.fetch("select code, member_id, status from coupons")
    killed = {row["member_id"] for row in rows if row["status"] == "cancelled"}
    asked = points.keys() - set(spenders)
    back = [(member, _BACK) for member, now in points.items() for _ in range(now // PRICE)]
    units = judge_units([(one, _BACK) for one in asked], [(one, _BACK) for one in killed | set(told)], back)
    status_there = {row["code"]: row["status"] for row in rows}
    contradictions = [
        f"{one.coupon_code} is {one.status} here and {status_there.get(one.coupon_code)} there"
        for one in await scene.world.redemptions()
        if (one.status is RedemptionStatus.CANCELLED) != (status_there.get(one.coupon_code) == "cancelled")
    ]
    unfinished = {"unfinished": (await scene.world.store.cancelling()).rows}
    progress = judge_progress({"unfinished": 0}, unfinished)
    return units | judge(Rule.RIGHT_CONTENT, contradictions) | progress


async def _cancel_once(redemption: Redemption, service: HttpServiceProcess) -> httpx.Response | None:
    """Ask once and take what comes, perhaps nothing."""
    async with service.client(redemption.member_id, connections=1) as client:
        try:
            return await client.post(f"/v1/redemptions/{redemption.redemption_id}/cancel")
        except httpx.TransportError:
            return None


async def _let_some_arrive(
    scene: GuardScene, redemptions: list[Redemption], coupon_api: HttpServiceProcess, random: Random
) -> list[str]:
    """Let about half of the coupons arrive at coupon_api, and the first of them be spent; return who has spent."""
    for number, one in enumerate(redemptions):
        if number < SPENDERS_A_ROUND or random.random() < 0.5:
            await put_coupon(scene.coupons, one.coupon())
    spent = redemptions[:SPENDERS_A_ROUND]
    for one in spent:
        answer = await ask(one.member_id, f"/v1/coupons/{one.coupon_code}/redeem", [coupon_api])
        assert answer.status_code == HTTPStatus.OK, answer.text
    return [one.member_id for one in spent]


async def _cancel_all(
    redemptions: list[Redemption], doomed: HttpServiceProcess, steady: HttpServiceProcess, random: Random
) -> list[str]:
    """Let all members cancel at once, of whom about half ask again elsewhere; return who was told that it is done."""
    calls = [
        _cancel(one, doomed, steady) if random.random() < 0.5 else _cancel_once(one, doomed) for one in redemptions
    ]
    ends = zip(redemptions, await asyncio.gather(*calls), strict=True)
    return [one.member_id for one, answer in ends if answer is not None and answer.is_success]


@pytest.mark.thorough
@pytest.mark.timeout(900)
@pytest.mark.fault("G6", f"{KILLS} kills at the steps of a cancellation")
async def test_twenty_deaths_in_cancellations_give_back_once_for_each_coupon_that_they_killed(
    postgres: PostgresServer, kafka: KafkaServer, tmp_path: Path, fault_report: FaultReport
) -> None:
    """Members who ask again join in, for those who leave the finisher goes on; a coupon that was spent stays spent."""
    random = seeded("kill")
    told: list[str] = []
    spenders: list[str] = []
    async with open_guard_scene(postgres, kafka, tmp_path) as scene, scene.coupon_api() as coupon_api:
        await coupon_api.wait_readiness(200)
        async with scene.reward_store(**_settings(coupon_api), **LEASES) as steady:
            await steady.wait_readiness(200)
            for kill in range(KILLS):
                point = armed(random.choice(POINTS), random.randrange(1, 4))
                async with scene.reward_store(**_settings(coupon_api), **LEASES, **point) as doomed:
                    await wait_ready_or_dead(doomed)

                    async def cancel(number: int, kill: int = kill, doomed: HttpServiceProcess = doomed) -> None:
                        members = [f"m-{kill}-{number}-{one}" for one in range(MEMBERS_A_ROUND)]
                        redemptions = [await _redemption_of(scene, member) for member in members]
                        spenders.extend(await _let_some_arrive(scene, redemptions, coupon_api, random))
                        told.extend(await _cancel_all(redemptions, doomed, steady, random))

                    await work_until_killed(doomed, cancel)
            await _wait_finished(scene)
            await scene.world.wait_published(40)
            fault_report.judge(await scene.judge_leftovers())
        sent_before = Counter({row.id: KILLS for row in await scene.world.events()})  # a kill may hit the relay as well
        fault_report.judge(await _judge(scene, told, spenders), await scene.judge_topic(sent_before))
        fault_report.measure(cancelled=str(len(told)), used=str(len(spenders)))


async def _finish_beside(scene: GuardScene, without: str | None) -> Judgement:
    """Freeze an instance that has coupon_api's word, let another one finish, and thaw the first."""
    redemption = await _redemption_of(scene, "m-1")
    async with scene.coupon_api() as coupon_api:
        settings = {**_settings(coupon_api), **PATIENT}
        freezing = armed("after-coupon-cancelled", action="freeze")
        async with (
            scene.reward_store(without=without, **settings, **freezing) as frozen,
            scene.reward_store(without=without, **settings) as other,
        ):
            for service in (coupon_api, frozen, other):
                await service.wait_readiness(200)
            first = asyncio.create_task(_cancel(redemption, frozen))
            await wait_frozen(frozen)
            answers = [await _cancel(redemption, other)]
            frozen.process.thaw()
            answers.append(await first)
    assert [answer.status_code for answer in answers] == [HTTPStatus.OK] * 2
    return await _judge(scene, ["m-1"])


@pytest.mark.fault("G6", "an instance frozen with coupon_api's word, another one finishes, thawed")
async def test_cancellation_that_another_has_finished_gives_nothing_more(
    postgres: PostgresServer, kafka: KafkaServer, tmp_path: Path, fault_report: FaultReport
) -> None:
    """Whoever wakes up with a word that was used already finds it done and answers the same."""
    async with open_guard_scene(postgres, kafka, tmp_path) as scene:
        fault_report.judge(await _finish_beside(scene, None))


@pytest.mark.fault("G6", "without the status in the update: an instance frozen, another one finishes, thawed")
async def test_without_the_status_in_the_update_points_are_given_back_twice(
    postgres: PostgresServer, kafka: KafkaServer, tmp_path: Path, fault_report: FaultReport
) -> None:
    """Two who finish one cancellation both give back."""
    async with open_guard_scene(postgres, kafka, tmp_path) as scene:
        fault_report.notice(await _finish_beside(scene, "cancel-once"), Rule.NOTHING_DOUBLED)


async def _die_with_the_word(scene: GuardScene, without: str | None) -> Judgement:
    """Kill an instance that has coupon_api's word, of a member who does not ask again, and let another one start."""
    redemption = await _redemption_of(scene, "m-1")
    async with scene.coupon_api() as coupon_api:
        await coupon_api.wait_readiness(200)
        settings = {**_settings(coupon_api), **LEASES}
        async with scene.reward_store(without=without, **settings, **armed("after-coupon-cancelled")) as doomed:
            await doomed.wait_readiness(200)
            assert await _cancel_once(redemption, doomed) is None
            assert await doomed.process.wait(20) == KILLED
        async with scene.reward_store(without=without, **settings) as other:
            await other.wait_readiness(200)
            await _wait_finished(scene)
    return await _judge(scene)


@pytest.mark.fault("G6", "kill -9 with coupon_api's word, of a member who does not ask again")
async def test_wish_of_a_member_who_left_is_finished_by_another_instance(
    postgres: PostgresServer, kafka: KafkaServer, tmp_path: Path, fault_report: FaultReport
) -> None:
    """The coupon is dead, so the points come back, though the one who was asked is dead too."""
    async with open_guard_scene(postgres, kafka, tmp_path) as scene:
        fault_report.judge(await _die_with_the_word(scene, None))


@pytest.mark.fault("G6", "without the recorded wish: kill -9 with coupon_api's word")
async def test_without_the_recorded_wish_points_are_never_given_back(
    postgres: PostgresServer, kafka: KafkaServer, tmp_path: Path, fault_report: FaultReport
) -> None:
    """Whoever asks coupon_api first and writes down later leaves a dead coupon that nobody pays for."""
    async with open_guard_scene(postgres, kafka, tmp_path) as scene:
        fault_report.notice(await _die_with_the_word(scene, "cancel-record"), Rule.NOTHING_LOST)
