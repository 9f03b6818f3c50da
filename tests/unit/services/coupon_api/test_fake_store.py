"""The fake store keeps the contract, so what is tested on it holds for the real one."""

from datetime import timedelta

import pytest

from loyalty.coupon import Coupon
from tests.support.coupon_store_contract import CouponStoreContract
from tests.support.fake_coupon_api_store import FakeCouponStore


class FakeWorld:
    """The fake store, filled by hand."""

    def __init__(self) -> None:
        self.store = FakeCouponStore()

    async def put(self, coupon: Coupon) -> None:
        """See `World`."""
        self.store.coupons[coupon.code] = coupon

    async def age_keys(self, by: timedelta) -> None:
        """See `World`."""
        for place, (body_hash, answer, created_at) in self.store.answers.items():
            self.store.answers[place] = (body_hash, answer, created_at - by)


@pytest.fixture
def world() -> FakeWorld:
    """An empty store."""
    return FakeWorld()


class TestFakeCouponStore(CouponStoreContract):
    """The contract, on the fake."""
