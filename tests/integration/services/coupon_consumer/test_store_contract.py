"""The real store obeys the contract that the fake obeys."""

import asyncpg
import pytest

from runtime.postgres import PostgresPool
from services.coupon_consumer.store import CouponStore
from tests.support.consumer_store_contract import TOPIC_ID, ConsumerStoreContract
from tests.support.coupon_events import coupon_rows


class _RealKept:
    """The tables, and what is in them."""

    def __init__(self, pool: PostgresPool, administrator: asyncpg.Connection) -> None:
        self.store = CouponStore(pool, group="group", topic="events")
        self._administrator = administrator

    async def coupons(self) -> dict[str, tuple[int, str]]:
        """Return version and status of each coupon."""
        rows = await coupon_rows(self._administrator)
        return {code: (int(str(row[8])), str(row[9])) for code, row in rows.items()}

    async def letters(self) -> int:
        """Return how many dead letters there are."""
        return int(await self._administrator.fetchval("select count(*) from dead_letters"))


class TestRealStore(ConsumerStoreContract):
    """The contract, on Postgres."""

    @pytest.fixture
    async def kept(self, pool: PostgresPool, administrator: asyncpg.Connection) -> _RealKept:
        """Empty tables, with two partitions that have begun."""
        real = _RealKept(pool, administrator)
        await real.store.begin_at(TOPIC_ID, {0: 10, 1: 10})
        return real
