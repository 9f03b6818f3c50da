"""What a caller sees of a coupon: the row of one query, in the words of the API."""

from datetime import datetime
from typing import TypedDict

import orjson


class CouponView(TypedDict):
    """A coupon as it stands at the time of the query; `status` is `expired` from `expires_at` on.

    It comes from our own database, so it is written as it is. A test holds real answers against the declared schema.
    """

    code: str
    member_id: str
    reward_id: str
    redemption_id: str | None
    value_cents: int
    currency: str
    issued_at: datetime
    expires_at: datetime
    status: str
    redeemed_at: datetime | None
    version: int


def encode(view: CouponView) -> bytes:
    """Write one coupon as JSON; times are RFC 3339 with their offset."""
    return orjson.dumps(view)


def encode_page(views: list[CouponView], next_cursor: str | None) -> bytes:
    """Write one page of coupons; `next_cursor` is null on the last."""
    return orjson.dumps({"items": views, "next_cursor": next_cursor})
