"""The fake store obeys the contract of the real one."""

import pytest

from tests.support.consumer_store_contract import TOPIC_ID, ConsumerStoreContract
from tests.support.fake_coupon_store import FakeCouponStore


class _FakeKept:
    """The fake, and what is in it."""

    def __init__(self) -> None:
        self.store = FakeCouponStore()
        self.store.offsets = {(TOPIC_ID, 0): 10, (TOPIC_ID, 1): 10}

    async def coupons(self) -> dict[str, tuple[int, str]]:
        """Return version and status of each coupon."""
        known = self.store.coupons.values()
        return {one.code: (int(one.version), "cancelled" if one.is_cancelled == "t" else "issued") for one in known}

    async def letters(self) -> int:
        """Return how many dead letters there are."""
        return len(self.store.dead_letters)


class TestFakeStore(ConsumerStoreContract):
    """The contract, on the fake."""

    @pytest.fixture
    def kept(self) -> _FakeKept:
        """A fresh one."""
        return _FakeKept()
