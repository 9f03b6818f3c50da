"""The API on the fake store, spoken to without a socket."""

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from tests.support.coupon_api_client import SECRET, Api
from tests.support.fake_coupon_api_store import FakeCouponStore


@pytest.fixture
def store() -> FakeCouponStore:
    """An empty store."""
    return FakeCouponStore()


@pytest.fixture
def api(store: FakeCouponStore, tmp_path: Path) -> Api:
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
async def stranger(api: Api) -> AsyncIterator[httpx.AsyncClient]:
    """Another member, m-2."""
    async with api.client("m-2", "member") as client:
        yield client


@pytest.fixture
async def operator(api: Api) -> AsyncIterator[httpx.AsyncClient]:
    """An operator."""
    async with api.client("ops-1", "operator") as client:
        yield client
