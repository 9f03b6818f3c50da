"""G4: one idempotency key has one effect and one answer, whoever dies or races on the way."""

import asyncio
import contextlib
import signal
import time
from collections import Counter
from http import HTTPStatus
from pathlib import Path
from typing import Final

import httpx
import pytest

from sandbox.servers import KafkaServer, PostgresServer
from tests.support.fault_report import FaultReport
from tests.support.guard_scene import KILLS, PATIENT, GuardScene, open_guard_scene, wait_frozen, work_until_killed
from tests.support.judgement import Judgement, Rule, judge
from tests.support.seeds import seeded
from tests.support.service_process import HttpServiceProcess, armed

POINTS: Final = ("after-begin", "after-key", "after-insert", "after-commit")
MEMBERS_A_ROUND: Final = 20
HITS_MOST: Final = 8
# Leases short enough for the rows of the dead, long enough for the default times of a statement on a busy machine.
LEASES: Final = {"KAFKA__DELIVERY_TIMEOUT_SECONDS": "2", "RELAY__LEASE_SECONDS": "10"}


def _judge_answers(first: list[httpx.Response], again: list[httpx.Response]) -> Judgement:
    """Compare what each key was answered with what it is answered now (L4)."""
    pairs = zip(first, again, strict=True)
    differing = [f"{old.text} became {new.text}" for old, new in pairs if old.content != new.content]
    return judge(Rule.RIGHT_CONTENT, differing)


@pytest.mark.thorough
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    "is_at_points",
    [
        pytest.param(True, marks=pytest.mark.fault("G4", f"{KILLS} kills at the points of a redemption")),
        pytest.param(False, marks=pytest.mark.fault("G4", f"{KILLS} kills at random moments under redemptions")),
    ],
    ids=["points", "moments"],
)
async def test_twenty_kills_of_one_of_two_instances_leave_one_effect_for_each_key(
    postgres: PostgresServer, kafka: KafkaServer, tmp_path: Path, fault_report: FaultReport, *, is_at_points: bool
) -> None:
    """Each member repeats at the other instance: redeemed and paid for once, and answered the same for ever."""
    random = seeded("kill")
    members: list[str] = []
    answers: list[httpx.Response] = []
    async with open_guard_scene(postgres, kafka, tmp_path) as scene, scene.reward_store(**LEASES) as steady:
        await steady.wait_readiness(200)
        for kill in range(KILLS):
            point = armed(random.choice(POINTS), random.randrange(1, HITS_MOST + 1)) if is_at_points else {}
            async with scene.reward_store(**LEASES, **point) as doomed:
                await doomed.wait_readiness(200)

                async def redeem(number: int, kill: int = kill, doomed: HttpServiceProcess = doomed) -> None:
                    asking = [f"m-{kill}-{number}-{one}" for one in range(MEMBERS_A_ROUND)]
                    await scene.enrol(*asking)
                    calls = [asyncio.create_task(scene.redeem(member, doomed, steady)) for member in asking]
                    if not is_at_points:
                        await asyncio.sleep(random.uniform(0, 0.2))
                        with contextlib.suppress(ProcessLookupError):
                            doomed.process.send_signal(signal.SIGKILL)
                    answers.extend(await asyncio.gather(*calls))
                    members.extend(asking)

                await work_until_killed(doomed, redeem)
        again = [await scene.redeem(member, steady) for member in members]
        await scene.world.wait_published(40)
        sent_before = Counter({row.id: KILLS for row in await scene.world.events()})  # a kill may hit the relay as well
        fault_report.judge(
            await scene.judge_redemptions(),
            await scene.judge_payments(),
            await scene.judge_topic(sent_before),
            await scene.judge_leftovers(),
            _judge_answers(answers, again),
        )


