"""The campaign store without a database: the pure rules of `loyalty.campaign` on a dictionary."""

from collections.abc import Set as AbstractSet
from datetime import UTC, datetime

from loyalty.campaign import Campaign, CampaignChanges, CampaignStatus, change, check_deletable, check_version, is_done
from loyalty.errors import CampaignNotFoundError
from runtime.errors import IdempotencyKeyReusedError
from runtime.stored_answer import IdempotencyKey, StoredAnswer
from services.campaign_api.campaign_view import CampaignView, encode
from services.campaign_api.store import CampaignFilter, CampaignOrder, PagePosition


class FakeCampaignStore:
    """A `CampaignStore` of one loop: every call is done before it would wait, so calls never overlap."""

    def __init__(self) -> None:
        self.campaigns: dict[str, Campaign] = {}
        self.answers: dict[tuple[str, str, str], tuple[bytes, StoredAnswer]] = {}

    async def find_campaign(self, campaign_id: str) -> CampaignView | None:
        """See `CampaignStore`."""
        campaign = self.campaigns.get(campaign_id)
        return None if campaign is None else view_of_campaign(campaign)

    async def list_campaigns(
        self, wanted: CampaignFilter, limit: int, after: PagePosition | None
    ) -> list[CampaignView]:
        """See `CampaignStore`."""
        found = [campaign for campaign in self.campaigns.values() if _is_wanted(campaign, wanted)]
        found.sort(key=_place, reverse=True)
        rest = [campaign for campaign in found if after is None or _place(campaign) < after]
        return [view_of_campaign(campaign) for campaign in rest[:limit]]

    async def create_campaign(self, order: CampaignOrder, key: IdempotencyKey) -> StoredAnswer:
        """See `CampaignStore`."""
        place = (key.subject, key.route, key.key)
        if place in self.answers:
            body_hash, answer = self.answers[place]
            if body_hash != key.body_hash:
                raise IdempotencyKeyReusedError
            return answer
        now = this_millisecond()
        campaign = Campaign(**order._asdict(), status=CampaignStatus.DRAFT, created_at=now, updated_at=now)
        self.campaigns[campaign.campaign_id] = campaign
        answer = StoredAnswer(status=201, body=encode(view_of_campaign(campaign)))
        self.answers[place] = (key.body_hash, answer)
        return answer

    async def change_campaign(
        self, campaign_id: str, versions: AbstractSet[int] | None, changes: CampaignChanges
    ) -> CampaignView:
        """See `CampaignStore`."""
        campaign = self._existing(campaign_id)
        if not is_done(campaign, changes, versions):
            check_version(campaign, versions)
            campaign = change(campaign, changes, this_millisecond())
            self.campaigns[campaign_id] = campaign
        return view_of_campaign(campaign)

    async def delete_campaign(self, campaign_id: str, versions: AbstractSet[int] | None) -> None:
        """See `CampaignStore`."""
        campaign = self._existing(campaign_id)
        check_version(campaign, versions)
        check_deletable(campaign)
        del self.campaigns[campaign_id]

    def _existing(self, campaign_id: str) -> Campaign:
        if campaign_id not in self.campaigns:
            raise CampaignNotFoundError
        return self.campaigns[campaign_id]


def this_millisecond() -> datetime:
    """Return the time as the database keeps it."""
    now = datetime.now(UTC)
    return now.replace(microsecond=now.microsecond // 1_000 * 1_000)


def view_of_campaign(campaign: Campaign) -> CampaignView:
    """Return what the database would give for the campaign."""
    return CampaignView(
        campaign_id=campaign.campaign_id,
        name=campaign.name,
        description=campaign.description,
        status=campaign.status.value,
        starts_at=campaign.starts_at,
        ends_at=campaign.ends_at,
        created_at=campaign.created_at,
        updated_at=campaign.updated_at,
        version=campaign.version,
    )


def _place(campaign: Campaign) -> tuple[datetime, str]:
    return campaign.starts_at, campaign.campaign_id


def _is_wanted(campaign: Campaign, wanted: CampaignFilter) -> bool:
    meets = wanted.on is None or (campaign.starts_at < wanted.on.end and campaign.ends_at > wanted.on.begin)
    return meets and campaign.status in wanted.statuses
