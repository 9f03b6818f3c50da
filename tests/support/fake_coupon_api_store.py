"""The coupon store without a database: the pure rules of `loyalty.coupon` on a dictionary."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from loyalty.coupon import Coupon, CouponStatus, cancel, redeem
from loyalty.errors import CouponNotFoundError, ExpiryInPastError
from runtime.errors import IdempotencyKeyReusedError
from runtime.stored_answer import IdempotencyKey, StoredAnswer
from services.coupon_api.coupon_view import CouponView, encode
from services.coupon_api.store import IssueOrder, PagePosition
from services.coupon_api.trace import Tracer


class FakeCouponStore:
    """A `CouponStore` of one loop: every call is done before it would wait, so calls never overlap."""

    def __init__(self) -> None:
        self.tracer = Tracer(capacity=1_024)
        self.coupons: dict[str, Coupon] = {}
        self.answers: dict[tuple[str, str, str], tuple[bytes, StoredAnswer, datetime]] = {}

    async def find_coupon(self, code: str) -> CouponView | None:
        """See `CouponStore`."""
        self.tracer.start("find_coupon")()
        coupon = self.coupons.get(code)
        return None if coupon is None else view_of(coupon)

    async def list_coupons(self, member_id: str, limit: int, after: PagePosition | None) -> list[CouponView]:
        """See `CouponStore`."""
        mine = [coupon for coupon in self.coupons.values() if coupon.member_id == member_id]
        mine.sort(key=lambda coupon: (coupon.issued_at, coupon.code), reverse=True)
        rest = [coupon for coupon in mine if after is None or (coupon.issued_at, coupon.code) < after]
        return [view_of(coupon) for coupon in rest[:limit]]

    async def issue_coupon(self, order: IssueOrder, key: IdempotencyKey) -> StoredAnswer:
        """See `CouponStore`."""
        place = (key.subject, key.route, key.key)
        if place in self.answers:
            body_hash, answer, _ = self.answers[place]
            if body_hash != key.body_hash:
                raise IdempotencyKeyReusedError
            return answer
        now = datetime.now(UTC)
        if order.expires_at <= now:
            raise ExpiryInPastError
        coupon = Coupon(order.code, order.member_id, order.reward_id, None, order.value, now, order.expires_at)
        self.coupons[coupon.code] = coupon
        answer = StoredAnswer(status=201, body=encode(view_of(coupon)))
        self.answers[place] = (key.body_hash, answer, now)
        return answer

    async def redeem_coupon(self, code: str, member_id: str) -> CouponView:
        """See `CouponStore`."""
        coupon = self.coupons.get(code)
        if coupon is None or coupon.member_id != member_id:
            raise CouponNotFoundError
        self.coupons[code] = redeem(coupon, datetime.now(UTC))
        return view_of(self.coupons[code])

    async def cancel_coupon(self, order: Coupon) -> CouponView:
        """See `CouponStore`."""
        coupon = self.coupons.get(order.code)
        cancelled = cancel(coupon, order) if coupon else replace(order, status=CouponStatus.CANCELLED)
        self.coupons[order.code] = cancelled
        return view_of(cancelled)

    async def delete_old_keys(self, older_than: timedelta, limit: int) -> int:
        """See `CouponStore`."""
        end = datetime.now(UTC) - older_than
        old = [place for place, (_, _, created_at) in self.answers.items() if created_at < end][:limit]
        for place in old:
            del self.answers[place]
        return len(old)


def view_of(coupon: Coupon) -> CouponView:
    """Return the row that the database would give for the coupon now."""
    return CouponView(
        code=coupon.code,
        member_id=coupon.member_id,
        reward_id=coupon.reward_id,
        redemption_id=None if coupon.redemption_id is None else str(coupon.redemption_id),
        value_cents=coupon.value.cents,
        currency=coupon.value.currency,
        issued_at=coupon.issued_at,
        expires_at=coupon.expires_at,
        status=coupon.status_at(datetime.now(UTC)).value,
        redeemed_at=coupon.redeemed_at,
        version=coupon.version,
    )
