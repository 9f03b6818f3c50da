"""What every coupon store must do: one test body, run on the fake and on the real one.

A test class inherits `CouponStoreContract` and has a fixture `world`: a store, and ways to put things into it that the
API does not offer.
"""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Protocol
from uuid import UUID

import orjson
import pytest

from loyalty.coupon import Coupon, CouponStatus
from loyalty.errors import (
    CouponCancelledError,
    CouponExpiredError,
    CouponMismatchError,
    CouponNotFoundError,
    CouponUsedError,
    ExpiryInPastError,
    LoyaltyError,
)
from loyalty.identifier import new_coupon_code, new_id
from loyalty.money import Money
from runtime.errors import IdempotencyKeyReusedError
from runtime.stored_answer import IdempotencyKey
from services.coupon_api.coupon_view import CouponView
from services.coupon_api.store import CouponStore, IssueOrder, PagePosition

SECOND = timedelta(seconds=1)
DAY = timedelta(days=1)


class World(Protocol):
    """A store and what happens to it from elsewhere."""

    store: CouponStore

    async def put(self, coupon: Coupon) -> None:
        """Let a coupon be there, as if it had come from elsewhere."""

    async def age_keys(self, by: timedelta) -> None:
        """Make every idempotency key older."""


def some_coupon(  # one keyword for each field a test may care about
    *,
    member_id: str = "m-1",
    issued: timedelta = -DAY,
    expires: timedelta = DAY,
    redemption_id: UUID | None = None,
) -> Coupon:
    """Make a coupon of a member, issued and expiring at distances from now."""
    now = datetime.now(UTC)
    return Coupon(
        code=new_coupon_code(),
        member_id=member_id,
        reward_id="rw-1",
        redemption_id=redemption_id or new_id(),
        value=Money(500, "EUR"),
        issued_at=now + issued,
        expires_at=now + expires,
    )


def some_order(expires: timedelta = DAY) -> IssueOrder:
    """Make an order for a coupon."""
    return IssueOrder(new_coupon_code(), "m-1", "rw-1", Money(500, "EUR"), datetime.now(UTC) + expires)


def some_key(subject: str = "ops", key: str = "key-0001", body: bytes = b"body") -> IdempotencyKey:
    """Make an idempotency key."""
    return IdempotencyKey(subject, "POST /v1/coupons", key, body)


async def outcome(call: "asyncio.Future[CouponView] | asyncio.Task[CouponView]") -> CouponView | type[LoyaltyError]:
    """Return what a call gave, or the class of its refusal."""
    try:
        return await call
    except LoyaltyError as error:
        return type(error)


