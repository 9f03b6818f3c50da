"""Spend points on a reward, and give them back: the rules, as pure functions from what is to what will be.

A store applies them in its own way (guarded statements), and the tests hold the two against each other.

    issued ---begin_cancel---> cancelling ---finish_cancel---> cancelled
       ^                            |
       +-------refuse_cancel--------+

`cancelling` is the time in which nobody knows yet whether the coupon was used: see
`docs/decisions/cancelling-across-two-databases.md`.
"""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final
from uuid import UUID

from loyalty.coupon import FIRST_VERSION, Coupon, CouponStatus
from loyalty.errors import InsufficientPointsError, SoldOutError
from loyalty.identifier import is_coupon_code, is_member_id, is_reward_id
from loyalty.money import Money

CANCELLED_VERSION: Final = FIRST_VERSION + 1
MAX_COUPON_DAYS: Final = 3650


@dataclass(frozen=True, slots=True)
class Reward:
    """Something points buy: a coupon of a value, valid for a number of days; `stock` are left.

    Raises:
        ValueError: A name is misspelt or a number is out of its range.
    """

    reward_id: str
    title: str
    points_cost: int
    stock: int
    value: Money
    coupon_days: int

    def __post_init__(self) -> None:
        if not is_reward_id(self.reward_id):
            raise ValueError("reward_id must be in its one spelling")
        if self.points_cost < 1 or self.stock < 0:
            raise ValueError("points_cost must be 1 or more and stock 0 or more")
        if not 1 <= self.coupon_days <= MAX_COUPON_DAYS:
            raise ValueError(f"coupon_days must be from 1 to {MAX_COUPON_DAYS}")


@dataclass(frozen=True, slots=True)
class Member:
    """A member and the points they have.

    Raises:
        ValueError: The name is misspelt or the points are negative.
    """

    member_id: str
    points: int

    def __post_init__(self) -> None:
        if not is_member_id(self.member_id):
            raise ValueError("member_id must be in its one spelling")
        if self.points < 0:
            raise ValueError("points must be 0 or more")


class RedemptionStatus(StrEnum):
    """Where a redemption is in its life."""

    ISSUED = "issued"
    CANCELLING = "cancelling"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True)
class Redemption:
    """A reward that a member took, with what it cost and was worth at that moment.

    Raises:
        ValueError: A name is misspelt, or the status and `cancelled_at` contradict each other.
    """

    redemption_id: UUID
    member_id: str
    reward_id: str
    coupon_code: str
    points_spent: int
    value: Money
    created_at: datetime
    expires_at: datetime
    status: RedemptionStatus = RedemptionStatus.ISSUED
    cancelled_at: datetime | None = None

    def __post_init__(self) -> None:
        if not (is_coupon_code(self.coupon_code) and is_member_id(self.member_id) and is_reward_id(self.reward_id)):
            raise ValueError("coupon_code, member_id and reward_id must be in their one spelling")
        if (self.status is RedemptionStatus.CANCELLED) != (self.cancelled_at is not None):
            raise ValueError("cancelled_at must be there exactly when the status is cancelled")

    def coupon(self) -> Coupon:
        """Return the coupon as its issuer knows it: the second version once a cancellation has begun."""
        is_issued = self.status is RedemptionStatus.ISSUED
        return Coupon(
            code=self.coupon_code,
            member_id=self.member_id,
            reward_id=self.reward_id,
            redemption_id=self.redemption_id,
            value=self.value,
            issued_at=self.created_at,
            expires_at=self.expires_at,
            status=CouponStatus.ISSUED if is_issued else CouponStatus.CANCELLED,
            version=FIRST_VERSION if is_issued else CANCELLED_VERSION,
        )


def redeem(
    member: Member, reward: Reward, now: datetime, *, redemption_id: UUID, coupon_code: str
) -> tuple[Member, Reward, Redemption]:
    """Take the points and one of the stock for a new redemption.

    Stock is looked at first: it is what the member can do nothing about.

    Raises:
        SoldOutError: None is left.
        InsufficientPointsError: The member has fewer points than the reward costs.
    """
    if reward.stock < 1:
        raise SoldOutError
    if member.points < reward.points_cost:
        raise InsufficientPointsError
    redemption = new_redemption(member.member_id, reward, now, redemption_id=redemption_id, coupon_code=coupon_code)
    return (
        replace(member, points=member.points - reward.points_cost),
        replace(reward, stock=reward.stock - 1),
        redemption,
    )


def new_redemption(
    member_id: str, reward: Reward, now: datetime, *, redemption_id: UUID, coupon_code: str
) -> Redemption:
    """Write down what a member gets for a reward whose price is paid."""
    return Redemption(
        redemption_id=redemption_id,
        member_id=member_id,
        reward_id=reward.reward_id,
        coupon_code=coupon_code,
        points_spent=reward.points_cost,
        value=reward.value,
        created_at=now,
        expires_at=now + timedelta(days=reward.coupon_days),
    )


def begin_cancel(redemption: Redemption) -> Redemption:
    """Say that the redemption is to be cancelled; one that is cancelled or being cancelled comes back unchanged."""
    if redemption.status is RedemptionStatus.ISSUED:
        return replace(redemption, status=RedemptionStatus.CANCELLING)
    return redemption


def finish_cancel(
    redemption: Redemption, member: Member, reward: Reward, now: datetime
) -> tuple[Redemption, Member, Reward]:
    """Give points and stock back, once: only the step from `cancelling` to `cancelled` gives anything.

    Points are those that were spent, whatever the reward costs today.
    """
    if redemption.status is not RedemptionStatus.CANCELLING:
        return redemption, member, reward
    return (
        replace(redemption, status=RedemptionStatus.CANCELLED, cancelled_at=now),
        replace(member, points=member.points + redemption.points_spent),
        replace(reward, stock=reward.stock + 1),
    )


def refuse_cancel(redemption: Redemption) -> Redemption:
    """Take a cancellation back because the coupon turned out to be used; a finished one stays finished."""
    if redemption.status is RedemptionStatus.CANCELLING:
        return replace(redemption, status=RedemptionStatus.ISSUED)
    return redemption
