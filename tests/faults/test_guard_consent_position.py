"""G12 and G13: a place is saved behind what is settled, and a dead letter is written before its event is."""

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Final

import pytest

from sandbox.salesforce import FaultKind
from sandbox.salesforce.fault import EXTERNAL_IDS_MAX
from sandbox.servers import MongoServer
from services.consent_consumer.change_stream import CONSENT_MASTER
from tests.support.consent_consumer_process import master
from tests.support.consent_judge import (
    judge_consents,
    judge_positions,
    judge_saves,
    recorded_saves,
    replays,
)
from tests.support.consent_world import PATIENT, SHORT_LEASE, begin
from tests.support.consumer_judge import stop_and_judge
from tests.support.eventually import eventually
from tests.support.fault_report import FaultReport
from tests.support.guard_scene import KILLED, KILLS
from tests.support.judgement import Judgement, Rule
from tests.support.salesforce_scene import SalesforceScene, open_salesforce_scene
from tests.support.seeds import seeded
from tests.support.service_process import armed

HITS_MOST: Final = 4
CONSENTS: Final = ("one", "two", "three")

Meanwhile = Callable[[], Awaitable[object]]


async def _put(scene: SalesforceScene, *names: str) -> None:
    for name in names:
        await scene.members.put(CONSENT_MASTER, master(name))


async def _wait_passed(scene: SalesforceScene) -> None:
    """Wait until the stored places are behind everything that was written."""

    async def are_passed() -> bool:
        return (await judge_positions(scene.world)).is_ok

    await eventually(are_passed, seconds=60, pause_seconds=0.1)


async def _die_and_go_on(scene: SalesforceScene, without: str | None, meanwhile: Meanwhile) -> Judgement:
    """Kill a consumer when it has consents in hand, let another one go on, and judge what became of them."""
    async with scene.consumer(without=without, **SHORT_LEASE) as doomed:
        await _put(scene, *CONSENTS)
        await meanwhile()
        await doomed.process.kill()
    scene.salesforce.faults.clear()
    async with scene.consumer(without=without, **SHORT_LEASE) as following:
        await _put(scene, "last")
        await _wait_passed(scene)
        ended, _ = await stop_and_judge(following)
    return ended | await judge_consents(scene.world, scene.members) | await judge_positions(scene.world)


@pytest.mark.fault("G12", "kill -9 with consents in hand that Salesforce cannot take")
async def test_consents_that_were_in_hand_at_a_death_are_carried_by_the_next(
    mongo: MongoServer, tmp_path: Path, fault_report: FaultReport
) -> None:
    """The place that was saved is before them."""
    async with open_salesforce_scene(mongo, tmp_path) as scene:
        away = scene.inject(FaultKind.UNAVAILABLE)
        fault_report.judge(await _die_and_go_on(scene, None, lambda: away.wait_hits(2)))


@pytest.mark.fault("G12", "without the settled prefix: kill -9 with consents in hand that Salesforce cannot take")
async def test_without_the_settled_prefix_a_death_loses_what_was_in_hand(
    mongo: MongoServer, tmp_path: Path, fault_report: FaultReport
) -> None:
    """The place of what was merely read is saved, and the next one begins behind it."""
    async with open_salesforce_scene(mongo, tmp_path) as scene:
        scene.inject(FaultKind.UNAVAILABLE)
        judgement = await _die_and_go_on(scene, "settled-prefix", lambda: _wait_passed(scene))
        fault_report.notice(judgement, Rule.NOTHING_LOST)


async def _refuse_and_die(scene: SalesforceScene, without: str | None) -> Judgement:
    """Kill a consumer when all that it was refused is settled, and its place saved."""
    scene.inject(FaultKind.RECORD, code="DUPLICATES_DETECTED", external_ids=tuple(f"s:{name}" for name in CONSENTS))
    return await _die_and_go_on(scene, without, lambda: _wait_passed(scene))


