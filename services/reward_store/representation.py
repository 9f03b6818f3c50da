"""Write the business's objects as others read them: JSON bodies over HTTP, and events for the topic.

Bodies are encoded by hand: what comes from our own database was checked when it went in, and a second check would cost
more than the query. The schemas stand beside, and a test holds real answers against them.
"""

from collections.abc import Sequence
from typing import Any, Final
from uuid import UUID

import orjson

from loyalty.event import CouponEvent, CouponSnapshot, EventType, encode
from loyalty.identifier import COUPON_CODE_PATTERN, MEMBER_ID_PATTERN, REWARD_ID_PATTERN
from loyalty.money import CURRENCY_PATTERN
from loyalty.reward import Member, Redemption, RedemptionStatus, Reward
from runtime.pages import encode_cursor

Schema = dict[str, Any]  # Any: JSON Schema nests as it likes


def reward_body(reward: Reward) -> bytes:
    """Write one reward."""
    return orjson.dumps(_reward(reward))


def rewards_body(rewards: Sequence[Reward], *, has_more: bool) -> bytes:
    """Write a page of rewards, and where the next one begins when there is one."""
    cursor = encode_cursor([rewards[-1].reward_id]) if has_more else None
    return orjson.dumps({"items": [_reward(reward) for reward in rewards], "next_cursor": cursor})


def member_body(member: Member) -> bytes:
    """Write a member and their points."""
    return orjson.dumps({"member_id": member.member_id, "points": member.points})


def redemption_body(redemption: Redemption) -> bytes:
    """Write a redemption as its member sees it, coupon code included."""
    return orjson.dumps(
        {
            "redemption_id": redemption.redemption_id,
            "member_id": redemption.member_id,
            "reward_id": redemption.reward_id,
            "coupon_code": redemption.coupon_code,
            "points_spent": redemption.points_spent,
            "status": redemption.status,
            "created_at": redemption.created_at,
            "expires_at": redemption.expires_at,
        }
    )


def event_payload(redemption: Redemption, event_id: UUID) -> bytes:
    """Write the event that the redemption's present state is worth: issued, or cancelled."""
    coupon = redemption.coupon()
    snapshot = CouponSnapshot(
        code=coupon.code,
        member_id=coupon.member_id,
        reward_id=coupon.reward_id,
        redemption_id=coupon.redemption_id,
        value_cents=coupon.value.cents,
        currency=coupon.value.currency,
        issued_at=coupon.issued_at,
        expires_at=coupon.expires_at,
        version=coupon.version,
    )
    if redemption.cancelled_at is None:
        return encode(CouponEvent(event_id, EventType.ISSUED, redemption.created_at, snapshot))
    return encode(CouponEvent(event_id, EventType.CANCELLED, redemption.cancelled_at, snapshot))


def _reward(reward: Reward) -> dict[str, object]:
    return {
        "reward_id": reward.reward_id,
        "title": reward.title,
        "points_cost": reward.points_cost,
        "stock": reward.stock,
        "value_cents": reward.value.cents,
        "currency": reward.value.currency,
        "coupon_days": reward.coupon_days,
    }


def _object(properties: dict[str, Schema]) -> Schema:
    return {
        "type": "object",
        "required": list(properties),
        "properties": properties,
        "additionalProperties": False,
    }


_TIME: Final[Schema] = {"type": "string", "format": "date-time"}
_WHOLE: Final[Schema] = {"type": "integer", "minimum": 0}

REWARD_SCHEMA: Final = _object(
    {
        "reward_id": {"type": "string", "pattern": REWARD_ID_PATTERN},
        "title": {"type": "string", "minLength": 1},
        "points_cost": {"type": "integer", "minimum": 1},
        "stock": _WHOLE,
        "value_cents": _WHOLE,
        "currency": {"type": "string", "pattern": CURRENCY_PATTERN},
        "coupon_days": {"type": "integer", "minimum": 1},
    }
)
REWARDS_SCHEMA: Final = _object(
    {"items": {"type": "array", "items": REWARD_SCHEMA}, "next_cursor": {"type": ["string", "null"]}}
)
MEMBER_SCHEMA: Final = _object({"member_id": {"type": "string", "pattern": MEMBER_ID_PATTERN}, "points": _WHOLE})
REDEMPTION_SCHEMA: Final = _object(
    {
        "redemption_id": {"type": "string", "format": "uuid"},
        "member_id": {"type": "string", "pattern": MEMBER_ID_PATTERN},
        "reward_id": {"type": "string", "pattern": REWARD_ID_PATTERN},
        "coupon_code": {"type": "string", "pattern": COUPON_CODE_PATTERN},
        "points_spent": {"type": "integer", "minimum": 1},
        "status": {"type": "string", "enum": [status.value for status in RedemptionStatus]},
        "created_at": _TIME,
        "expires_at": _TIME,
    }
)
