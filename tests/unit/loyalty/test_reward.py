"""The rules of redeeming and cancelling, without a store."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loyalty.coupon import CouponStatus
from loyalty.errors import InsufficientPointsError, SoldOutError
from loyalty.identifier import new_coupon_code, new_id
from loyalty.money import Money
from loyalty.reward import (
    Member,
    Redemption,
    RedemptionStatus,
    Reward,
    begin_cancel,
    finish_cancel,
    redeem,
    refuse_cancel,
)

NOW = datetime(2026, 11, 1, tzinfo=UTC)
REWARD = Reward("rw-tea", "A tea", 100, 3, Money(250, "EUR"), 30)


def redeemed(points: int = 250, reward: Reward = REWARD) -> tuple[Member, Reward, Redemption]:
    """Redeem a reward for a member with so many points."""
    return redeem(Member("m-1", points), reward, NOW, redemption_id=new_id(), coupon_code=new_coupon_code())


def test_redeeming_takes_the_price_and_one_of_the_stock() -> None:
    """Member, reward and redemption agree on what was spent."""
    member, reward, redemption = redeemed()
    assert (member.points, reward.stock, redemption.points_spent) == (150, 2, 100)
    assert redemption.expires_at - redemption.created_at == timedelta(days=30)
    assert redemption.status is RedemptionStatus.ISSUED


def test_the_last_point_and_the_last_item_can_be_spent() -> None:
    """Exactly enough is enough."""
    member, reward, _ = redeemed(100, replace(REWARD, stock=1))
    assert (member.points, reward.stock) == (0, 0)


def test_one_point_too_few_is_refused() -> None:
    """A member who cannot pay gets nothing."""
    with pytest.raises(InsufficientPointsError):
        redeemed(99)


def test_sold_out_is_said_before_too_few_points() -> None:
    """The member learns first what they can do nothing about."""
    with pytest.raises(SoldOutError):
        redeemed(0, replace(REWARD, stock=0))


def test_cancelling_gives_back_what_was_spent_not_what_it_costs_today() -> None:
    """A price that has changed since changes nothing about the refund."""
    member, reward, redemption = redeemed()
    dearer = replace(reward, points_cost=999)
    cancelled, member, reward = finish_cancel(begin_cancel(redemption), member, dearer, NOW)
    assert (member.points, reward.stock) == (250, 3)
    assert (cancelled.status, cancelled.cancelled_at) == (RedemptionStatus.CANCELLED, NOW)


def test_the_coupon_bears_its_second_version_once_cancelling_has_begun() -> None:
    """The issuer's coupon is issued at version 1, and cancelled at version 2 from the first step on."""
    _, _, redemption = redeemed()
    assert (redemption.coupon().version, redemption.coupon().status) == (1, CouponStatus.ISSUED)
    begun = begin_cancel(redemption)
    assert (begun.coupon().version, begun.coupon().status) == (2, CouponStatus.CANCELLED)


@given(st.lists(st.sampled_from(["begin", "finish", "refuse"]), max_size=30))
def test_any_order_of_steps_gives_back_at_most_once(steps: list[str]) -> None:
    """Points and stock are back exactly when the redemption is cancelled, and cancelled is final."""
    member, reward, redemption = redeemed()
    was_cancelled = False
    for step in steps:
        if step == "begin":
            redemption = begin_cancel(redemption)
        elif step == "refuse":
            redemption = refuse_cancel(redemption)
        else:
            redemption, member, reward = finish_cancel(redemption, member, reward, NOW)
        is_cancelled = redemption.status is RedemptionStatus.CANCELLED
        assert is_cancelled or not was_cancelled
        assert (member.points, reward.stock) == ((250, 3) if is_cancelled else (150, 2))
        was_cancelled = is_cancelled


@pytest.mark.parametrize(
    "change",
    [
        {"reward_id": "tea"},
        {"points_cost": 0},
        {"stock": -1},
        {"coupon_days": 0},
        {"coupon_days": 3651},
    ],
)
def test_a_reward_that_cannot_be_is_refused(change: dict[str, object]) -> None:
    """Names and numbers outside their rules never become a reward."""
    with pytest.raises(ValueError, match=r"must be"):
        replace(REWARD, **change)  # type: ignore[arg-type]  # one change at a time, each of its own type


def test_a_member_or_redemption_that_cannot_be_is_refused() -> None:
    """Negative points, a misspelt code and a status without its time never become values."""
    with pytest.raises(ValueError, match="points"):
        Member("m-1", -1)
    with pytest.raises(ValueError, match="member_id"):
        Member("M-1", 1)
    _, _, redemption = redeemed()
    with pytest.raises(ValueError, match="coupon_code"):
        replace(redemption, coupon_code="abc")
    with pytest.raises(ValueError, match="cancelled_at"):
        replace(redemption, status=RedemptionStatus.CANCELLED)
