"""Make rewards and redemptions of what the database returns."""

from datetime import datetime
from uuid import UUID

from loyalty.errors import InsufficientPointsError, MemberNotFoundError, RewardNotFoundError, SoldOutError
from loyalty.money import Money
from loyalty.reward import Redemption, RedemptionStatus, Reward
from runtime.postgres import Row


def taken_of(row: Row | None) -> tuple[Reward, datetime]:
    """Return the reward that was paid for and when, or say why it was not."""
    if row is None or not row["is_reward"]:
        raise RewardNotFoundError
    if not row["is_member"]:
        raise MemberNotFoundError
    if row["reward_id"] is None:
        raise SoldOutError
    if row["points"] is None:
        raise InsufficientPointsError
    return reward_of(row), row["taken_at"]


def reward_of(row: Row) -> Reward:
    """Return a reward from its columns."""
    return Reward(
        row["reward_id"],
        row["title"],
        row["points_cost"],
        row["stock"],
        Money(row["value_cents"], row["currency"]),
        row["coupon_days"],
    )


def redemption_of(row: Row) -> Redemption:
    """Return a redemption from its columns."""
    return Redemption(
        redemption_id=UUID(int=row["redemption_id"].int),  # not the driver's own UUID class, which no encoder knows
        member_id=row["member_id"],
        reward_id=row["reward_id"],
        coupon_code=row["coupon_code"],
        points_spent=row["points_spent"],
        value=Money(row["value_cents"], row["currency"]),
        created_at=row["created_at"],
        expires_at=row["expires_at"],
        status=RedemptionStatus(row["status"]),
        cancelled_at=row["cancelled_at"],
    )
