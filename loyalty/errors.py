"""Everything the business can refuse. No error knows HTTP; a service maps each class to a status and a code."""


class LoyaltyError(Exception):
    """A rule of the business said no; nothing was changed."""


class RewardNotFoundError(LoyaltyError):
    """There is no such reward."""


class MemberNotFoundError(LoyaltyError):
    """There is no such member, or the caller may not know of it: the two are not told apart."""


class RedemptionNotFoundError(LoyaltyError):
    """There is no such redemption, or it is somebody else's: the two are not told apart."""


class SoldOutError(LoyaltyError):
    """None of the reward is left."""


class InsufficientPointsError(LoyaltyError):
    """The member has fewer points than the reward costs."""


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


class ExpiryInPastError(LoyaltyError):
    """The coupon would end before it begins."""


class CampaignNotFoundError(LoyaltyError):
    """There is no such campaign, or the caller may not know of it: the two are not told apart."""


class StaleCampaignError(LoyaltyError):
    """The campaign is at another version than the caller has seen."""


class CampaignInUseError(LoyaltyError):
    """The campaign is active or paused, so it cannot be deleted."""


class CampaignTransitionError(LoyaltyError):
    """The campaign's status cannot become the wanted one."""


class CampaignDatesFixedError(LoyaltyError):
    """The campaign has ended, or has begun in public, so this date of it does not change any more."""


class CampaignDatesContradictError(LoyaltyError):
    """The campaign would not end after it starts."""


class EventError(LoyaltyError):
    """A record is not an event that can be understood. The class's name is stored with the record: it never changes."""


class TombstoneError(EventError):
    """The record has no payload at all."""


class EmptyPayloadError(EventError):
    """The payload has no bytes."""


class OversizedError(EventError):
    """The payload is longer than any event may be."""


class NotJsonError(EventError):
    """The payload is not JSON in UTF-8."""


class UnknownSchemaVersionError(EventError):
    """The event is written in a shape that this release does not know."""


class UnknownTypeError(EventError):
    """The event is of a type that this release does not know."""


class WrongFieldError(EventError):
    """A field is missing, unknown, of the wrong type or outside its rule."""


class MissingKeyError(EventError):
    """The record has no key, so its order among the coupon's events is not known."""


class ContradictingKeyError(EventError):
    """The record's key is not the code of its coupon."""


class ConsentError(LoyaltyError):
    """A document is no consent that can be read. The class's name is stored with the document: it never changes."""


class UnknownConsentVersionError(ConsentError):
    """The document is written in a shape that this release does not know."""


class MissingConsentFieldError(ConsentError):
    """A field that is needed is not there, or null."""


class WrongConsentFieldError(ConsentError):
    """A field is of the wrong type or outside its rule."""
