"""Put coupons into coupon_api's table, as if they had come from elsewhere."""

import asyncpg

from loyalty.coupon import Coupon

_INSERT = """
insert into coupons (code, member_id, reward_id, redemption_id, value_cents, currency, issued_at, expires_at, status,
    redeemed_at, version, source) values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, 'event')
"""


async def put_coupon(administrator: "asyncpg.Connection", coupon: Coupon) -> None:
    """Store a coupon as if it had come from elsewhere."""
    await administrator.execute(
        _INSERT,
        coupon.code,
        coupon.member_id,
        coupon.reward_id,
        coupon.redemption_id,
        coupon.value.cents,
        coupon.value.currency,
        coupon.issued_at,
        coupon.expires_at,
        coupon.status,
        coupon.redeemed_at,
        coupon.version,
    )
