"""The API on the fake store, spoken to without a socket."""

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from tests.support.campaign_api_client import SECRET, Api
from tests.support.fake_campaign_store import FakeCampaignStore


@pytest.fixture
def store() -> FakeCampaignStore:
    """An empty store."""
    return FakeCampaignStore()


@pytest.fixture
def api(store: FakeCampaignStore, tmp_path: Path) -> Api:
    """The API on the empty store."""
    secret_file = tmp_path / "secret"
    secret_file.write_text(SECRET)
    return Api(store, secret_file)


@pytest.fixture
async def member(api: Api) -> AsyncIterator[httpx.AsyncClient]:
    """The member m-1."""
    async with api.client("m-1", "member") as client:
        yield client


@pytest.fixture
async def operator(api: Api) -> AsyncIterator[httpx.AsyncClient]:
    """An operator."""
    async with api.client("ops-1", "operator") as client:
        yield client
