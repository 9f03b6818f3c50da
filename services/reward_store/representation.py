"""Write the business's objects as others read them: JSON bodies over HTTP, and events for the topic.

Bodies are encoded by hand: what comes from our own database was checked when it went in, and a second check would cost
more than the query. Their declared shapes are in `schema`.
"""

from collections.abc import Sequence
from uuid import UUID

import orjson

from loyalty.event import CouponEvent, CouponSnapshot, EventType, encode
from loyalty.reward import Member, Redemption, Reward
from runtime.pages import encode_cursor


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
