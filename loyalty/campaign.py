"""The life of a campaign: a draft, then active and paused by turns, then ended for good.

    draft ---> active <---> paused
      |           |            |
      +--------> ended <-------+

The rules are pure functions from a campaign and a wish to a campaign. They look at the campaign as it was before the
change, so a draft may get its dates and become active in one step, and a campaign may be ended and cut short in one.

- `ended` is final, and so are its dates; name and description can be mended at any time.
- What has begun in public (active or paused, `starts_at` not after now) keeps its start.
- A draft and an ended campaign can be deleted, the others cannot.
- Status is the operators' word and dates are time: neither changes the other. A campaign runs while it is active and
  now is from `starts_at` on and before `ends_at`.
- Times are kept to the millisecond, which is all that BSON has. A finer one is refused, never rounded: whoever reads a
  campaign back finds what they wrote.
"""

import re
from collections.abc import Callable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Final, TypedDict

from pydantic import AfterValidator, StringConstraints
from pydantic_core import PydanticCustomError

from loyalty.errors import (
    CampaignDatesContradictError,
    CampaignDatesFixedError,
    CampaignInUseError,
    CampaignTransitionError,
    StaleCampaignError,
)
from loyalty.identifier import is_campaign_id

FIRST_VERSION: Final = 1
NAME_CHARACTERS_MAX: Final = 120
NAME_BYTES_MAX: Final = 360
DESCRIPTION_CHARACTERS_MAX: Final = 2_000
DESCRIPTION_BYTES_MAX: Final = 6_000
NAME_PATTERN: Final = r"^[^\x00-\x20\x7f-\xa0]([^\x00-\x1f\x7f-\x9f]*[^\x00-\x20\x7f-\xa0])?$"
"""One line: no control characters, and no space at either end."""
DESCRIPTION_PATTERN: Final = r"^[^\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]*$"
"""Any number of lines: of the control characters only tabs and line ends."""

_NAME: Final = re.compile(NAME_PATTERN)
_DESCRIPTION: Final = re.compile(DESCRIPTION_PATTERN)


class CampaignStatus(StrEnum):
    """Where a campaign is in its life."""

    DRAFT = "draft"
    ACTIVE = "active"
    PAUSED = "paused"
    ENDED = "ended"


PUBLIC_STATUSES: Final = frozenset(CampaignStatus) - {CampaignStatus.DRAFT}
"""What members may know of; a draft is the operators' own."""

_NEXT: Final = {
    CampaignStatus.DRAFT: {CampaignStatus.ACTIVE, CampaignStatus.ENDED},
    CampaignStatus.ACTIVE: {CampaignStatus.PAUSED, CampaignStatus.ENDED},
    CampaignStatus.PAUSED: {CampaignStatus.ACTIVE, CampaignStatus.ENDED},
    CampaignStatus.ENDED: set[CampaignStatus](),
}


@dataclass(frozen=True, slots=True)
class Campaign:
    """A campaign as it stands at one version; every change makes a new one with the next version.

    Raises:
        ValueError: The name or the id is misspelt, a text is too long, a time has no offset or is finer than a
            millisecond, the campaign does not end after it starts, or the version is below 1.
    """

    campaign_id: str
    name: str
    description: str
    status: CampaignStatus
    starts_at: datetime
    ends_at: datetime
    created_at: datetime
    updated_at: datetime
    version: int = FIRST_VERSION

    def __post_init__(self) -> None:
        if not is_campaign_id(self.campaign_id):
            raise ValueError("campaign_id must be in its one spelling")
        if not is_campaign_name(self.name):
            raise ValueError(f"name must be one line of 1 to {NAME_CHARACTERS_MAX} characters")
        if not is_campaign_description(self.description):
            raise ValueError(f"description must be text of at most {DESCRIPTION_CHARACTERS_MAX} characters")
        times = (self.starts_at, self.ends_at, self.created_at, self.updated_at)
        if any(time.tzinfo is None or is_finer_than_milliseconds(time) for time in times):
            raise ValueError("times must have an offset and be whole milliseconds")
        if self.ends_at <= self.starts_at:
            raise ValueError("ends_at must be after starts_at")
        if self.version < FIRST_VERSION:
            raise ValueError(f"version must be {FIRST_VERSION} or more")


