"""The real store on a real database: the contract on both drivers, and what only a database can show."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from unittest import mock

import pytest
from pymongo import IndexModel
from pymongo.errors import DuplicateKeyError

from loyalty.campaign import Campaign, CampaignStatus
from loyalty.errors import CampaignInUseError
from loyalty.identifier import new_id
from patterns import background
from runtime.errors import IndexConflictError, RequestInProgressError
from runtime.mongo import Session, open_mongo
from runtime.mongo_settings import MongoSettings
from runtime.stored_answer import IdempotencyKey, StoredAnswer
from sandbox.servers import MongoServer
from sandbox.servers.mongo import open_mongo_nodes
from services.campaign_api import store as store_module
from services.campaign_api.store import (
    CAMPAIGNS,
    INDEXES,
    KEYS,
    CampaignFilter,
    MongoCampaignStore,
    PagePosition,
    TimeSpan,
)
from tests.support.campaign_sample import (
    ACTIVE,
    ALL,
    DAY,
    DRAFT,
    MILLISECOND,
    some_campaign,
    some_campaign_key,
    some_campaign_order,
)
from tests.support.campaign_store_contract import CampaignStoreContract
from tests.support.campaign_world import KEEP_KEYS_SECONDS, MongoWorld, open_mongo_world
from tests.support.eventually import eventually
from tests.support.fake_campaign_store import this_millisecond, view_of_campaign
from tests.support.mongo_settings import open_mongo_database
from tests.support.servers import embedded_only


class TestMongoCampaignStore(CampaignStoreContract):
    """The contract, on MongoDB."""


async def test_key_in_another_s_hands_is_in_progress_until_that_ends(world: MongoWorld) -> None:
    """While a transaction holds the key the order is refused; when it is gone without an answer, the order is done."""

    async def hold(session: Session) -> None:
        key = {"_id": store_module._key_id(some_campaign_key())}
        await world.database.collection(KEYS).insert_one(key, session=session)
        with pytest.raises(RequestInProgressError):
            await world.store.create_campaign(some_campaign_order(), some_campaign_key())
        raise LookupError

    with pytest.raises(LookupError):
        await world.database.transaction(hold)
    assert await world.count() == await world.count_keys() == 0
    assert (await world.store.create_campaign(some_campaign_order(), some_campaign_key())).status == 201


async def test_20_racing_orders_with_one_key_make_one_campaign(world: MongoWorld) -> None:
    """Each racer gets the one answer or is told that the work is under way; one campaign exists in the end."""
    outcomes = await asyncio.gather(
        *(world.store.create_campaign(some_campaign_order(), some_campaign_key()) for _ in range(20)),
        return_exceptions=True,
    )
    answers = {each for each in outcomes if not isinstance(each, BaseException)}
    refusals = {type(each) for each in outcomes if isinstance(each, BaseException)}

    assert len(answers) == 1
    assert refusals <= {RequestInProgressError}
    assert await world.count() == await world.count_keys() == 1


async def test_racing_repetitions_of_a_finished_order_all_get_its_answer(world: MongoWorld) -> None:
    """To look an answer up is no work that others would have to wait for."""
    first = await world.store.create_campaign(some_campaign_order(), some_campaign_key())
    again = await asyncio.gather(
        *(world.store.create_campaign(some_campaign_order(), some_campaign_key()) for _ in range(10))
    )

    assert set(again) == {first}


async def test_order_that_comes_second_by_a_moment_gets_the_first_one_s_answer(world: MongoWorld) -> None:
    """Whoever finds no answer, and then the key taken by one that was finished in between, looks again."""
    other = MongoCampaignStore(world.database, KEEP_KEYS_SECONDS)
    kept_answer, firsts = world.store._kept_answer, list[StoredAnswer]()

    async def look_and_lose(key: IdempotencyKey) -> StoredAnswer | None:
        found = await kept_answer(key)
        if not firsts:
            firsts.append(await other.create_campaign(some_campaign_order(), key))
        return found

    with mock.patch.object(world.store, "_kept_answer", look_and_lose):
        answer = await world.store.create_campaign(some_campaign_order(), some_campaign_key())

    assert [answer] == firsts
    assert await world.count() == 1


async def test_without_its_one_place_a_key_makes_two_campaigns(world: MongoWorld) -> None:
    """The guard is needed: keys that are kept under any id are never found, nor in each other's way."""
    with mock.patch.object(store_module, "_key_id", side_effect=lambda _: str(new_id())):
        answers = [await world.store.create_campaign(some_campaign_order(), some_campaign_key()) for _ in range(2)]

    assert answers[0] != answers[1]
    assert await world.count() == 2


async def test_id_that_is_taken_is_not_written_over(world: MongoWorld) -> None:
    """Should an id ever come twice, the second order fails whole, and the first campaign stays as it is."""
    order = some_campaign_order()
    await world.store.create_campaign(order, some_campaign_key(key="key-1"))
    with pytest.raises(DuplicateKeyError):
        await world.store.create_campaign(order._replace(name="Winter"), some_campaign_key(key="key-2"))
    view = await world.store.find_campaign(order.campaign_id)

    assert view is not None
    assert (view["name"], view["version"]) == ("Summer", 1)
    assert await world.count_keys() == 1


