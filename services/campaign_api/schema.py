"""The shapes on the wire: what a body must be, and what the answers are declared to be.

Answers come from our own database and are written as they are, so the answers' classes check nothing at run time: they
are the OpenAPI document's, and a test holds real answers against them.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Annotated, Any, Final, Self, cast

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from loyalty.campaign import (
    FIRST_VERSION,
    CampaignChanges,
    CampaignDescription,
    CampaignName,
    CampaignStatus,
    is_finer_than_milliseconds,
)
from loyalty.identifier import CampaignId
from runtime.json_body import Body, Timestamp

_absent: Final[Callable[[], Any]] = lambda: None  # noqa: E731 - stands for a field that is not there, of whatever type


def _check_milliseconds(time: datetime) -> datetime:
    if is_finer_than_milliseconds(time):
        raise PydanticCustomError("finer_than_milliseconds", "finer than a millisecond")
    return time.astimezone(UTC)


CampaignTime = Annotated[Timestamp, AfterValidator(_check_milliseconds)]
"""A `Timestamp` of whole milliseconds, turned to UTC."""


def _check_dates(starts_at: datetime, ends_at: datetime) -> None:
    if ends_at <= starts_at:
        raise PydanticCustomError("ends_before_starts", "ends_at must be after starts_at")


class CampaignBody(Body):
    """The campaign that an operator wants to exist; it begins as a draft."""

    name: CampaignName
    description: CampaignDescription = ""
    starts_at: CampaignTime
    ends_at: CampaignTime

    @model_validator(mode="after")
    def _ends_after_it_starts(self) -> Self:
        _check_dates(self.starts_at, self.ends_at)
        return self


class ChangeBody(Body):
    """A merge patch (RFC 7396): what is named becomes so, the rest stays.

    Null would remove a field: that leaves a description empty, and there is no campaign without one of the others.
    """

    name: CampaignName = Field(default_factory=_absent)
    description: CampaignDescription | None = Field(default_factory=_absent)
    status: CampaignStatus = Field(default_factory=_absent)
    starts_at: CampaignTime = Field(default_factory=_absent)
    ends_at: CampaignTime = Field(default_factory=_absent)

    @model_validator(mode="after")
    def _ends_after_it_starts(self) -> Self:
        if {"starts_at", "ends_at"} <= self.model_fields_set:
            _check_dates(self.starts_at, self.ends_at)
        return self

    def changes(self) -> CampaignChanges:
        """Return what is wanted of the campaign."""
        changes = {name: getattr(self, name) for name in self.model_fields_set}
        if changes.get("description", "") is None:
            changes["description"] = ""
        return cast("CampaignChanges", changes)


class CampaignAnswer(BaseModel):
    """A campaign as it stands; its version is its ETag, too."""

    model_config = ConfigDict(extra="forbid", title="Campaign")

    campaign_id: CampaignId
    name: CampaignName
    description: CampaignDescription
    status: CampaignStatus
    starts_at: CampaignTime
    ends_at: CampaignTime
    created_at: CampaignTime
    updated_at: CampaignTime
    version: Annotated[int, Field(strict=True, ge=FIRST_VERSION)]


class CampaignPageAnswer(BaseModel):
    """Some of the campaigns, newest start first; `next_cursor` leads to the rest and is null when there is none."""

    model_config = ConfigDict(extra="forbid", title="CampaignPage")

    items: list[CampaignAnswer]
    next_cursor: str | None
