"""G15 and G16: a campaign is changed at the version that was seen, and one key creates one campaign."""

import asyncio
from collections.abc import AsyncIterator
from http import HTTPStatus
from pathlib import Path
from typing import Final

import httpx
import pytest

from runtime.mongo_settings import MongoSettings
from tests.support.campaign_api_client import PATH, campaign_body, path_of
from tests.support.campaign_api_process import open_campaign_api
from tests.support.campaign_sample import some_campaign
from tests.support.campaign_world import MongoWorld, open_mongo_world
from tests.support.fault_report import FaultReport
from tests.support.guard_scene import KILLED
from tests.support.judgement import Judgement, Rule
from tests.support.ledger import judge_units
from tests.support.service_process import armed

OPERATORS: Final = 8
LINES: Final = 5
ORDER: Final = campaign_body()
KEY: Final = {"idempotency-key": "key-of-the-order"}
_WRITTEN: Final = "written"


@pytest.fixture
async def world(mongo_settings: MongoSettings) -> AsyncIterator[MongoWorld]:
    """The database that the processes use, too."""
    async with open_mongo_world(mongo_settings) as opened:
        yield opened


async def _write_lines(operator: httpx.AsyncClient, path: str, lines: list[str]) -> None:
    """Add lines to a campaign's description, one at a time, each at the version that was seen."""
    for line in lines:
        while True:
            seen = await operator.get(path)
            description = f"{seen.json()['description']}\n{line}"
            headers = {"if-match": seen.headers["etag"]}
            answer = await operator.patch(path, json={"description": description}, headers=headers)
            if answer.is_success:
                break
            assert answer.status_code == HTTPStatus.PRECONDITION_FAILED, answer.text


async def _race(world: MongoWorld, directory: Path, without: str | None) -> Judgement:
    """Let operators write lines into one description at two instances; hold what they were told against it."""
    campaign = some_campaign()
    await world.put(campaign)
    told = [(f"line-{number}-{line}", _WRITTEN) for number in range(OPERATORS) for line in range(LINES)]
    async with (
        open_campaign_api(world.settings, directory, without=without) as one,
        open_campaign_api(world.settings, directory, without=without) as other,
    ):
        for service in (one, other):
            await service.wait_readiness(200)
        async with one.client("ops-1", "operator") as first, other.client("ops-1", "operator") as second:
            shares = ([line for line, _ in told[number * LINES :][:LINES]] for number in range(OPERATORS))
            await asyncio.gather(
                *(
                    _write_lines((first, second)[number % 2], path_of(campaign), lines)
                    for number, lines in enumerate(shares)
                )
            )
    view = await world.store.find_campaign(campaign.campaign_id)
    assert view is not None
    stored = [(line, _WRITTEN) for line in view["description"].splitlines()[len(campaign.description.splitlines()) :]]
    return judge_units(told, told, stored)


@pytest.mark.fault("G15", f"{OPERATORS} operators add {LINES} lines each to one description at two instances")
async def test_changes_of_racing_operators_are_all_kept(
    world: MongoWorld, tmp_path: Path, fault_report: FaultReport
) -> None:
    """Whoever was overtaken is told so and looks again: every line that was taken is there, once."""
    fault_report.judge(await _race(world, tmp_path, None))


@pytest.mark.fault("G15", "without the version in the update: operators add lines at two instances")
async def test_without_the_version_in_the_update_changes_overwrite_each_other(
    world: MongoWorld, tmp_path: Path, fault_report: FaultReport
) -> None:
    """Lines that were taken are gone: somebody else wrote what they had seen before."""
    fault_report.notice(await _race(world, tmp_path, "version"), Rule.NOTHING_LOST)


async def _order_twice(world: MongoWorld, directory: Path, without: str | None) -> Judgement:
    """Order from an instance that dies when the campaign is there, and again from another; judge what is there."""
    async with (
        open_campaign_api(world.settings, directory, without=without, **armed("after-commit")) as doomed,
        open_campaign_api(world.settings, directory, without=without) as other,
    ):
        await doomed.wait_readiness(200)
        await other.wait_readiness(200)
        async with doomed.client("ops-1", "operator") as operator:
            with pytest.raises(httpx.TransportError):
                await operator.post(PATH, json=ORDER, headers=KEY)
        assert await doomed.process.wait(20) == KILLED
        async with other.client("ops-1", "operator") as operator:
            answers = [await operator.post(PATH, json=ORDER, headers=KEY) for _ in range(2)]
    assert {answer.status_code for answer in answers} == {HTTPStatus.CREATED}
    told = [("the order", answer.json()["campaign_id"]) for answer in answers]
    found = world.database.collection("campaigns").find({}, {"_id": 1})
    return judge_units(told, told, [("the order", one["_id"]) async for one in found])


@pytest.mark.fault("G16", "kill -9 after the commit of a new campaign, the order repeated twice")
async def test_order_that_was_never_answered_is_answered_and_not_done_again(
    world: MongoWorld, tmp_path: Path, fault_report: FaultReport
) -> None:
    """One campaign exists, and both repetitions are told of it."""
    fault_report.judge(await _order_twice(world, tmp_path, None))


@pytest.mark.fault("G16", "without the key: kill -9 after the commit of a new campaign, the order repeated twice")
async def test_without_the_key_a_repetition_creates_another_campaign(
    world: MongoWorld, tmp_path: Path, fault_report: FaultReport
) -> None:
    """Each repetition creates one more."""
    fault_report.notice(await _order_twice(world, tmp_path, "idempotency-key"), Rule.NOTHING_DOUBLED)