async def test_answer_is_kept_as_long_as_the_setting_says(world: MongoWorld) -> None:
    """The key bears the day of its end, counted from the making of the campaign."""
    order = some_campaign_order()
    await world.store.create_campaign(order, some_campaign_key())
    key = await world.database.collection(KEYS).find_one({})
    view = await world.store.find_campaign(order.campaign_id)

    assert key is not None
    assert view is not None
    assert key["expires_at"] == view["created_at"] + timedelta(seconds=KEEP_KEYS_SECONDS)


@contextmanager
def meeting_after_the_read(store: MongoCampaignStore, parties: int) -> Iterator[None]:
    """Let so many calls each read the campaign before any of them writes."""
    read, barrier = store._read, asyncio.Barrier(parties)

    async def read_and_wait(campaign_id: str) -> tuple[Campaign, datetime]:
        found = await read(campaign_id)
        await barrier.wait()
        return found

    with mock.patch.object(store, "_read", read_and_wait):
        yield


async def test_without_the_version_in_its_filter_a_change_is_lost(world: MongoWorld) -> None:
    """The guard is needed: two operators who saw the same version both get their answer, and one change is gone."""
    campaign = some_campaign()
    await world.put(campaign)
    with (
        mock.patch.object(store_module, "_as_read", lambda campaign: {"_id": campaign.campaign_id}),
        meeting_after_the_read(world.store, 2),
    ):
        views = await asyncio.gather(
            world.store.change_campaign(campaign.campaign_id, {1}, {"name": "Winter"}),
            world.store.change_campaign(campaign.campaign_id, {1}, {"description": "Thrice"}),
        )
    left = await world.store.find_campaign(campaign.campaign_id)

    assert [view["version"] for view in views] == [2, 2]
    assert left is not None
    assert (left["name"], left["description"]) != ("Winter", "Thrice")


@pytest.mark.parametrize("is_guarded", [True, False])
async def test_campaign_that_is_activated_while_it_is_being_deleted(world: MongoWorld, is_guarded: bool) -> None:
    """With the version in its filter the deletion looks again, and is refused; without, a campaign in use is gone."""
    campaign = some_campaign()
    await world.put(campaign)
    other = MongoCampaignStore(world.database, KEEP_KEYS_SECONDS)
    read = world.store._read

    async def read_and_lose(campaign_id: str) -> tuple[Campaign, datetime]:
        found = await read(campaign_id)
        await other.change_campaign(campaign_id, None, {"status": ACTIVE})
        return found

    unguarded = mock.patch.object(store_module, "_as_read", lambda campaign: {"_id": campaign.campaign_id})
    with mock.patch.object(world.store, "_read", read_and_lose):
        if is_guarded:
            with pytest.raises(CampaignInUseError):
                await world.store.delete_campaign(campaign.campaign_id, None)
        else:
            with unguarded:
                await world.store.delete_campaign(campaign.campaign_id, None)

    assert await world.count() == (1 if is_guarded else 0)


async def test_field_of_a_later_release_survives_a_change_and_is_not_shown(world: MongoWorld) -> None:
    """This release runs on the documents of the next, as long as that one only adds to them."""
    campaign = some_campaign()
    await world.put(campaign)
    await world.database.collection(CAMPAIGNS).update_one({}, {"$set": {"budget": {"points": 7}}})
    view = await world.store.change_campaign(campaign.campaign_id, {1}, {"name": "Winter"})
    document = await world.database.collection(CAMPAIGNS).find_one({})

    assert document is not None
    assert document["budget"] == {"points": 7}
    assert await world.store.find_campaign(campaign.campaign_id) == view
    assert set(view) == set(view_of_campaign(campaign))


async def test_indexes_can_be_created_by_many_at_once_and_again(world: MongoWorld) -> None:
    """Five processes that start together, on a database that has them already, change nothing and hear of no error."""
    await asyncio.gather(*(world.store.create_indexes() for _ in range(5)))

    for name, indexes in INDEXES.items():
        there = await world.database.collection(name).index_information()
        assert set(there) == {"_id_", *(index.document["name"] for index in indexes)}


async def test_indexes_are_created_by_many_at_once_on_an_empty_database(any_driver: MongoSettings) -> None:
    """Five processes that start together on a new database all come through."""
    async with open_mongo(background(), any_driver) as database:
        stores = [MongoCampaignStore(database, KEEP_KEYS_SECONDS) for _ in range(5)]
        await asyncio.gather(*(store.create_indexes() for store in stores))

        assert "by_status" in await database.collection(CAMPAIGNS).index_information()


