"""What a caller sees of a campaign: the document of one query, in the words of the API."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, TypedDict

import orjson


class CampaignView(TypedDict):
    """A campaign as it stands.

    It comes from our own database, so it is written as it is. A test holds real answers against the declared schema.
    """

    campaign_id: str
    name: str
    description: str
    status: str
    starts_at: datetime
    ends_at: datetime
    created_at: datetime
    updated_at: datetime
    version: int


def view_of(document: Mapping[str, Any]) -> CampaignView:  # Any: BSON; what a later release added is left out
    """Return what is shown of a document."""
    return {
        "campaign_id": document["_id"],
        "name": document["name"],
        "description": document["description"],
        "status": document["status"],
        "starts_at": document["starts_at"],
        "ends_at": document["ends_at"],
        "created_at": document["created_at"],
        "updated_at": document["updated_at"],
        "version": document["version"],
    }


def encode(view: CampaignView) -> bytes:
    """Write one campaign as JSON; times are RFC 3339 with their offset."""
    return orjson.dumps(view)


def encode_page(views: list[CampaignView], next_cursor: str | None) -> bytes:
    """Write one page of campaigns; `next_cursor` is null on the last."""
    return orjson.dumps({"items": views, "next_cursor": next_cursor})


def location_of(body: bytes) -> str:
    """Return where the campaign of an encoded answer is read."""
    return f"/v1/campaigns/{orjson.loads(body)['campaign_id']}"
