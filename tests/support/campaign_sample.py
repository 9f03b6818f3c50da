"""Campaigns, orders and keys for tests, and what tests ask of a store's pages."""

from datetime import datetime, timedelta

from loyalty.campaign import Campaign, CampaignStatus
from loyalty.identifier import new_campaign_id
from runtime.stored_answer import IdempotencyKey
from services.campaign_api.store import CampaignFilter, CampaignOrder, CampaignStore, PagePosition
from tests.support.fake_campaign_store import this_millisecond

DAY = timedelta(days=1)
MILLISECOND = timedelta(milliseconds=1)
DRAFT, ACTIVE, PAUSED, ENDED = CampaignStatus
ALL = CampaignFilter(frozenset(CampaignStatus), None)


def some_campaign(
    status: CampaignStatus = DRAFT,
    *,
    starts: timedelta = -DAY,
    ends: timedelta = DAY,
    now: datetime | None = None,
    version: int = 1,
) -> Campaign:
    """Make a campaign that starts and ends at distances from now."""
    now = now or this_millisecond()
    return Campaign(
        campaign_id=new_campaign_id(),
        name="Summer",
        description="Twice the points\nfor all",
        status=status,
        starts_at=now + starts,
        ends_at=now + ends,
        created_at=now - 9 * DAY,
        updated_at=now - 8 * DAY,
        version=version,
    )


def some_campaign_order(name: str = "Summer", description: str = "") -> CampaignOrder:
    """Make an order for a campaign."""
    now = this_millisecond()
    return CampaignOrder(new_campaign_id(), name, description, now, now + DAY)


def some_campaign_key(subject: str = "ops", key: str = "key-0001", body: bytes = b"body") -> IdempotencyKey:
    """Make an idempotency key."""
    return IdempotencyKey(subject, "POST /v1/campaigns", key, body)


async def pages_of(store: CampaignStore, wanted: CampaignFilter, limit: int) -> list[list[str]]:
    """Return the ids on each page, up to the first one without any."""
    pages: list[list[str]] = []
    after: PagePosition | None = None
    while page := await store.list_campaigns(wanted, limit, after):
        pages.append([view["campaign_id"] for view in page])
        assert len(pages) < 20, "the pages go round in a circle"
        after = PagePosition(page[-1]["starts_at"], page[-1]["campaign_id"])
    return pages


def newest_first(*campaigns: Campaign) -> list[str]:
    """Return the ids in the order in which they are listed."""
    ordered = sorted(campaigns, key=lambda campaign: (campaign.starts_at, campaign.campaign_id), reverse=True)
    return [campaign.campaign_id for campaign in ordered]
