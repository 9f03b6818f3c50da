"""What every campaign store must do: one test body, run on the fake and on the real one.

A test class inherits `CampaignStoreContract` and has a fixture `world`: a store, and a way to put campaigns into it
that the API does not offer.
"""

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import Protocol

import pytest

from loyalty.campaign import Campaign, CampaignChanges, CampaignStatus
from loyalty.errors import (
    CampaignDatesContradictError,
    CampaignDatesFixedError,
    CampaignInUseError,
    CampaignNotFoundError,
    CampaignTransitionError,
    LoyaltyError,
    StaleCampaignError,
)
from loyalty.identifier import new_campaign_id
from runtime.errors import IdempotencyKeyReusedError, TransactionContended
from services.campaign_api.campaign_view import CampaignView, encode
from services.campaign_api.store import CampaignFilter, CampaignStore, PagePosition, TimeSpan
from tests.support.campaign_sample import (
    ACTIVE,
    ALL,
    DAY,
    DRAFT,
    ENDED,
    MILLISECOND,
    PAUSED,
    newest_first,
    pages_of,
    some_campaign,
    some_campaign_key,
    some_campaign_order,
)
from tests.support.fake_campaign_store import this_millisecond, view_of_campaign


class World(Protocol):
    """A store and what happens to it from elsewhere."""

    store: CampaignStore

    async def put(self, campaign: Campaign) -> None:
        """Let a campaign be there, as if it had come from elsewhere."""


