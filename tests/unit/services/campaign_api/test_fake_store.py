"""The fake store keeps the contract, so what is tested on it holds for the real one."""

import pytest

from loyalty.campaign import Campaign
from tests.support.campaign_store_contract import CampaignStoreContract
from tests.support.fake_campaign_store import FakeCampaignStore


class FakeWorld:
    """The fake store, filled by hand."""

    def __init__(self) -> None:
        self.store = FakeCampaignStore()

    async def put(self, campaign: Campaign) -> None:
        """See `World`."""
        self.store.campaigns[campaign.campaign_id] = campaign


@pytest.fixture
def world() -> FakeWorld:
    """An empty store."""
    return FakeWorld()


class TestFakeCampaignStore(CampaignStoreContract):
    """The contract, on the fake."""