@pytest.mark.fault("G13", "kill -9 behind the save of consents that were refused")
async def test_refused_consents_outlive_a_death(mongo: MongoServer, tmp_path: Path, fault_report: FaultReport) -> None:
    """They lie among the dead letters by then."""
    async with open_salesforce_scene(mongo, tmp_path) as scene:
        fault_report.judge(await _refuse_and_die(scene, None))
        assert set(await scene.letters()) == set(CONSENTS)


@pytest.mark.fault("G13", "without the letter first: kill -9 behind the save of consents that were refused")
async def test_without_the_letter_first_a_death_loses_what_was_refused(
    mongo: MongoServer, tmp_path: Path, fault_report: FaultReport
) -> None:
    """Their events are passed, and the letters were still to be written."""
    async with open_salesforce_scene(mongo, tmp_path) as scene:
        fault_report.notice(await _refuse_and_die(scene, "letter-first"), Rule.NOTHING_LOST)


async def _die_again_and_again(
    scene: SalesforceScene, points: Sequence[str], work: Callable[[int], Awaitable[object]]
) -> Judgement:
    """Kill consumers at these points while others work, twenty times, let one carry on to the end, and judge it all."""
    random = seeded("kill")
    rounds = itertools.count()
    async with recorded_saves(scene.world) as saves:
        await begin(scene.world)
        for _ in range(KILLS):
            point = armed(random.choice(points), random.randint(1, HITS_MOST))
            async with scene.world.consumer(**SHORT_LEASE, **PATIENT, **point) as doomed:
                while doomed.process.is_running:
                    await work(next(rounds))
                    await asyncio.sleep(0.05)
                assert await doomed.process.wait(20) == KILLED, doomed.process.log.read_text()
        scene.salesforce.faults.clear()
        async with scene.consumer(**SHORT_LEASE) as last:
            judgement = await scene.finish(last)
    return judgement | judge_saves(saves)


@pytest.mark.thorough
@pytest.mark.timeout(900)
@pytest.mark.fault("G12", f"{KILLS} kills while every third record is locked and later ones are settled")
async def test_twenty_deaths_with_gaps_in_what_is_settled_lose_nothing(
    mongo: MongoServer, tmp_path: Path, fault_report: FaultReport
) -> None:
    """Whatever was settled behind a gap is told again by the next, and what was in the gap is told at all."""
    async with open_salesforce_scene(mongo, tmp_path) as scene:
        scene.inject(FaultKind.RECORD, code="UNABLE_TO_LOCK_ROW", every=3)
        points = ("after-read", "before-call", "after-call", "before-save", "after-save")
        fault_report.judge(await _die_again_and_again(scene, points, lambda _: scene.members.act_times(2)))
        assert await scene.letters() == {}
        fault_report.measure(writes=str(scene.members.writes), told_again=str(replays(scene.world)))


@pytest.mark.thorough
@pytest.mark.timeout(900)
@pytest.mark.fault("G13", f"{KILLS} kills around the burial of refused consents")
async def test_twenty_deaths_around_a_burial_lose_nothing(
    mongo: MongoServer, tmp_path: Path, fault_report: FaultReport
) -> None:
    """Each refused consent lies among the dead letters in its last state, everything else has arrived."""
    async with open_salesforce_scene(mongo, tmp_path) as scene:
        doomed = [f"doomed-{number}" for number in range(EXTERNAL_IDS_MAX)]
        refused = tuple(f"s:{name}" for name in doomed)
        scene.inject(FaultKind.RECORD, code="DUPLICATES_DETECTED", external_ids=refused)

        async def work(number: int) -> None:
            await _put(scene, doomed[number % len(doomed)])
            await scene.members.act()

        points = ("after-call", "after-bury", "before-save", "after-save")
        fault_report.judge(await _die_again_and_again(scene, points, work))
        assert set(await scene.letters()) <= set(doomed)
        fault_report.measure(writes=str(scene.members.writes), documents_dead=str(len(await scene.letters())))
