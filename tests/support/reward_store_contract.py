"""What every reward store must do: one test body, run on the fake and on the real one.

A test class inherits `RewardStoreContract` and has a fixture `world`: a store, its outbox, and ways to put things into
them and to look at them that the API does not offer.
"""

import asyncio
from collections.abc import Coroutine, Sequence
from datetime import timedelta
from typing import Any, Protocol
from uuid import UUID

import orjson
import pytest

from loyalty.errors import (
    CouponUsedError,
    InsufficientPointsError,
    LoyaltyError,
    MemberNotFoundError,
    RedemptionNotFoundError,
    RewardNotFoundError,
    SoldOutError,
)
from loyalty.event import CouponEvent, EventType, decode
from loyalty.identifier import new_id
from loyalty.money import Money
from loyalty.reward import Member, Redemption, RedemptionStatus, Reward
from runtime.errors import IdempotencyKeyReusedError, RequestInProgressError
from runtime.stored_answer import IdempotencyKey, StoredAnswer
from services.reward_store.outbox import Backlog, Headers, OutboxRow
from services.reward_store.store import Order

LEASE = timedelta(seconds=60)
HEADERS = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}


class Store(Protocol):
    """What both stores offer."""

    async def rewards(self, limit: int, after: str | None) -> list[Reward]:
        """See `PostgresRewardStore`."""

    async def reward(self, reward_id: str) -> Reward:
        """See `PostgresRewardStore`."""

    async def member(self, member_id: str) -> Member:
        """See `PostgresRewardStore`."""

    async def redeem(self, order: Order) -> StoredAnswer:
        """See `PostgresRewardStore`."""

    async def begin_cancel(self, redemption_id: UUID, member_id: str, lease: timedelta) -> Redemption:
        """See `PostgresRewardStore`."""

    async def finish_cancel(self, redemption_id: UUID, headers: Headers) -> Redemption:
        """See `PostgresRewardStore`."""

    async def refuse_cancel(self, redemption_id: UUID) -> None:
        """See `PostgresRewardStore`."""

    async def put_off_cancel(self, redemption_id: UUID, least: timedelta, most: timedelta) -> None:
        """See `PostgresRewardStore`."""

    async def cancelling(self) -> Backlog:
        """See `PostgresRewardStore`."""

    async def claim_cancellations(self, limit: int, lease: timedelta) -> list[Redemption]:
        """See `PostgresRewardStore`."""

    async def delete_old_keys(self, older_than: timedelta, limit: int) -> int:
        """See `PostgresRewardStore`."""


class World(Protocol):
    """A store and what happens to it from elsewhere."""

    store: Store

    async def put_reward(self, reward: Reward) -> None:
        """Let a reward be there."""

    async def put_member(self, member: Member) -> None:
        """Let a member be there."""

    async def redemptions(self) -> list[Redemption]:
        """Return all redemptions."""

    async def events(self) -> Sequence[OutboxRow]:
        """Return all rows of the outbox, published ones too, oldest first."""

    async def age_keys(self, by: timedelta) -> None:
        """Make every idempotency key older."""

    async def age_leases(self, by: timedelta) -> None:
        """Let all cancellations have begun earlier, and their leases end earlier."""


def some_reward(reward_id: str = "rw-coffee", *, points_cost: int = 100, stock: int = 10) -> Reward:
    """Make a reward."""
    return Reward(reward_id, "A coffee", points_cost, stock, Money(350, "EUR"), 30)


def some_order(
    member_id: str = "m-1", reward_id: str = "rw-coffee", *, key: str = "key-0001", body: bytes = b"body"
) -> Order:
    """Make an order under an idempotency key."""
    return Order(member_id, reward_id, IdempotencyKey(member_id, "POST /v1/redemptions", key, body), HEADERS)


def id_of(answer: StoredAnswer) -> UUID:
    """Return the redemption that an answer tells of."""
    return UUID(orjson.loads(answer.body)["redemption_id"])


