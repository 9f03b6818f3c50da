"""The API and the consumer on one table: whatever arrives when, the two never contradict each other."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime

import asyncpg
import pytest
from pydantic import SecretStr

from loyalty.coupon import Coupon
from loyalty.errors import CouponCancelledError, CouponUsedError
from loyalty.event import CouponEvent, CouponSnapshot, EventType, encode
from loyalty.identifier import new_id
from runtime.postgres import open_pool
from runtime.settings import PostgresSettings
from services.coupon_api.coupon_view import CouponView
from services.coupon_api.store import PostgresCouponStore
from services.coupon_api.trace import Tracer
from services.coupon_consumer.event_row import decode_row
from services.coupon_consumer.store import CouponStore, Progress, Saved, Work
from tests.support.coupon_store_contract import some_coupon
from tests.support.databases import PASSWORDS
from tests.support.fake_kafka_client import record

STORED = Saved(stored=1, skipped=0, dead_lettered=0)
SKIPPED = Saved(stored=0, skipped=1, dead_lettered=0)


class Both:
    """The API's store and the consumer's, each under its own role, and events that arrive one by one."""

    def __init__(self, api: PostgresCouponStore, consumer: CouponStore) -> None:
        self.api = api
        self.consumer = consumer
        self._offset = 0

    async def arrive(self, coupon: Coupon, kind: EventType) -> Saved:
        """Let the consumer store one event about the coupon as it is at this version."""
        snapshot = CouponSnapshot(
            coupon.code,
            coupon.member_id,
            coupon.reward_id,
            coupon.redemption_id,
            coupon.value.cents,
            coupon.value.currency,
            coupon.issued_at,
            coupon.expires_at,
            coupon.version,
        )
        payload, key = encode(CouponEvent(new_id(), kind, datetime.now(UTC), snapshot)), coupon.code.encode()
        begin, self._offset = self._offset, self._offset + 1
        step = Progress("topic-id", 0, begin, self._offset)
        return await self.consumer.save(Work([step], [decode_row(payload, key)], [record(0, begin, payload, key)], []))

    async def view(self, coupon: Coupon) -> CouponView:
        """Read the coupon through the API."""
        view = await self.api.find_coupon(coupon.code)
        assert view is not None
        return view


@pytest.fixture
async def both(postgres_settings: PostgresSettings, administrator: "asyncpg.Connection") -> AsyncIterator[Both]:
    """Both stores on an empty database; the consumer stands at offset 0."""
    del administrator  # it emptied the tables
    role = {"user": "coupon_consumer", "password": SecretStr(PASSWORDS["coupon_consumer"])}
    async with open_pool(postgres_settings) as api, open_pool(postgres_settings.model_copy(update=role)) as pool:
        consumer = CouponStore(pool, group="group", topic="coupon-events")
        await consumer.begin_at("topic-id", {0: 0})
        yield Both(PostgresCouponStore(api, Tracer(capacity=8)), consumer)


async def test_late_issue_of_a_coupon_that_was_cancelled_before_it_came_is_skipped(both: Both) -> None:
    """A cancelled coupon that had not arrived is never brought to life by its own `coupon.issued`, however late."""
    coupon = some_coupon()
    cancelled = await both.api.cancel_coupon(replace(coupon, version=2))

    assert await both.arrive(coupon, EventType.ISSUED) == SKIPPED
    assert await both.arrive(replace(coupon, version=2), EventType.CANCELLED) == SKIPPED
    assert await both.view(coupon) == cancelled
    with pytest.raises(CouponCancelledError):
        await both.api.redeem_coupon(coupon.code, "m-1")


async def test_issue_then_cancel_by_the_api_then_its_event_changes_once(both: Both) -> None:
    """The event of a cancellation that the API knows already has an equal version and is skipped."""
    coupon = some_coupon()
    assert await both.arrive(coupon, EventType.ISSUED) == STORED
    cancelled = await both.api.cancel_coupon(replace(coupon, version=2))

    assert cancelled["version"] == 2
    assert await both.arrive(replace(coupon, version=2), EventType.CANCELLED) == SKIPPED
    assert await both.view(coupon) == cancelled


async def test_no_event_touches_a_redeemed_coupon(both: Both) -> None:
    """Not a repeated issue, nor a cancellation of any version: what was spent stays spent."""
    coupon = some_coupon()
    await both.arrive(coupon, EventType.ISSUED)
    redeemed = await both.api.redeem_coupon(coupon.code, "m-1")

    assert await both.arrive(coupon, EventType.ISSUED) == SKIPPED
    for version in (2, 3, 99):
        assert await both.arrive(replace(coupon, version=version), EventType.CANCELLED) == SKIPPED
        with pytest.raises(CouponUsedError):
            await both.api.cancel_coupon(replace(coupon, version=version))
    assert await both.view(coupon) == redeemed


async def test_racing_redeem_and_cancelling_event_leave_one_winner(both: Both) -> None:
    """In each of 30 races the coupon ends redeemed, and the event skipped, or cancelled, and the member refused."""
    for _ in range(30):
        coupon = some_coupon()
        await both.arrive(coupon, EventType.ISSUED)
        redeemed, saved = await asyncio.gather(
            both.api.redeem_coupon(coupon.code, "m-1"),
            both.arrive(replace(coupon, version=2), EventType.CANCELLED),
            return_exceptions=True,
        )
        view = await both.view(coupon)

        if view["status"] == "redeemed":
            assert (redeemed, saved) == (view, SKIPPED)
        else:
            assert (type(redeemed), saved, view["status"]) == (CouponCancelledError, STORED, "cancelled")
