"""reward_store's client speaks to the real API of coupon_api: the two sides of a cancellation agree on the words."""

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from loyalty.coupon import Coupon, CouponStatus
from loyalty.errors import CouponUsedError
from runtime.auth import sign_token
from runtime.errors import DependencyUnavailable
from services.reward_store.coupon_api import CouponApi
from services.reward_store.settings import CouponApiSettings
from tests.support.coupon_api_client import SECRET, Api, put
from tests.support.coupon_store_contract import some_coupon
from tests.support.fake_coupon_api_store import FakeCouponStore


@pytest.fixture
async def client(api: Api, tmp_path: Path) -> AsyncIterator[CouponApi]:
    """The client of reward_store, with an operator's token in a file."""
    token_file = tmp_path / "token"
    token_file.write_text(sign_token("reward-store", "operator", SECRET))
    settings = CouponApiSettings(urls=("http://coupon-api",), token_file=token_file)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=api.edge)) as http:
        yield CouponApi(http, settings)


def order(coupon: Coupon) -> Coupon:
    """Return the coupon at the version of its cancellation."""
    return replace(coupon, version=2)


async def test_coupon_that_has_arrived_is_cancelled_once(client: CouponApi, store: FakeCouponStore) -> None:
    """Asked twice, the coupon is cancelled at the order's version."""
    coupon = put(store, some_coupon())
    for _ in range(2):
        await client.cancel(order(coupon))

    assert store.coupons[coupon.code] == replace(coupon, status=CouponStatus.CANCELLED, version=2)


async def test_coupon_that_has_not_arrived_is_cancelled_beforehand(client: CouponApi, store: FakeCouponStore) -> None:
    """What is kept for the late event is the very coupon that reward_store knows."""
    coupon = some_coupon()
    await client.cancel(order(coupon))

    assert store.coupons[coupon.code] == replace(coupon, status=CouponStatus.CANCELLED, version=2)


async def test_redeemed_coupon_is_reported_as_used(client: CouponApi, store: FakeCouponStore) -> None:
    """The one refusal that is final arrives as what it is."""
    coupon = put(store, some_coupon())
    await store.redeem_coupon(coupon.code, "m-1")

    with pytest.raises(CouponUsedError):
        await client.cancel(order(coupon))


async def test_coupon_that_differs_is_not_taken_for_cancelled(client: CouponApi, store: FakeCouponStore) -> None:
    """A contradiction is neither "cancelled" nor "used": it stays open until somebody looks."""
    coupon = put(store, some_coupon())

    with pytest.raises(DependencyUnavailable, match="coupon-mismatch"):
        await client.cancel(replace(order(coupon), member_id="m-2"))
    assert store.coupons[coupon.code] == coupon
