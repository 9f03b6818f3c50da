"""The shapes on the wire: what a body must be, and what the answers are declared to be.

Answers come from our own database and are written as they are (`representation`), so the answers' classes check nothing
at run time: they are the OpenAPI document's, and a test holds real answers against them.
"""

from typing import Annotated

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints

from loyalty.event import TIME_PATTERN, UUID_PATTERN
from loyalty.identifier import CouponCode, MemberId, RewardId
from loyalty.money import Cents, Currency
from loyalty.reward import MAX_COUPON_DAYS, RedemptionStatus
from runtime.json_body import Body

RedemptionId = Annotated[str, StringConstraints(strict=True, pattern=UUID_PATTERN)]
Timestamp = Annotated[AwareDatetime, Field(json_schema_extra={"pattern": TIME_PATTERN})]
Whole = Annotated[int, Field(strict=True, ge=0)]
Positive = Annotated[int, Field(strict=True, ge=1)]


class RedeemBody(Body):
    """The reward that the calling member wants."""

    reward_id: RewardId


class RewardAnswer(BaseModel):
    """A reward: what it costs in points, what its coupon is worth and for how many days, and how many are left."""

    model_config = ConfigDict(extra="forbid", title="Reward")

    reward_id: RewardId
    title: str
    points_cost: Positive
    stock: Whole
    value_cents: Cents
    currency: Currency
    coupon_days: Annotated[int, Field(strict=True, ge=1, le=MAX_COUPON_DAYS)]


class RewardPageAnswer(BaseModel):
    """Some of the rewards, in the order of their ids; `next_cursor` leads to the rest and is null at the end."""

    model_config = ConfigDict(extra="forbid", title="RewardPage")

    items: list[RewardAnswer]
    next_cursor: str | None


class MemberAnswer(BaseModel):
    """A member and the points they have."""

    model_config = ConfigDict(extra="forbid", title="Member")

    member_id: MemberId
    points: Whole


class RedemptionAnswer(BaseModel):
    """A redemption. `cancelling`: nobody knows yet whether its coupon was used before it could be cancelled."""

    model_config = ConfigDict(extra="forbid", title="Redemption")

    redemption_id: RedemptionId
    member_id: MemberId
    reward_id: RewardId
    coupon_code: CouponCode
    points_spent: Positive
    status: RedemptionStatus
    created_at: Timestamp
    expires_at: Timestamp