def event_of(row: OutboxRow) -> CouponEvent:
    """Read an event as a consumer would."""
    return decode(row.payload, row.key.encode())


async def outcome(call: Coroutine[Any, Any, StoredAnswer]) -> StoredAnswer | type[Exception]:
    """Return what a call gave, or the class of its refusal."""
    try:
        return await call
    except (LoyaltyError, IdempotencyKeyReusedError, RequestInProgressError) as error:
        return type(error)


class RewardStoreContract:
    """The tests."""

    @pytest.fixture(autouse=True)
    async def stocked(self, world: World) -> None:
        """One reward of ten, for 100 points, and a member with 250."""
        await world.put_reward(some_reward())
        await world.put_member(Member("m-1", 250))

    async def test_pages_of_rewards_hold_each_reward_once_in_order(self, world: World) -> None:
        """Going on behind the last one of a page shows every reward once, in the order of their ids."""
        names = [f"rw-{letter}" for letter in "bdae"]
        for name in names:
            await world.put_reward(some_reward(name))
        first = await world.store.rewards(3, None)
        second = await world.store.rewards(3, first[-1].reward_id)
        assert [reward.reward_id for reward in first + second] == sorted([*names, "rw-coffee"])
        assert await world.store.rewards(3, second[-1].reward_id) == []

    async def test_a_reward_is_found_as_it_was_put(self, world: World) -> None:
        """Every field comes back."""
        assert await world.store.reward("rw-coffee") == some_reward()

    async def test_unknown_names_are_not_found(self, world: World) -> None:
        """Reading and redeeming say which thing does not exist."""
        with pytest.raises(RewardNotFoundError):
            await world.store.reward("rw-none")
        with pytest.raises(MemberNotFoundError):
            await world.store.member("m-none")
        with pytest.raises(RewardNotFoundError):
            await world.store.redeem(some_order(reward_id="rw-none"))
        with pytest.raises(MemberNotFoundError):
            await world.store.redeem(some_order("m-none"))
        assert (await world.store.reward("rw-coffee")).stock == 10

    async def test_a_redemption_takes_points_and_stock_and_leaves_an_event(self, world: World) -> None:
        """Points, stock, redemption, event and answer agree with one another."""
        answer = await world.store.redeem(some_order())
        body = orjson.loads(answer.body)
        [redemption] = await world.redemptions()
        [row] = await world.events()
        event = event_of(row)
        assert answer.status == 201
        assert (await world.store.member("m-1")).points == 150
        assert (await world.store.reward("rw-coffee")).stock == 9
        assert body == {
            "redemption_id": str(redemption.redemption_id),
            "member_id": "m-1",
            "reward_id": "rw-coffee",
            "coupon_code": redemption.coupon_code,
            "points_spent": 100,
            "status": "issued",
            "created_at": redemption.created_at.isoformat(),
            "expires_at": (redemption.created_at + timedelta(days=30)).isoformat(),
        }
        assert (event.event_id, event.type, event.occurred_at) == (row.id, EventType.ISSUED, redemption.created_at)
        assert event.coupon == (
            redemption.coupon_code,
            "m-1",
            "rw-coffee",
            redemption.redemption_id,
            350,
            "EUR",
            redemption.created_at,
            redemption.expires_at,
            1,
        )
        assert row.headers == HEADERS

    async def test_the_same_key_and_body_get_the_same_bytes_and_one_effect(self, world: World) -> None:
        """A repetition changes nothing and answers as the first one did."""
        answers = [await world.store.redeem(some_order()) for _ in range(3)]
        assert answers[0] == answers[1] == answers[2]
        assert (await world.store.member("m-1")).points == 150
        assert len(await world.events()) == 1

    async def test_the_same_key_with_another_body_is_refused(self, world: World) -> None:
        """A key belongs to one body for as long as it is kept."""
        await world.store.redeem(some_order())
        with pytest.raises(IdempotencyKeyReusedError):
            await world.store.redeem(some_order(body=b"other"))
        assert (await world.store.member("m-1")).points == 150

    async def test_the_same_key_of_two_members_is_two_keys(self, world: World) -> None:
        """Nobody meets another member's key."""
        await world.put_member(Member("m-2", 100))
        answers = [await world.store.redeem(some_order(member)) for member in ("m-1", "m-2")]
        assert id_of(answers[0]) != id_of(answers[1])

    async def test_too_few_points_are_refused_and_nothing_is_taken(self, world: World) -> None:
        """The stock that was taken first is given back with the refusal, and the key stays free."""
        await world.put_reward(some_reward("rw-dinner", points_cost=251))
        with pytest.raises(InsufficientPointsError):
            await world.store.redeem(some_order(reward_id="rw-dinner"))
        assert (await world.store.reward("rw-dinner")).stock == 10
        assert (await world.store.member("m-1")).points == 250
        assert await world.events() == []
        assert (await world.store.redeem(some_order())).status == 201

    async def test_a_sold_out_reward_is_refused_whatever_the_points(self, world: World) -> None:
        """Sold out is said first, since the member can do nothing about it."""
        await world.put_reward(some_reward("rw-gone", points_cost=1_000, stock=0))
        with pytest.raises(SoldOutError):
            await world.store.redeem(some_order(reward_id="rw-gone"))

    async def test_two_hundred_members_racing_for_the_last_item_get_it_once(self, world: World) -> None:
        """Exactly one gets it, the others are told that it is sold out, and nobody else pays."""
        await world.put_reward(some_reward("rw-last", stock=1))
        members = [f"m-r{number}" for number in range(200)]
        for member in members:
            await world.put_member(Member(member, 100))
        outcomes = await asyncio.gather(
            *(outcome(world.store.redeem(some_order(member, "rw-last"))) for member in members)
        )
        assert sum(isinstance(one, StoredAnswer) for one in outcomes) == 1
        assert sum(one is SoldOutError for one in outcomes) == 199
        assert (await world.store.reward("rw-last")).stock == 0
        points = [(await world.store.member(member)).points for member in members]
        assert sorted(points) == [0, *([100] * 199)]
        assert len(await world.events()) == 1

    async def test_one_member_racing_with_himself_never_spends_more_than_he_has(self, world: World) -> None:
        """Of ten orders for two rewards, under ten keys, as many succeed as the points allow."""
        await world.put_reward(some_reward("rw-tea"))
        orders = [some_order(reward_id=("rw-coffee", "rw-tea")[n % 2], key=f"key-{n:04}") for n in range(10)]
        outcomes = await asyncio.gather(*(outcome(world.store.redeem(order)) for order in orders))
        assert sum(isinstance(one, StoredAnswer) for one in outcomes) == 2
        assert sum(one is InsufficientPointsError for one in outcomes) == 8
        assert (await world.store.member("m-1")).points == 50
        stocks = [(await world.store.reward(name)).stock for name in ("rw-coffee", "rw-tea")]
        assert sum(stocks) == 18

    async def test_twenty_repetitions_at_once_have_one_effect(self, world: World) -> None:
        """All of them get the one answer, or are told that it is being worked out."""
        outcomes = await asyncio.gather(*(outcome(world.store.redeem(some_order())) for _ in range(20)))
        answers = {one.body for one in outcomes if isinstance(one, StoredAnswer)}
        refusals = {one for one in outcomes if not isinstance(one, StoredAnswer)}
        assert len(answers) == 1
        assert refusals <= {RequestInProgressError}
        assert (await world.store.member("m-1")).points == 150

    async def test_a_cancellation_gives_back_what_was_spent_and_leaves_an_event(self, world: World) -> None:
        """Points and stock return, the status is final, and the event bears the coupon's second version."""
        redemption_id = id_of(await world.store.redeem(some_order()))
        begun = await world.store.begin_cancel(redemption_id, "m-1", LEASE)
        assert begun.status is RedemptionStatus.CANCELLING
        assert (await world.store.member("m-1")).points == 150
        finished = await world.store.finish_cancel(redemption_id, HEADERS)
        assert finished.status is RedemptionStatus.CANCELLED
        assert (await world.store.member("m-1")).points == 250
        assert (await world.store.reward("rw-coffee")).stock == 10
        issued, cancelled = [event_of(row) for row in await world.events()]
        assert (cancelled.type, cancelled.coupon.version) == (EventType.CANCELLED, 2)
        assert cancelled.coupon._replace(version=1) == issued.coupon
        assert cancelled.occurred_at == finished.cancelled_at

    async def test_finishing_a_cancellation_again_gives_nothing_more(self, world: World) -> None:
        """However many finish it, at once or later, points and stock return once."""
        redemption_id = id_of(await world.store.redeem(some_order()))
        await world.store.begin_cancel(redemption_id, "m-1", LEASE)
        first, *others = await asyncio.gather(*(world.store.finish_cancel(redemption_id, HEADERS) for _ in range(5)))
        assert all(other == first for other in others)
        assert await world.store.begin_cancel(redemption_id, "m-1", LEASE) == first
        assert (await world.store.member("m-1")).points == 250
        assert (await world.store.reward("rw-coffee")).stock == 10
        assert len(await world.events()) == 2

    async def test_redemptions_and_cancellations_at_once_add_up(self, world: World) -> None:
        """Whoever holds a reward's row first, nobody waits in a circle, and points and stock come out right."""
        members, rewards = [f"m-x{number}" for number in range(4)], ["rw-coffee", "rw-tea"]
        await world.put_reward(some_reward("rw-tea"))
        for member in members:
            await world.put_member(Member(member, 1_000))
        pairs = [(member, reward) for member in members for reward in rewards]
        first = await asyncio.gather(*(world.store.redeem(some_order(*pair, key=f"key-1-{pair[1]}")) for pair in pairs))
        for (member, _), answer in zip(pairs, first, strict=True):
            await world.store.begin_cancel(id_of(answer), member, LEASE)
        await asyncio.gather(
            *(world.store.finish_cancel(id_of(answer), HEADERS) for answer in first),
            *(world.store.redeem(some_order(*pair, key=f"key-2-{pair[1]}")) for pair in pairs),
        )
        assert [(await world.store.member(member)).points for member in members] == [800] * 4
        assert [(await world.store.reward(reward)).stock for reward in rewards] == [6, 6]
        assert len(await world.events()) == 24

    async def test_a_refused_cancellation_leaves_the_redemption_as_it_was(self, world: World) -> None:
        """The coupon was used: nothing returns, no event is left, and finishing says so."""
        redemption_id = id_of(await world.store.redeem(some_order()))
        [before] = await world.redemptions()
        await world.store.begin_cancel(redemption_id, "m-1", LEASE)
        await world.store.refuse_cancel(redemption_id)
        assert await world.redemptions() == [before]
        with pytest.raises(CouponUsedError):
            await world.store.finish_cancel(redemption_id, HEADERS)
        assert (await world.store.member("m-1")).points == 150
        assert len(await world.events()) == 1

    async def test_refusing_a_finished_cancellation_changes_nothing(self, world: World) -> None:
        """What was paid back stays paid back."""
        redemption_id = id_of(await world.store.redeem(some_order()))
        await world.store.begin_cancel(redemption_id, "m-1", LEASE)
        finished = await world.store.finish_cancel(redemption_id, HEADERS)
        await world.store.refuse_cancel(redemption_id)
        assert await world.redemptions() == [finished]

    async def test_another_members_redemption_does_not_exist(self, world: World) -> None:
        """It cannot be cancelled, and neither can one that never was."""
        redemption_id = id_of(await world.store.redeem(some_order()))
        for redemption, member in ((redemption_id, "m-2"), (new_id(), "m-1")):
            with pytest.raises(RedemptionNotFoundError):
                await world.store.begin_cancel(redemption, member, LEASE)
        with pytest.raises(RedemptionNotFoundError):
            await world.store.finish_cancel(new_id(), HEADERS)

    async def test_only_abandoned_cancellations_are_taken_over_and_only_once(self, world: World) -> None:
        """One whose lease still runs is left alone; one that was taken over belongs to whoever took it."""
        redemption_id = id_of(await world.store.redeem(some_order()))
        await world.store.begin_cancel(redemption_id, "m-1", LEASE)
        assert await world.store.claim_cancellations(10, LEASE) == []
        await world.age_leases(LEASE * 2)
        taken = [await world.store.claim_cancellations(10, LEASE) for _ in range(2)]
        assert [[one.redemption_id for one in batch] for batch in taken] == [[redemption_id], []]
        await world.age_leases(LEASE * 2)
        await world.store.finish_cancel(redemption_id, HEADERS)
        assert await world.store.claim_cancellations(10, LEASE) == []

    @pytest.mark.parametrize(
        ("lasted", "wait"), [(timedelta(seconds=1), LEASE), (LEASE * 3, LEASE * 3), (LEASE * 9, LEASE * 4)]
    )
    async def test_one_put_off_waits_as_long_as_it_has_lasted_within_bounds(
        self, world: World, lasted: timedelta, wait: timedelta
    ) -> None:
        """Never shorter than a lease, never longer than the cap; one that has ended is left alone."""
        redemption_id = id_of(await world.store.redeem(some_order()))
        await world.store.begin_cancel(redemption_id, "m-1", LEASE)
        await world.age_leases(lasted)
        await world.store.put_off_cancel(redemption_id, LEASE, LEASE * 4)
        await world.age_leases(wait - timedelta(seconds=5))
        assert await world.store.claim_cancellations(10, LEASE) == []
        await world.age_leases(timedelta(seconds=10))
        assert len(await world.store.claim_cancellations(10, LEASE)) == 1
        finished = await world.store.finish_cancel(redemption_id, HEADERS)
        await world.store.put_off_cancel(redemption_id, LEASE, LEASE * 4)
        assert await world.redemptions() == [finished]

    async def test_unfinished_cancellations_are_counted_with_the_age_of_the_oldest(self, world: World) -> None:
        """Only what is `cancelling` counts, whoever holds it."""
        assert await world.store.cancelling() == Backlog(0, 0.0)
        first, second = [id_of(await world.store.redeem(some_order(key=f"key-000{number}"))) for number in range(2)]
        await world.store.begin_cancel(first, "m-1", LEASE)
        await world.age_leases(timedelta(seconds=100))
        await world.store.begin_cancel(second, "m-1", LEASE)
        counted = await world.store.cancelling()
        assert counted.rows == 2
        assert 100 <= counted.oldest_seconds < 200
        await world.store.refuse_cancel(first)
        await world.store.finish_cancel(second, HEADERS)
        assert await world.store.cancelling() == Backlog(0, 0.0)

    async def test_old_keys_go_in_bounded_steps_and_young_ones_stay(self, world: World) -> None:
        """Each step removes at most its limit; afterwards the key is as if it had never been used."""
        await world.put_member(Member("m-1", 1_000))
        for number in range(3):
            await world.store.redeem(some_order(key=f"key-{number:04}"))
        await world.age_keys(timedelta(days=8))
        young = await world.store.redeem(some_order(key="key-young"))
        week = timedelta(days=7)
        assert [await world.store.delete_old_keys(week, 2) for _ in range(3)] == [2, 1, 0]
        assert await world.store.redeem(some_order(key="key-young")) == young
