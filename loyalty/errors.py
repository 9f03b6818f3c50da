"""Everything the business can refuse. No error knows HTTP; a service maps each class to a status and a code."""


class LoyaltyError(Exception):
    """A rule of the business said no; nothing was changed."""


class CouponNotFoundError(LoyaltyError):
    """There is no such coupon, or it is somebody else's: the two are not told apart."""


class CouponCancelledError(LoyaltyError):
    """The coupon was cancelled, so it cannot be redeemed."""


class CouponExpiredError(LoyaltyError):
    """The coupon's time is over, so it cannot be redeemed."""


class CouponUsedError(LoyaltyError):
    """The coupon was redeemed, so it cannot be cancelled."""


class CouponMismatchError(LoyaltyError):
    """A coupon of this code exists, and it is not the one that was described."""
