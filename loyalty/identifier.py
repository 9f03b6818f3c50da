"""Name members, rewards, coupons and campaigns: one spelling each, so that one thing has one address.

Patterns are written for a search from end to end (`re.fullmatch`, and pydantic's engine, whose `$` means the very
end): Python's own `$` would let a trailing newline through.
"""

import base64
import re
import secrets
from typing import Annotated, Final
from uuid import UUID

from pydantic import StringConstraints
from uuid_utils.compat import uuid7

MEMBER_ID_PATTERN: Final = r"^m-[a-z0-9][a-z0-9-]{0,38}$"
REWARD_ID_PATTERN: Final = r"^rw-[a-z0-9][a-z0-9-]{0,38}$"
COUPON_CODE_PATTERN: Final = r"^[0-9A-HJKMNP-TV-Z]{16}$"
"""Sixteen of Crockford's 32 characters, upper case: without I, L, O and U nothing is misread at a till."""

CAMPAIGN_ID_PATTERN: Final = r"^cp-[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$"
"""A UUIDv7 in its canonical form (RFC 9562, section 4), lower case, and nothing that merely parses as one."""

MemberId = Annotated[str, StringConstraints(strict=True, pattern=MEMBER_ID_PATTERN, max_length=41)]
RewardId = Annotated[str, StringConstraints(strict=True, pattern=REWARD_ID_PATTERN, max_length=42)]
CouponCode = Annotated[str, StringConstraints(strict=True, pattern=COUPON_CODE_PATTERN, max_length=16)]
CampaignId = Annotated[str, StringConstraints(strict=True, pattern=CAMPAIGN_ID_PATTERN, max_length=39)]

_MEMBER_ID: Final = re.compile(MEMBER_ID_PATTERN)
_REWARD_ID: Final = re.compile(REWARD_ID_PATTERN)
_COUPON_CODE: Final = re.compile(COUPON_CODE_PATTERN)
_CAMPAIGN_ID: Final = re.compile(CAMPAIGN_ID_PATTERN)
_TO_CROCKFORD: Final = bytes.maketrans(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567", b"0123456789ABCDEFGHJKMNPQRSTVWXYZ")
_CODE_BYTES: Final = 10  # 80 random bits make sixteen characters of five bits, with none left over


def is_member_id(text: str) -> bool:
    """Say whether the text is the one spelling of a member's name."""
    return _MEMBER_ID.fullmatch(text) is not None


def is_reward_id(text: str) -> bool:
    """Say whether the text is the one spelling of a reward's name."""
    return _REWARD_ID.fullmatch(text) is not None


def is_coupon_code(text: str) -> bool:
    """Say whether the text is the one spelling of a coupon's code; lower case and look-alikes are not."""
    return _COUPON_CODE.fullmatch(text) is not None


def is_campaign_id(text: str) -> bool:
    """Say whether the text is the one spelling of a campaign's name; no other form of its UUID is."""
    return _CAMPAIGN_ID.fullmatch(text) is not None


def new_coupon_code() -> str:
    """Draw a coupon code from the system's own randomness: 80 bits, so nobody guesses one and no two meet."""
    return base64.b32encode(secrets.token_bytes(_CODE_BYTES)).translate(_TO_CROCKFORD).decode("ascii")


def mask_code(code: str) -> str:
    """Shorten a coupon code for logs: enough to find it with the database at hand, not enough to spend it."""
    return f"{code[:4]}…"


def new_id() -> UUID:
    """Make a UUIDv7: ids made later sort later (to the millisecond), which keeps an index's newest page warm."""
    return uuid7()


def new_campaign_id() -> str:
    """Make a campaign's name from a new UUIDv7."""
    return f"cp-{new_id()}"