class CampaignStoreContract:
    """The tests; each docstring is true of every store."""

    async def test_campaign_that_was_put_is_found_with_every_field(self, world: World) -> None:
        """What comes back is what went in, and nothing more."""
        campaign = some_campaign(PAUSED, version=7)
        await world.put(campaign)

        assert await world.store.find_campaign(campaign.campaign_id) == {
            "campaign_id": campaign.campaign_id,
            "name": "Summer",
            "description": "Twice the points\nfor all",
            "status": "paused",
            "starts_at": campaign.starts_at,
            "ends_at": campaign.ends_at,
            "created_at": campaign.created_at,
            "updated_at": campaign.updated_at,
            "version": 7,
        }

    async def test_unknown_campaign_is_not_found(self, world: World) -> None:
        """An id that nobody made names nothing, for a read as for a write."""
        campaign_id = new_campaign_id()

        assert await world.store.find_campaign(campaign_id) is None
        for versions in ({1}, None):
            with pytest.raises(CampaignNotFoundError):
                await world.store.change_campaign(campaign_id, versions, {"name": "Winter"})
            with pytest.raises(CampaignNotFoundError):
                await world.store.delete_campaign(campaign_id, versions)

    async def test_pages_show_each_campaign_once_newest_start_first(self, world: World) -> None:
        """Seven campaigns, four of one instant, in pages of three: all of them, in order."""
        first = some_campaign()
        same_start = [replace(first, campaign_id=new_campaign_id()) for _ in range(3)]
        campaigns = [first, *same_start, *(some_campaign(starts=-DAY * days) for days in (2, 3, 4))]
        for campaign in campaigns:
            await world.put(campaign)

        pages = await pages_of(world.store, ALL, 3)

        assert [one for page in pages for one in page] == newest_first(*campaigns)
        assert [len(page) for page in pages] == [3, 3, 1]

    async def test_campaigns_that_come_and_go_between_two_pages_shift_nothing(self, world: World) -> None:
        """Neither a newer campaign nor one of the first page that is deleted repeats or hides one on the second."""
        campaigns = [some_campaign(starts=-DAY * days) for days in (1, 2, 3, 4)]
        for campaign in campaigns:
            await world.put(campaign)
        page = await world.store.list_campaigns(ALL, 2, None)
        await world.put(some_campaign(starts=-MILLISECOND))
        await world.store.delete_campaign(campaigns[1].campaign_id, None)
        rest = await world.store.list_campaigns(ALL, 2, PagePosition(page[-1]["starts_at"], page[-1]["campaign_id"]))

        assert [view["campaign_id"] for view in page + rest] == newest_first(*campaigns)

    @pytest.mark.parametrize("statuses", [{ACTIVE}, {DRAFT}, {ACTIVE, PAUSED, ENDED}, set(CampaignStatus)])
    async def test_only_wanted_statuses_are_listed_in_order(self, world: World, statuses: set[CampaignStatus]) -> None:
        """Two campaigns of each status, in pages of two: those of the wanted ones, newest start first."""
        campaigns = [some_campaign(status, starts=-DAY * days) for days in (1, 2) for status in CampaignStatus]
        for campaign in campaigns:
            await world.put(campaign)

        pages = await pages_of(world.store, CampaignFilter(statuses, None), 2)

        wanted = [campaign for campaign in campaigns if campaign.status in statuses]
        assert [one for page in pages for one in page] == newest_first(*wanted)

    async def test_span_meets_campaigns_from_their_start_on_and_before_their_end(self, world: World) -> None:
        """To the millisecond: a span that ends with the start, or begins with the end, does not meet the campaign."""
        campaign = some_campaign(ACTIVE)
        await world.put(campaign)
        begin, end = campaign.starts_at, campaign.ends_at
        spans = {
            TimeSpan(begin - DAY, begin): False,
            TimeSpan(begin - DAY, begin + MILLISECOND): True,
            TimeSpan(begin + MILLISECOND, begin + 2 * MILLISECOND): True,
            TimeSpan(begin - DAY, end + DAY): True,
            TimeSpan(end - MILLISECOND, end + DAY): True,
            TimeSpan(end, end + MILLISECOND): False,
        }
        for span, meets in spans.items():
            found = await world.store.list_campaigns(CampaignFilter({ACTIVE}, span), 10, None)
            assert [view["campaign_id"] for view in found] == [campaign.campaign_id] * meets

    async def test_pages_of_a_span_show_each_of_its_campaigns_once(self, world: World) -> None:
        """Five campaigns meet the span and four do not: in pages of two the five, newest start first."""
        now = this_millisecond()
        inside = [some_campaign(ACTIVE, starts=-DAY * days, ends=DAY, now=now) for days in (1, 1, 2, 3, 4)]
        outside = [some_campaign(ACTIVE, starts=starts, ends=starts + DAY, now=now) for starts in (-3 * DAY, DAY)]
        drafts = [some_campaign(starts=-DAY * days, ends=DAY, now=now) for days in (1, 2)]
        for campaign in [*inside, *outside, *drafts]:
            await world.put(campaign)

        pages = await pages_of(world.store, CampaignFilter({ACTIVE}, TimeSpan(now, now + MILLISECOND)), 2)

        assert [one for page in pages for one in page] == newest_first(*inside)
        assert [len(page) for page in pages] == [2, 2, 1]

    async def test_created_campaign_is_answered_and_found(self, world: World) -> None:
        """The answer is the campaign as it can be read afterwards: a draft at the first version, made now."""
        order = some_campaign_order(description="Twice")
        answer = await world.store.create_campaign(order, some_campaign_key())
        view = await world.store.find_campaign(order.campaign_id)

        assert view is not None
        assert (answer.status, answer.body) == (201, encode(view))
        assert (view["status"], view["version"], view["description"]) == ("draft", 1, "Twice")
        assert (view["starts_at"], view["ends_at"]) == (order.starts_at, order.ends_at)
        assert view["created_at"] == view["updated_at"]
        assert abs(view["created_at"] - this_millisecond()) < timedelta(minutes=10)

    @pytest.mark.parametrize("text", ["$name", "$$NOW", "$where", "a.b", "{'$gt': ''}", "Été 😀 語"])
    async def test_text_is_kept_as_it_is_whatever_a_query_language_makes_of_it(self, world: World, text: str) -> None:
        """Names of fields, variables and operators are plain text, when created and when changed, as a key too."""
        order = some_campaign_order(text, text)
        key = some_campaign_key(subject=text, key=text)
        first = await world.store.create_campaign(order, key)
        again = await world.store.create_campaign(some_campaign_order(text, text), key)
        created = await world.store.find_campaign(order.campaign_id)
        await world.store.change_campaign(order.campaign_id, {1}, {"name": f"{text}!", "description": f"{text}!"})
        changed = await world.store.find_campaign(order.campaign_id)

        assert again == first
        assert created is not None
        assert changed is not None
        assert (created["name"], created["description"]) == (text, text)
        assert (changed["name"], changed["description"]) == (f"{text}!", f"{text}!")

    async def test_same_key_and_body_gives_the_stored_answer_and_no_second_campaign(self, world: World) -> None:
        """A repeated order gets the very bytes of the first answer, and its own id is never used."""
        first = await world.store.create_campaign(some_campaign_order(), some_campaign_key())
        again = some_campaign_order()

        assert await world.store.create_campaign(again, some_campaign_key()) == first
        assert await world.store.find_campaign(again.campaign_id) is None

    async def test_stored_answer_stays_the_first_when_the_campaign_moved_on(self, world: World) -> None:
        """What the key keeps is the answer, not the campaign, which may be changed or gone by then."""
        order = some_campaign_order()
        first = await world.store.create_campaign(order, some_campaign_key())
        await world.store.change_campaign(order.campaign_id, {1}, {"name": "Winter"})
        after_change = await world.store.create_campaign(some_campaign_order(), some_campaign_key())
        await world.store.delete_campaign(order.campaign_id, {2})
        after_delete = await world.store.create_campaign(some_campaign_order(), some_campaign_key())

        assert after_change == after_delete == first

    async def test_same_key_with_another_body_is_refused(self, world: World) -> None:
        """A key stands for one body; the second order leaves nothing behind."""
        await world.store.create_campaign(some_campaign_order(), some_campaign_key())
        other = some_campaign_order()

        with pytest.raises(IdempotencyKeyReusedError):
            await world.store.create_campaign(other, some_campaign_key(body=b"other"))
        assert await world.store.find_campaign(other.campaign_id) is None

    async def test_same_key_of_another_subject_is_another_key(self, world: World) -> None:
        """Two operators who choose the same key do not meet."""
        orders = [some_campaign_order(), some_campaign_order()]
        for order, subject in zip(orders, ("ops-1", "ops-2"), strict=True):
            await world.store.create_campaign(order, some_campaign_key(subject=subject))

        assert all([await world.store.find_campaign(order.campaign_id) for order in orders])

    async def test_changed_campaign_bears_the_next_version_and_a_later_time(self, world: World) -> None:
        """What is read afterwards is what was answered; nothing else of the campaign is another."""
        campaign = some_campaign(version=4)
        await world.put(campaign)
        changes: CampaignChanges = {
            "name": "Winter",
            "description": "",
            "status": ACTIVE,
            "starts_at": campaign.starts_at + DAY / 2,
            "ends_at": campaign.ends_at + DAY,
        }
        view = await world.store.change_campaign(campaign.campaign_id, {4}, changes)

        expected = replace(campaign, **changes, updated_at=view["updated_at"], version=5)
        assert view == view_of_campaign(expected)
        assert abs(view["updated_at"] - this_millisecond()) < timedelta(minutes=10)
        assert await world.store.find_campaign(campaign.campaign_id) == view

    async def test_wish_for_what_is_there_changes_neither_version_nor_time(self, world: World) -> None:
        """Nothing is written where nothing is another, also for whoever takes any version."""
        campaign = some_campaign()
        await world.put(campaign)
        same: list[CampaignChanges] = [{}, {"name": "Summer"}, {"status": DRAFT, "ends_at": campaign.ends_at}]

        for changes in same:
            for versions in ({1}, None):
                view = await world.store.change_campaign(campaign.campaign_id, versions, changes)
                assert view == view_of_campaign(campaign)

    async def test_repeated_change_gets_the_first_one_s_view(self, world: World) -> None:
        """Whoever repeats a change whose answer was lost gets the campaign as it left it: same time and version."""
        campaign = some_campaign()
        await world.put(campaign)
        changes: CampaignChanges = {"name": "Winter", "status": ACTIVE}

        first = await world.store.change_campaign(campaign.campaign_id, {1}, changes)
        assert await world.store.change_campaign(campaign.campaign_id, {1}, changes) == first

    async def test_repeated_change_is_stale_once_the_campaign_moved_on(self, world: World) -> None:
        """Behind somebody else's change nobody can tell whether one's own was made, so it is not made again."""
        campaign = some_campaign()
        await world.put(campaign)
        await world.store.change_campaign(campaign.campaign_id, {1}, {"name": "Winter"})
        moved = await world.store.change_campaign(campaign.campaign_id, {2}, {"description": ""})

        with pytest.raises(StaleCampaignError):
            await world.store.change_campaign(campaign.campaign_id, {1}, {"name": "Winter"})
        assert await world.store.find_campaign(campaign.campaign_id) == moved

    @pytest.mark.parametrize("versions", [{1}, {3}, {1, 3}, set[int]()])
    async def test_version_that_is_not_there_is_stale_and_nothing_happens(
        self, world: World, versions: set[int]
    ) -> None:
        """Neither a change nor a deletion is made in view of another version, be it older or newer."""
        campaign = some_campaign(version=2)
        await world.put(campaign)

        with pytest.raises(StaleCampaignError):
            await world.store.change_campaign(campaign.campaign_id, versions, {"name": "Winter"})
        with pytest.raises(StaleCampaignError):
            await world.store.delete_campaign(campaign.campaign_id, versions)
        assert await world.store.find_campaign(campaign.campaign_id) == view_of_campaign(campaign)

    @pytest.mark.parametrize(
        ("status", "changes", "refusal"),
        [
            (ENDED, {"status": ACTIVE}, CampaignTransitionError),
            (ACTIVE, {"status": DRAFT}, CampaignTransitionError),
            (DRAFT, {"status": PAUSED}, CampaignTransitionError),
            (ACTIVE, {"starts_at": DAY / 2}, CampaignDatesFixedError),
            (ENDED, {"ends_at": 2 * DAY}, CampaignDatesFixedError),
            (DRAFT, {"ends_at": -2 * DAY}, CampaignDatesContradictError),
            (DRAFT, {"name": "Winter", "starts_at": DAY}, CampaignDatesContradictError),
        ],
    )
    async def test_change_against_a_rule_is_refused_and_nothing_happens(
        self, world: World, status: CampaignStatus, changes: dict[str, object], refusal: type[LoyaltyError]
    ) -> None:
        """The rules of `loyalty.campaign` hold in the store, by the clock of the store."""
        campaign = some_campaign(status)
        await world.put(campaign)
        now = campaign.starts_at + DAY
        wish = {name: now + value if isinstance(value, timedelta) else value for name, value in changes.items()}

        with pytest.raises(refusal):
            await world.store.change_campaign(campaign.campaign_id, {1}, wish)  # type: ignore[arg-type]  # one case each
        assert await world.store.find_campaign(campaign.campaign_id) == view_of_campaign(campaign)

    async def test_racing_changes_of_one_version_have_one_winner(self, world: World) -> None:
        """Of twenty operators who saw the same version one changes the campaign; the others are told it is stale."""
        campaign = some_campaign()
        await world.put(campaign)

        outcomes = await asyncio.gather(
            *(world.store.change_campaign(campaign.campaign_id, {1}, {"name": f"Name {n}"}) for n in range(20)),
            return_exceptions=True,
        )
        winners = [outcome for outcome in outcomes if not isinstance(outcome, BaseException)]

        assert len(winners) == 1
        assert {type(outcome) for outcome in outcomes if isinstance(outcome, BaseException)} == {StaleCampaignError}
        assert await world.store.find_campaign(campaign.campaign_id) == winners[0]

    async def test_racing_changes_of_any_version_are_all_made_or_refused(self, world: World) -> None:
        """Ten changes that take any version: the version rose once for each that was made, the last one is there."""
        campaign = some_campaign()
        await world.put(campaign)

        outcomes = await asyncio.gather(
            *(world.store.change_campaign(campaign.campaign_id, None, {"name": f"Name {n}"}) for n in range(10)),
            return_exceptions=True,
        )
        made = [outcome for outcome in outcomes if not isinstance(outcome, BaseException)]
        refused = {type(outcome) for outcome in outcomes if isinstance(outcome, BaseException)}

        assert sorted(view["version"] for view in made) == list(range(2, 2 + len(made)))
        assert refused <= {TransactionContended}
        assert await world.store.find_campaign(campaign.campaign_id) == max(made, key=lambda view: view["version"])

    @pytest.mark.parametrize("status", [DRAFT, ENDED])
    async def test_deleted_campaign_is_gone_and_cannot_be_deleted_again(
        self, world: World, status: CampaignStatus
    ) -> None:
        """After the first call there is none, for whoever reads, lists or deletes."""
        campaign = some_campaign(status, version=3)
        await world.put(campaign)
        await world.store.delete_campaign(campaign.campaign_id, {3})

        assert await world.store.find_campaign(campaign.campaign_id) is None
        assert await world.store.list_campaigns(ALL, 10, None) == []
        with pytest.raises(CampaignNotFoundError):
            await world.store.delete_campaign(campaign.campaign_id, {3})

    @pytest.mark.parametrize("status", [ACTIVE, PAUSED])
    async def test_campaign_in_use_is_not_deleted(self, world: World, status: CampaignStatus) -> None:
        """What members may be looking at stays, whatever version is named."""
        campaign = some_campaign(status)
        await world.put(campaign)
        for versions in ({1}, None):
            with pytest.raises(CampaignInUseError):
                await world.store.delete_campaign(campaign.campaign_id, versions)

        assert await world.store.find_campaign(campaign.campaign_id) == view_of_campaign(campaign)

    async def test_racing_deletions_have_one_winner(self, world: World) -> None:
        """Of twenty calls one deletes the campaign, and the others find none."""
        campaign = some_campaign()
        await world.put(campaign)

        outcomes = await asyncio.gather(
            *(world.store.delete_campaign(campaign.campaign_id, {1}) for _ in range(20)), return_exceptions=True
        )

        assert outcomes.count(None) == 1
        assert {type(outcome) for outcome in outcomes if outcome is not None} == {CampaignNotFoundError}

    async def test_racing_change_and_deletion_have_one_winner(self, world: World) -> None:
        """In each of 30 races the campaign is active and the deletion refused, or gone and the change refused."""
        for _ in range(30):
            campaign = some_campaign()
            await world.put(campaign)
            changed, deleted = await asyncio.gather(
                world.store.change_campaign(campaign.campaign_id, {1}, {"status": ACTIVE}),
                world.store.delete_campaign(campaign.campaign_id, {1}),
                return_exceptions=True,
            )
            view: CampaignView | None = await world.store.find_campaign(campaign.campaign_id)

            if view is None:
                assert (type(changed), deleted) == (CampaignNotFoundError, None)
            else:
                assert (changed, type(deleted), view["status"]) == (view, StaleCampaignError, "active")