class CampaignChanges(TypedDict, total=False):
    """What is wanted of a campaign; what is not named stays as it is."""

    name: str
    description: str
    status: CampaignStatus
    starts_at: datetime
    ends_at: datetime


def is_campaign_name(text: str) -> bool:
    """Say whether the text can be a campaign's name: `NAME_PATTERN`, within its limits of characters and bytes."""
    return _NAME.fullmatch(text) is not None and _fits(text, NAME_CHARACTERS_MAX, NAME_BYTES_MAX)


def is_campaign_description(text: str) -> bool:
    """Say whether the text can describe a campaign: `DESCRIPTION_PATTERN`, within its limits; empty is none."""
    is_text = _DESCRIPTION.fullmatch(text) is not None
    return is_text and _fits(text, DESCRIPTION_CHARACTERS_MAX, DESCRIPTION_BYTES_MAX)


def is_finer_than_milliseconds(time: datetime) -> bool:
    """Say whether a time has more than BSON can keep."""
    return time.microsecond % 1_000 != 0


def check_version(campaign: Campaign, versions: AbstractSet[int] | None) -> None:
    """Refuse a wish that was made in view of another version; None stands for whatever version there is.

    Raises:
        StaleCampaignError: The campaign is at none of these.
    """
    if versions is not None and campaign.version not in versions:
        raise StaleCampaignError


def change(campaign: Campaign, changes: CampaignChanges, now: datetime) -> Campaign:
    """Change the campaign; what is as wanted already comes back unchanged, at the same version.

    Raises:
        CampaignTransitionError: The status cannot become the wanted one.
        CampaignDatesFixedError: A date would change that is fixed.
        CampaignDatesContradictError: It would not end after it starts.
    """
    status = changes.get("status", campaign.status)
    starts_at, ends_at = changes.get("starts_at", campaign.starts_at), changes.get("ends_at", campaign.ends_at)
    if status is not campaign.status and status not in _NEXT[campaign.status]:
        raise CampaignTransitionError
    has_ended = campaign.status is CampaignStatus.ENDED
    has_begun = campaign.status in PUBLIC_STATUSES and campaign.starts_at <= now
    if (starts_at != campaign.starts_at and (has_ended or has_begun)) or (ends_at != campaign.ends_at and has_ended):
        raise CampaignDatesFixedError
    if ends_at <= starts_at:
        raise CampaignDatesContradictError
    changed = replace(campaign, **changes)
    return campaign if changed == campaign else replace(changed, updated_at=now, version=campaign.version + 1)


def is_done(campaign: Campaign, changes: CampaignChanges, versions: AbstractSet[int] | None) -> bool:
    """Say whether the campaign looks as if these changes were its last: made at a version that was the caller's.

    Whoever repeats a change because its answer was lost finds the campaign one version further, and as they wanted it.
    RFC 9110, section 13.1.1, lets such a repetition succeed although its precondition is false by now.
    """
    return versions is not None and campaign.version - 1 in versions and replace(campaign, **changes) == campaign


def check_deletable(campaign: Campaign) -> None:
    """Refuse to delete what members may be looking at.

    Raises:
        CampaignInUseError: The campaign is active or paused.
    """
    if campaign.status in (CampaignStatus.ACTIVE, CampaignStatus.PAUSED):
        raise CampaignInUseError


def _fits(text: str, characters_max: int, bytes_max: int) -> bool:
    return len(text) <= characters_max and len(text.encode("utf-8", "surrogatepass")) <= bytes_max


def _at_most(bytes_max: int) -> Callable[[str], str]:
    def check(text: str) -> str:
        if len(text.encode()) > bytes_max:
            raise PydanticCustomError("too_many_bytes", "longer in UTF-8 than it may be")
        return text

    return check


CampaignName = Annotated[
    str,
    StringConstraints(strict=True, min_length=1, max_length=NAME_CHARACTERS_MAX, pattern=NAME_PATTERN),
    AfterValidator(_at_most(NAME_BYTES_MAX)),
]
CampaignDescription = Annotated[
    str,
    StringConstraints(strict=True, max_length=DESCRIPTION_CHARACTERS_MAX, pattern=DESCRIPTION_PATTERN),
    AfterValidator(_at_most(DESCRIPTION_BYTES_MAX)),
]