async def _race(scene: GuardScene, without: str | None) -> tuple[httpx.Response, httpx.Response, Judgement]:
    """Ask a second instance for the same while the first is frozen with the key in hand; judge when it has gone on."""
    await scene.enrol("m-1")
    async with (
        scene.reward_store(without=without, **PATIENT, **armed("after-key", action="freeze")) as frozen,
        scene.reward_store(without=without, **PATIENT) as other,
    ):
        await frozen.wait_readiness(200)
        await other.wait_readiness(200)
        first = asyncio.create_task(scene.redeem("m-1", frozen))
        await wait_frozen(frozen)
        async with other.client("m-1") as client:
            meanwhile = await client.post("/v1/redemptions", **scene.order_of("m-1"))
        frozen.process.thaw()
        return await first, meanwhile, await scene.judge_redemptions() | await scene.judge_payments()


@pytest.mark.fault("G4", "a redemption frozen with its key in hand, and asked for elsewhere")
async def test_repetition_beside_a_request_that_has_the_key_is_told_so(
    postgres: PostgresServer, kafka: KafkaServer, tmp_path: Path, fault_report: FaultReport
) -> None:
    """The second request is refused as under way and changes nothing; the first one goes on as if nothing had been."""
    async with open_guard_scene(postgres, kafka, tmp_path) as scene:
        first, meanwhile, judgement = await _race(scene, None)
    assert (meanwhile.status_code, meanwhile.json()["code"]) == (HTTPStatus.CONFLICT, "request-in-progress")
    assert first.status_code == HTTPStatus.CREATED
    fault_report.judge(judgement)


@pytest.mark.fault("H7", "reward_store frozen with a redemption not committed, longer than the database waits")
async def test_redemption_frozen_before_its_commit_holds_up_nobody_for_long_and_is_done_once(
    postgres: PostgresServer, kafka: KafkaServer, tmp_path: Path, fault_report: FaultReport
) -> None:
    """The database ends the transaction, so others get the reward's row; whoever wakes up says to come back."""
    settings = {**PATIENT, "POSTGRES__IDLE_IN_TRANSACTION_SECONDS": "2"}
    async with (
        open_guard_scene(postgres, kafka, tmp_path) as scene,
        scene.reward_store(**settings, **armed("after-insert", action="freeze")) as frozen,
        scene.reward_store(**settings) as other,
    ):
        await frozen.wait_readiness(200)
        await other.wait_readiness(200)
        await scene.enrol("m-1", "m-2")
        first = asyncio.create_task(scene.redeem("m-1", frozen, other))
        await wait_frozen(frozen)
        frozen_at = time.monotonic()
        assert (await scene.redeem("m-2", other)).status_code == HTTPStatus.CREATED
        fault_report.measure(held_up=f"{time.monotonic() - frozen_at:.1f} s")
        frozen.process.thaw()
        assert (await first).status_code == HTTPStatus.CREATED
        fault_report.judge(await scene.judge_redemptions(), await scene.judge_payments())


@pytest.mark.fault("G4", "without the key's lock: a redemption frozen with its key in hand, and asked for elsewhere")
async def test_without_the_key_s_lock_both_requests_redeem(
    postgres: PostgresServer, kafka: KafkaServer, tmp_path: Path, fault_report: FaultReport
) -> None:
    """Two requests with one key take two rewards, and the member pays twice."""
    async with open_guard_scene(postgres, kafka, tmp_path) as scene:
        first, meanwhile, judgement = await _race(scene, "idempotency-lock")
    assert [first.status_code, meanwhile.status_code] == [HTTPStatus.CREATED] * 2
    fault_report.notice(judgement, Rule.NOTHING_DOUBLED)


@pytest.mark.fault("G4", "without the stored answer: kill -9 after the commit")
async def test_without_the_stored_answer_a_repetition_after_a_death_redeems_again(
    postgres: PostgresServer, kafka: KafkaServer, tmp_path: Path, fault_report: FaultReport
) -> None:
    """The commit was there and its answer never came; who asks again pays again."""
    async with open_guard_scene(postgres, kafka, tmp_path) as scene:
        await scene.enrol("m-1")
        async with (
            scene.reward_store(without="idempotency-answer", **armed("after-commit")) as doomed,
            scene.reward_store(without="idempotency-answer") as other,
        ):
            await doomed.wait_readiness(200)
            await other.wait_readiness(200)
            assert (await scene.redeem("m-1", doomed, other)).status_code == HTTPStatus.CREATED
        fault_report.notice(await scene.judge_redemptions(), Rule.NOTHING_DOUBLED)
