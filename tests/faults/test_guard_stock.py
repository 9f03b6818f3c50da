"""G5: the last item of a reward and the last points of a member are spent once, however many race for them."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from http import HTTPStatus
from pathlib import Path
from typing import Final
from uuid import UUID

import httpx
import pytest

from sandbox.servers import KafkaServer, PostgresServer
from tests.support.eventually import eventually
from tests.support.fault_report import FaultReport
from tests.support.guard_scene import KILLS, PRICE, GuardScene, ask, open_guard_scene, work_until_killed
from tests.support.judgement import Judgement, Rule, judge
from tests.support.ledger import digest, judge_units
from tests.support.reward_store_contract import some_reward
from tests.support.seeds import seeded
from tests.support.service_process import HttpServiceProcess, armed

RACERS: Final = 200
RACERS_A_ROUND: Final = 20
KINDS: Final = 20
LAST: Final = "rw-last"
POOR: Final = "m-poor"
_WAITING: Final = "select count(*) from pg_stat_activity where datname = $1 and wait_event_type = 'Lock'"
_SOLD: Final = digest("sold")

Race = Callable[[GuardScene, list[HttpServiceProcess]], Awaitable[Judgement]]


@contextlib.asynccontextmanager
async def _start_line(scene: GuardScene, statement: str) -> AsyncIterator[None]:
    """Keep a row locked until two of those who were let loose inside the block wait for it."""
    async with scene.world.administrator.transaction():
        await scene.world.administrator.execute(statement)
        yield

        async def are_waiting() -> bool:
            return bool(await scene.coupons.fetchval(_WAITING, scene.place.database) >= 2)

        await eventually(are_waiting, seconds=40)


async def _judge(scene: GuardScene, answers: Iterable[httpx.Response], unit: str) -> Judgement:
    """Hold what was told against what was sold: this item, or these points, are one unit, and somebody has it."""
    told = {UUID(answer.json()["redemption_id"]) for answer in answers if answer.status_code == HTTPStatus.CREATED}
    sold = {one.redemption_id for one in await scene.world.redemptions() if unit in {one.reward_id, one.member_id}}
    lost = [f"redemption {one} of {unit} was acknowledged and is nowhere" for one in sorted(told - sold)]
    return judge_units([(unit, _SOLD)], [(unit, _SOLD)], [(unit, _SOLD)] * len(sold)) | judge(Rule.NOTHING_LOST, lost)


async def _race_for_the_last_item(scene: GuardScene, services: list[HttpServiceProcess]) -> Judgement:
    """Let two hundred members race for one item, some at each service."""
    members = [f"m-{number}" for number in range(RACERS)]
    await scene.enrol(*members)
    await scene.world.put_reward(some_reward(LAST, points_cost=PRICE, stock=1))
    async with _start_line(scene, f"select from rewards where reward_id = '{LAST}' for update"):
        races = [
            asyncio.create_task(scene.redeem(member, services[number % 2], reward_id=LAST))
            for number, member in enumerate(members)
        ]
    return await _judge(scene, await asyncio.gather(*races), LAST)


async def _race_for_the_last_points(scene: GuardScene, services: list[HttpServiceProcess]) -> Judgement:
    """Let one member ask two hundred times for twenty rewards, of which the points pay one."""
    await scene.enrol(POOR, points=PRICE)
    for kind in range(KINDS):
        await scene.world.put_reward(some_reward(f"rw-{kind}", points_cost=PRICE, stock=RACERS))
    async with _start_line(scene, f"select from members where member_id = '{POOR}' for update"):
        orders = [scene.order_of(POOR, f"rw-{number % KINDS}", key=f"key-{number:04}") for number in range(RACERS)]
        races = [
            asyncio.create_task(ask(POOR, "/v1/redemptions", [services[number % 2]], order))
            for number, order in enumerate(orders)
        ]
    return await _judge(scene, await asyncio.gather(*races), POOR)


@contextlib.asynccontextmanager
async def _two_instances(scene: GuardScene, without: str | None = None) -> AsyncIterator[list[HttpServiceProcess]]:
    async with scene.reward_store(without=without) as one, scene.reward_store(without=without) as other:
        for service in (one, other):
            await service.wait_readiness(200)
        yield [one, other]


@pytest.mark.fault("G5", f"{RACERS} members race for the last item, and one member {RACERS} times for the last points")
async def test_last_item_and_last_points_are_spent_once(
    postgres: PostgresServer, kafka: KafkaServer, tmp_path: Path, fault_report: FaultReport
) -> None:
    """At two instances at once, one racer is served, and the points of all agree with what they got."""
    async with open_guard_scene(postgres, kafka, tmp_path) as scene, _two_instances(scene) as services:
        fault_report.judge(
            await _race_for_the_last_item(scene, services),
            await _race_for_the_last_points(scene, services),
            await scene.judge_payments(),
        )
        assert (await scene.world.store.reward(LAST)).stock == 0


@pytest.mark.parametrize(
    ("guard", "race"),
    [
        pytest.param(
            f"{what}-check", race, marks=pytest.mark.fault("G5", f"without the check of {what}: {RACERS} race")
        )
        for what, race in (("stock", _race_for_the_last_item), ("points", _race_for_the_last_points))
    ],
)
async def test_without_the_check_in_the_update_more_is_sold_than_there_was(
    postgres: PostgresServer, kafka: KafkaServer, tmp_path: Path, fault_report: FaultReport, guard: str, race: Race
) -> None:
    """Whoever reads first and writes then sells the one item, or spends the same points, several times."""
    async with open_guard_scene(postgres, kafka, tmp_path) as scene, _two_instances(scene, guard) as services:
        fault_report.notice(await race(scene, services), Rule.NOTHING_DOUBLED)


@pytest.mark.thorough
@pytest.mark.timeout(900)
@pytest.mark.fault("G5", f"{KILLS} kills of an instance that has just taken the last item")
async def test_twenty_deaths_with_the_last_item_in_hand_sell_each_once(
    postgres: PostgresServer, kafka: KafkaServer, tmp_path: Path, fault_report: FaultReport
) -> None:
    """Before the commit the item goes to another racer, after it it stays where it was; it is never lost or doubled."""
    random = seeded("kill")
    async with open_guard_scene(postgres, kafka, tmp_path) as scene, scene.reward_store() as steady:
        await steady.wait_readiness(200)
        for kill in range(KILLS):
            async with scene.reward_store(**armed(random.choice(["after-insert", "after-commit"]))) as doomed:
                await doomed.wait_readiness(200)

                async def race(number: int, kill: int = kill, doomed: HttpServiceProcess = doomed) -> None:
                    item = f"rw-{kill}-{number}"
                    members = [f"m-{kill}-{number}-{one}" for one in range(RACERS_A_ROUND)]
                    await scene.enrol(*members)
                    await scene.world.put_reward(some_reward(item, points_cost=PRICE, stock=1))
                    calls = (scene.redeem(member, doomed, steady, reward_id=item) for member in members)
                    fault_report.judge(await _judge(scene, await asyncio.gather(*calls), item))

                await work_until_killed(doomed, race)
        fault_report.judge(await scene.judge_payments(), await scene.judge_leftovers())
