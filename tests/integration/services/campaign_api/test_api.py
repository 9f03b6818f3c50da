"""The API on the real store: what only a database can show."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from tests.support.campaign_api_client import KEY, PATH, SECRET, Api, campaign_body, check_answers, match, path_of
from tests.support.campaign_sample import ACTIVE, ENDED, some_campaign
from tests.support.campaign_world import MongoWorld


@pytest.fixture
def api(world: MongoWorld, tmp_path: Path) -> Api:
    """The API on an empty database."""
    secret_file = tmp_path / "secret"
    secret_file.write_text(SECRET)
    return Api(world.store, secret_file)


@pytest.fixture
async def member(api: Api) -> AsyncIterator[httpx.AsyncClient]:
    """The member m-1."""
    async with api.client("m-1", "member") as client:
        yield client


@pytest.fixture
async def operator(api: Api) -> AsyncIterator[httpx.AsyncClient]:
    """An operator."""
    async with api.client("ops-1", "operator") as client:
        yield client


async def test_answers_from_the_database_are_as_the_document_declares_them(
    world: MongoWorld, member: httpx.AsyncClient, operator: httpx.AsyncClient
) -> None:
    """Nothing validates an answer at run time, so this does: each kind of success fits its declared schema."""
    campaign = some_campaign()
    for one in (campaign, some_campaign(ACTIVE), some_campaign(ENDED)):
        await world.put(one)

    await check_answers(member, operator, campaign)


async def test_written_campaign_is_read_back_in_the_same_bytes(operator: httpx.AsyncClient) -> None:
    """What POST and PATCH answered is what GET answers, with the same ETag; a client that has it gets 304."""
    created = await operator.post(PATH, json=campaign_body(), headers=KEY)
    path = created.headers["location"]
    read = await operator.get(path)
    changed = await operator.patch(path, json={"status": "active"}, headers={"if-match": read.headers["etag"]})
    read_again = await operator.get(path)
    unchanged = await operator.get(path, headers={"if-none-match": changed.headers["etag"]})

    assert (read.content, read.headers["etag"]) == (created.content, created.headers["etag"])
    assert (read_again.content, read_again.headers["etag"]) == (changed.content, changed.headers["etag"])
    assert (unchanged.status_code, unchanged.content) == (304, b"")


async def test_racing_orders_with_one_key_create_once(world: MongoWorld, operator: httpx.AsyncClient) -> None:
    """Each racer gets the one answer, or 409 while the work is under way; nobody gets a campaign of their own."""
    body = campaign_body()
    answers = await asyncio.gather(*(operator.post(PATH, json=body, headers=KEY) for _ in range(30)))
    contents = {answer.content for answer in answers if answer.status_code == 201}
    codes = {answer.json()["code"] for answer in answers if answer.status_code != 201}

    assert len(contents) == 1
    assert codes <= {"request-in-progress"}
    assert await world.count() == 1


async def test_racing_changes_with_one_etag_have_one_winner(world: MongoWorld, operator: httpx.AsyncClient) -> None:
    """Of thirty operators who saw the same version one changes it, the others are told that it was changed."""
    campaign = some_campaign(version=4)
    await world.put(campaign)
    answers = await asyncio.gather(
        *(operator.patch(path_of(campaign), json={"name": f"Name {n}"}, headers=match(4)) for n in range(30))
    )

    assert Counter(answer.status_code for answer in answers) == {200: 1, 412: 29}
    view = await world.store.find_campaign(campaign.campaign_id)
    assert view is not None
    assert view["version"] == 5


async def test_cursor_goes_on_where_the_page_ended(world: MongoWorld, member: httpx.AsyncClient) -> None:
    """Five campaigns of one instant in pages of two, through real cursors: each once."""
    now = some_campaign().starts_at
    campaigns = [some_campaign(ACTIVE, now=now) for _ in range(5)]
    for campaign in campaigns:
        await world.put(campaign)
    seen: list[str] = []
    params: dict[str, str | int] = {"limit": 2, "status": "active"}
    while True:
        page = (await member.get(PATH, params=params)).json()
        seen += [item["campaign_id"] for item in page["items"]]
        if page["next_cursor"] is None:
            break
        params["cursor"] = page["next_cursor"]

    assert sorted(seen) == sorted(campaign.campaign_id for campaign in campaigns)
