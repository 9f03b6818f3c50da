"""The life of a coupon: issued, then redeemed or cancelled, or simply too old.

The rules are pure functions from a coupon and a time to a coupon. A store applies them in its own way (one guarded
statement), and the tests hold the two against each other.
"""

from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Final
from uuid import UUID

from loyalty.errors import CouponCancelledError, CouponExpiredError, CouponMismatchError, CouponUsedError
from loyalty.identifier import is_coupon_code, is_member_id, is_reward_id
from loyalty.money import Money

FIRST_VERSION: Final = 1


class CouponStatus(StrEnum):
    """Where a coupon is in its life. `expired` is never stored: it follows from the time."""

    ISSUED = "issued"
    REDEEMED = "redeemed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"


@dataclass(frozen=True, slots=True)
class Coupon:
    """A coupon as it stands at one version; every change makes a new one with a higher version.

    Raises:
        ValueError: A name is misspelt, a time has no offset, the coupon ends before it begins, the version is below 1,
            or the status and `redeemed_at` contradict each other.
    """

    code: str
    member_id: str
    reward_id: str
    redemption_id: UUID | None
    value: Money
    issued_at: datetime
    expires_at: datetime
    status: CouponStatus = CouponStatus.ISSUED
    redeemed_at: datetime | None = None
    version: int = FIRST_VERSION

    def __post_init__(self) -> None:
        if not (is_coupon_code(self.code) and is_member_id(self.member_id) and is_reward_id(self.reward_id)):
            raise ValueError("code, member_id and reward_id must be in their one spelling")
        if self.issued_at.tzinfo is None or self.expires_at.tzinfo is None:
            raise ValueError("issued_at and expires_at must have an offset")
        if self.expires_at <= self.issued_at:
            raise ValueError("expires_at must be after issued_at")
        if self.version < FIRST_VERSION:
            raise ValueError(f"version must be {FIRST_VERSION} or more")
        if self.status is CouponStatus.EXPIRED:
            raise ValueError("expired is told from the time, not stored")
        if (self.status is CouponStatus.REDEEMED) != (self.redeemed_at is not None):
            raise ValueError("redeemed_at must be there exactly when the status is redeemed")

    def status_at(self, now: datetime) -> CouponStatus:
        """Tell the status at a time; an issued coupon is expired from `expires_at` on, with no job needed."""
        if self.status is CouponStatus.ISSUED and now >= self.expires_at:
            return CouponStatus.EXPIRED
        return self.status


def redeem(coupon: Coupon, now: datetime) -> Coupon:
    """Spend the coupon; one that is spent already comes back unchanged, so a repeated call has one effect.

    Raises:
        CouponCancelledError: It was cancelled.
        CouponExpiredError: Its time is over.
    """
    status = coupon.status_at(now)
    if status is CouponStatus.CANCELLED:
        raise CouponCancelledError
    if status is CouponStatus.EXPIRED:
        raise CouponExpiredError
    if status is CouponStatus.REDEEMED:
        return coupon
    return replace(coupon, status=CouponStatus.REDEEMED, redeemed_at=now, version=coupon.version + 1)


def cancel(coupon: Coupon, order: Coupon) -> Coupon:
    """Cancel the coupon as the order says; one that is cancelled already comes back unchanged.

    The order is the coupon as its issuer knows it, at the version of the cancellation. Time plays no part: an expired
    coupon can be cancelled too. The version never falls, whatever the order says.

    Raises:
        CouponMismatchError: The order describes another coupon under this code.
        CouponUsedError: It was redeemed.
    """
    if _identity(coupon) != _identity(order):
        raise CouponMismatchError
    if coupon.status is CouponStatus.REDEEMED:
        raise CouponUsedError
    if coupon.status is CouponStatus.CANCELLED:
        return coupon
    return replace(coupon, status=CouponStatus.CANCELLED, version=max(coupon.version + 1, order.version))


def _identity(coupon: Coupon) -> tuple[str, str, str, UUID | None, Money]:
    return coupon.code, coupon.member_id, coupon.reward_id, coupon.redemption_id, coupon.value