@pytest.mark.parametrize(
    ("name", "index"),
    [
        (CAMPAIGNS, IndexModel([("name", 1)], name="by_start")),
        (CAMPAIGNS, IndexModel([("starts_at", -1), ("_id", -1), ("status", 1), ("ends_at", 1)], name="other")),
        (KEYS, IndexModel([("expires_at", 1)], name="by_expiry", expireAfterSeconds=60)),
    ],
    ids=["other keys", "other name", "other options"],
)
async def test_index_that_is_there_in_another_form_is_named(
    any_driver: MongoSettings, name: str, index: IndexModel
) -> None:
    """An operator learns which collection and which index it is, and nothing is dropped."""
    async with open_mongo(background(), any_driver) as database:
        await database.collection(name).create_indexes([index])
        with pytest.raises(IndexConflictError, match=rf"{name}.*{index.document['name']}"):
            await MongoCampaignStore(database, KEEP_KEYS_SECONDS).create_indexes()

        assert index.document["name"] in await database.collection(name).index_information()


SPAN = TimeSpan(this_millisecond(), this_millisecond() + MILLISECOND)
PUBLIC = frozenset(CampaignStatus) - {DRAFT}


@pytest.mark.parametrize("is_second_page", [False, True], ids=["first page", "second page"])
@pytest.mark.parametrize(
    "wanted",
    [
        ALL,
        CampaignFilter(PUBLIC, None),
        CampaignFilter({ACTIVE}, None),
        CampaignFilter(frozenset(CampaignStatus), SPAN),
        CampaignFilter(PUBLIC, SPAN),
        CampaignFilter({ACTIVE}, SPAN),
    ],
    ids=["all", "public", "active", "all on", "public on", "active on"],
)
async def test_pages_walk_an_index_without_sorting(
    mongo_settings: MongoSettings, wanted: CampaignFilter, is_second_page: bool
) -> None:
    """No page reads more documents than it gives, and those that start when the last one of the page before does.

    That holds however many campaigns there are; nothing is sorted in memory.
    """
    now = this_millisecond()
    async with open_mongo_world(mongo_settings) as world:
        for number in range(200):
            status = list(CampaignStatus)[number % 4]
            await world.put(some_campaign(status, starts=-DAY * number, ends=DAY, now=now))
        after = PagePosition(now - 50 * DAY, "cp-") if is_second_page else None
        query = store_module._filter(wanted, after)
        find = {"find": CAMPAIGNS, "filter": query, "sort": {"starts_at": -1, "_id": -1}, "limit": 10}
        with world.database.call():
            database = world.database.client[world.database.name]
            plan = await database.command("explain", find, verbosity="executionStats")

    assert plan["executionStats"]["nReturned"] == 10
    assert plan["executionStats"]["totalDocsExamined"] <= 10 + is_second_page
    assert "IXSCAN" in stages_of(plan["queryPlanner"]["winningPlan"])
    assert not {"SORT", "COLLSCAN"} & stages_of(plan["queryPlanner"]["winningPlan"])


def stages_of(plan: object) -> set[str]:
    """Return the names of all stages of a plan."""
    if isinstance(plan, dict):
        own = {str(plan["stage"])} if "stage" in plan else set[str]()
        return own.union(*(stages_of(part) for part in plan.values()))
    return set[str]().union(*(stages_of(part) for part in plan)) if isinstance(plan, list) else set()


async def test_read_is_one_round_trip(mongo: MongoServer, world: MongoWorld) -> None:
    """A campaign and the largest page cost the server one operation each, and no second batch."""
    campaigns = [some_campaign(ACTIVE) for _ in range(101)]
    for campaign in campaigns:
        await world.put(campaign)
    async with mongo.connect() as administrator:
        database = administrator[world.database.name]
        await database.command("profile", 2)
        await world.store.find_campaign(campaigns[0].campaign_id)
        assert len(await world.store.list_campaigns(ALL, 101, None)) == 101
        await database.command("profile", 0)
        operations = [each async for each in database["system.profile"].find({"ns": f"{database.name}.{CAMPAIGNS}"})]

    assert [(each["op"], each["nreturned"]) for each in operations] == [("query", 1), ("query", 101)]


@embedded_only
async def test_old_key_goes_by_itself_and_a_young_one_stays() -> None:
    """The database removes a key whose end is past; one whose end is to come still gives its answer."""
    async with (
        open_mongo_nodes(parameters={"ttlMonitorSleepSecs": "1"}) as (server,),
        open_mongo_database(server) as settings,
        open_mongo_world(settings) as world,
    ):
        young, _old = [
            await world.store.create_campaign(some_campaign_order(), some_campaign_key(key=key))
            for key in ("key-young", "key-old")
        ]
        keys = world.database.collection(KEYS)
        await keys.update_one({"_id.key": "key-old"}, {"$set": {"expires_at": this_millisecond() - DAY}})

        await eventually(lambda: _is_gone(world, "key-old"), seconds=30, pause_seconds=0.1)
        again = await world.store.create_campaign(some_campaign_order(), some_campaign_key(key="key-young"))
    assert again == young


async def _is_gone(world: MongoWorld, key: str) -> bool:
    return await world.database.collection(KEYS).find_one({"_id.key": key}) is None