class CouponStoreContract:
    """The tests; each docstring is true of every store."""

    async def test_coupon_that_was_put_is_found_with_every_field(self, world: World) -> None:
        """What comes back is what went in, and nothing more."""
        coupon = some_coupon()
        await world.put(coupon)

        assert await world.store.find_coupon(coupon.code) == {
            "code": coupon.code,
            "member_id": "m-1",
            "reward_id": "rw-1",
            "redemption_id": str(coupon.redemption_id),
            "value_cents": 500,
            "currency": "EUR",
            "issued_at": coupon.issued_at,
            "expires_at": coupon.expires_at,
            "status": "issued",
            "redeemed_at": None,
            "version": 1,
        }

    async def test_unknown_coupon_is_not_found(self, world: World) -> None:
        """A code that nobody drew names nothing."""
        assert await world.store.find_coupon(new_coupon_code()) is None

    async def test_coupon_past_its_time_is_shown_as_expired(self, world: World) -> None:
        """Time alone makes it true, no job has run."""
        coupon = some_coupon(expires=-SECOND)
        await world.put(coupon)
        view = await world.store.find_coupon(coupon.code)

        assert view is not None
        assert view["status"] == "expired"

    async def test_pages_show_each_of_a_member_s_coupons_once_newest_first(self, world: World) -> None:
        """Seven coupons, four of one instant, in pages of three: all of them, in order, and nobody else's."""
        first = some_coupon()
        mine = [first, *(replace(first, code=new_coupon_code()) for _ in range(3))]
        mine += [some_coupon(issued=-DAY * days) for days in (2, 3, 4)]
        for coupon in [*mine, some_coupon(member_id="m-2")]:
            await world.put(coupon)

        seen: list[CouponView] = []
        sizes: list[int] = []
        after: PagePosition | None = None
        while page := await world.store.list_coupons("m-1", 3, after):
            sizes.append(len(page))
            seen += page
            after = PagePosition(page[-1]["issued_at"], page[-1]["code"])

        expected = sorted(mine, key=lambda coupon: (coupon.issued_at, coupon.code), reverse=True)
        assert [view["code"] for view in seen] == [coupon.code for coupon in expected]
        assert sizes == [3, 3, 1]

    async def test_coupon_that_appears_between_two_pages_shifts_nothing(self, world: World) -> None:
        """A newer coupon neither repeats one of the first page on the second nor hides one."""
        coupons = [some_coupon(issued=-DAY * days) for days in (1, 2, 3, 4)]
        for coupon in coupons:
            await world.put(coupon)
        page = await world.store.list_coupons("m-1", 2, None)
        await world.put(some_coupon(issued=-SECOND))
        rest = await world.store.list_coupons("m-1", 2, PagePosition(page[-1]["issued_at"], page[-1]["code"]))

        assert [view["code"] for view in page + rest] == [coupon.code for coupon in coupons]

    async def test_issued_coupon_is_answered_and_found(self, world: World) -> None:
        """The answer is the coupon as it can be read afterwards; it has no redemption."""
        order = some_order()
        answer = await world.store.issue_coupon(order, some_key())
        view = await world.store.find_coupon(order.code)

        assert view is not None
        assert answer.status == 201
        assert answer.body == orjson.dumps(view)
        assert (view["status"], view["version"], view["redemption_id"]) == ("issued", 1, None)
        assert view["expires_at"] == order.expires_at

    async def test_same_key_and_body_gives_the_stored_answer_and_no_second_coupon(self, world: World) -> None:
        """A repeated order gets the very bytes of the first answer, and its own code is never used."""
        first = await world.store.issue_coupon(some_order(), some_key())
        again = some_order()

        assert await world.store.issue_coupon(again, some_key()) == first
        assert await world.store.find_coupon(again.code) is None

    async def test_same_key_with_another_body_is_refused(self, world: World) -> None:
        """A key stands for one body; the second order leaves nothing behind."""
        await world.store.issue_coupon(some_order(), some_key())
        other = some_order()

        with pytest.raises(IdempotencyKeyReusedError):
            await world.store.issue_coupon(other, some_key(body=b"other"))
        assert await world.store.find_coupon(other.code) is None

    async def test_same_key_of_another_subject_is_another_key(self, world: World) -> None:
        """Two operators who choose the same key do not meet."""
        orders = [some_order(), some_order()]
        for order, subject in zip(orders, ("ops-1", "ops-2"), strict=True):
            await world.store.issue_coupon(order, some_key(subject=subject))

        assert all([await world.store.find_coupon(order.code) for order in orders])

    async def test_order_that_ends_in_the_past_is_refused_and_leaves_its_key_unused(self, world: World) -> None:
        """A refusal is not kept: the same key serves the corrected order."""
        with pytest.raises(ExpiryInPastError):
            await world.store.issue_coupon(some_order(expires=-SECOND), some_key(body=b"wrong"))

        assert (await world.store.issue_coupon(some_order(), some_key(body=b"right"))).status == 201

    async def test_redeemed_coupon_bears_its_time_and_the_next_version(self, world: World) -> None:
        """Redeeming changes status, time and version, and what is read afterwards is what was answered."""
        coupon = some_coupon()
        await world.put(coupon)
        view = await world.store.redeem_coupon(coupon.code, "m-1")

        assert (view["status"], view["version"]) == ("redeemed", 2)
        assert view["redeemed_at"] is not None
        assert abs(view["redeemed_at"] - datetime.now(UTC)) < 600 * SECOND
        assert await world.store.find_coupon(coupon.code) == view

    async def test_redeeming_again_gives_the_same_answer(self, world: World) -> None:
        """A repeated call gets the first one's view: same time, same version."""
        coupon = some_coupon()
        await world.put(coupon)

        first = await world.store.redeem_coupon(coupon.code, "m-1")
        assert await world.store.redeem_coupon(coupon.code, "m-1") == first

    async def test_200_racing_calls_redeem_once(self, world: World) -> None:
        """All callers get the same view, and the version rose once."""
        coupon = some_coupon()
        await world.put(coupon)

        views = await asyncio.gather(*(world.store.redeem_coupon(coupon.code, "m-1") for _ in range(200)))

        assert all(view == views[0] for view in views)
        assert views[0]["version"] == 2

    async def test_redeeming_another_member_s_coupon_finds_nothing(self, world: World) -> None:
        """A stranger's call is answered as for a coupon that does not exist, in any state, and changes nothing."""
        coupon = some_coupon()
        await world.put(coupon)
        for code in (coupon.code, new_coupon_code()):
            with pytest.raises(CouponNotFoundError):
                await world.store.redeem_coupon(code, "m-2")
        view = await world.store.redeem_coupon(coupon.code, "m-1")
        with pytest.raises(CouponNotFoundError):
            await world.store.redeem_coupon(coupon.code, "m-2")

        assert view["version"] == 2

    async def test_redeeming_an_expired_coupon_is_refused(self, world: World) -> None:
        """Its time is over, and it stays as it was."""
        coupon = some_coupon(expires=-SECOND)
        await world.put(coupon)
        with pytest.raises(CouponExpiredError):
            await world.store.redeem_coupon(coupon.code, "m-1")

        view = await world.store.find_coupon(coupon.code)
        assert view is not None
        assert view["version"] == 1

    async def test_redeeming_a_cancelled_coupon_is_refused(self, world: World) -> None:
        """What was given back cannot be spent."""
        coupon = some_coupon()
        await world.put(coupon)
        await world.store.cancel_coupon(replace(coupon, version=2))

        with pytest.raises(CouponCancelledError):
            await world.store.redeem_coupon(coupon.code, "m-1")

    async def test_cancelled_coupon_bears_the_order_s_version(self, world: World) -> None:
        """Cancelling changes status and version, and what is read afterwards is what was answered."""
        coupon = some_coupon()
        await world.put(coupon)
        view = await world.store.cancel_coupon(replace(coupon, version=2))

        assert (view["status"], view["version"], view["redeemed_at"]) == ("cancelled", 2, None)
        assert await world.store.find_coupon(coupon.code) == view

    async def test_cancelling_again_gives_the_same_answer(self, world: World) -> None:
        """A repeated order gets the first one's view, whatever version it names."""
        coupon = some_coupon()
        await world.put(coupon)

        first = await world.store.cancel_coupon(replace(coupon, version=2))
        assert await world.store.cancel_coupon(replace(coupon, version=7)) == first

    async def test_cancelling_with_an_old_version_still_raises_the_version(self, world: World) -> None:
        """The version of a change is never that of the state before it."""
        coupon = replace(some_coupon(), version=5)
        await world.put(coupon)

        assert (await world.store.cancel_coupon(replace(coupon, version=2)))["version"] == 6

    async def test_cancelling_an_expired_coupon_is_done(self, world: World) -> None:
        """Time over is no reason to keep a member's points."""
        coupon = some_coupon(expires=-SECOND)
        await world.put(coupon)

        assert (await world.store.cancel_coupon(replace(coupon, version=2)))["status"] == "cancelled"

    async def test_cancelling_a_redeemed_coupon_is_refused(self, world: World) -> None:
        """What was spent stays spent."""
        coupon = some_coupon()
        await world.put(coupon)
        view = await world.store.redeem_coupon(coupon.code, "m-1")
        with pytest.raises(CouponUsedError):
            await world.store.cancel_coupon(replace(coupon, version=2))

        assert await world.store.find_coupon(coupon.code) == view

    async def test_cancelling_a_coupon_that_has_not_arrived_leaves_a_cancelled_one(self, world: World) -> None:
        """It is inserted at the order's version with the order's content, and cannot be redeemed."""
        coupon = some_coupon()
        view = await world.store.cancel_coupon(replace(coupon, version=2))

        assert (view["status"], view["version"], view["member_id"]) == ("cancelled", 2, "m-1")
        assert view["redemption_id"] == str(coupon.redemption_id)
        with pytest.raises(CouponCancelledError):
            await world.store.redeem_coupon(coupon.code, "m-1")

    @pytest.mark.parametrize(
        "lie",
        [
            {"member_id": "m-2"},
            {"reward_id": "rw-2"},
            {"value": Money(501, "EUR")},
            {"value": Money(500, "USD")},
            {"redemption_id": None},
            {"redemption_id": UUID(int=1)},
        ],
    )
    @pytest.mark.parametrize("state", CouponStatus)
    async def test_order_for_another_coupon_under_the_same_code_is_refused(
        self, world: World, state: CouponStatus, lie: dict[str, object]
    ) -> None:
        """An order that contradicts the coupon in any field of its identity changes nothing, in any state."""
        coupon = some_coupon(expires=-SECOND if state is CouponStatus.EXPIRED else DAY)
        await world.put(coupon)
        if state is CouponStatus.REDEEMED:
            await world.store.redeem_coupon(coupon.code, "m-1")
        elif state is CouponStatus.CANCELLED:
            await world.store.cancel_coupon(coupon)
        before = await world.store.find_coupon(coupon.code)

        with pytest.raises(CouponMismatchError):
            await world.store.cancel_coupon(replace(coupon, version=9, **lie))  # type: ignore[arg-type]  # one field
        assert await world.store.find_coupon(coupon.code) == before

    async def test_racing_redeem_and_cancel_have_one_winner(self, world: World) -> None:
        """In each of 50 races either the coupon is spent and the cancel refused, or the other way round."""
        for _ in range(50):
            coupon = some_coupon()
            await world.put(coupon)
            redeeming = asyncio.ensure_future(world.store.redeem_coupon(coupon.code, "m-1"))
            cancelling = asyncio.ensure_future(world.store.cancel_coupon(replace(coupon, version=2)))
            redeemed, cancelled = await outcome(redeeming), await outcome(cancelling)
            view = await world.store.find_coupon(coupon.code)

            assert view is not None
            assert view["version"] == 2
            if view["status"] == "redeemed":
                assert (redeemed, cancelled) == (view, CouponUsedError)
            else:
                assert (redeemed, cancelled) == (CouponCancelledError, view)

    async def test_old_keys_are_removed_up_to_the_limit_and_young_ones_kept(self, world: World) -> None:
        """Three old keys go in runs of two; a key that is younger stays and still gives its answer."""
        for number in range(3):
            await world.store.issue_coupon(some_order(), some_key(key=f"old-{number}"))
        await world.age_keys(8 * DAY)
        young = await world.store.issue_coupon(some_order(), some_key(key="young"))

        assert [await world.store.delete_old_keys(7 * DAY, 2) for _ in range(3)] == [2, 1, 0]
        assert await world.store.issue_coupon(some_order(), some_key(key="young")) == young
