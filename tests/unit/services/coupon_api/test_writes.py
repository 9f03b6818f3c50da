"""What issuing, redeeming and cancelling answer to whom, on the fake store."""

from datetime import UTC, datetime

import httpx
import orjson
import pytest

from loyalty.identifier import new_coupon_code
from tests.support.coupon_api_client import KEY, Json, assert_problem, cancel_body, issue_body, put
from tests.support.coupon_store_contract import SECOND, some_coupon
from tests.support.fake_coupon_api_store import FakeCouponStore


async def test_operator_issues_a_coupon_that_its_member_can_read(
    operator: httpx.AsyncClient, member: httpx.AsyncClient
) -> None:
    """What the order asked for is what the member finds."""
    body = issue_body()
    response = await operator.post("/v1/coupons", json=body, headers=KEY)
    coupon = response.json()

    assert response.status_code == 201
    assert {name: coupon[name] for name in ("member_id", "reward_id", "value_cents", "currency")} == {
        name: body[name] for name in ("member_id", "reward_id", "value_cents", "currency")
    }
    assert datetime.fromisoformat(coupon["expires_at"]) == datetime.fromisoformat(body["expires_at"])
    assert (await member.get(f"/v1/coupons/{coupon['code']}")).content == response.content


async def test_repeated_order_gets_the_same_bytes(operator: httpx.AsyncClient, store: FakeCouponStore) -> None:
    """Same key and body, spelt in another order and spacing: the stored answer, and one coupon."""
    body = issue_body()
    first = await operator.post("/v1/coupons", json=body, headers=KEY)
    again = await operator.post(
        "/v1/coupons",
        content=orjson.dumps(dict(reversed(body.items())), option=orjson.OPT_INDENT_2),
        headers={**KEY, "content-type": "application/json"},
    )

    assert (again.status_code, again.content) == (201, first.content)
    assert len(store.coupons) == 1


async def test_same_key_with_another_body_is_refused(operator: httpx.AsyncClient) -> None:
    """A key stands for one order."""
    await operator.post("/v1/coupons", json=issue_body(), headers=KEY)

    response = await operator.post("/v1/coupons", json=issue_body(value_cents=1), headers=KEY)
    assert_problem(response, 422, "idempotency-key-reused")


async def test_order_without_a_key_is_refused(operator: httpx.AsyncClient) -> None:
    """Nobody can issue twice by accident."""
    assert_problem(await operator.post("/v1/coupons", json=issue_body()), 422, "invalid-request")


async def test_order_that_ends_in_the_past_is_refused(operator: httpx.AsyncClient) -> None:
    """A coupon must live for a moment at least."""
    body = issue_body(expires_at=(datetime.now(UTC) - SECOND).isoformat())

    assert_problem(await operator.post("/v1/coupons", json=body, headers=KEY), 409, "expiry-in-past")


@pytest.mark.parametrize(
    ("changes", "field", "rule"),
    [
        ({"member_id": "1"}, "body.member_id", "string_pattern_mismatch"),
        ({"member_id": 1}, "body.member_id", "string_type"),
        ({"reward_id": "rw-A"}, "body.reward_id", "string_pattern_mismatch"),
        ({"value_cents": -1}, "body.value_cents", "greater_than_equal"),
        ({"value_cents": 100_000_000_001}, "body.value_cents", "less_than_equal"),
        ({"value_cents": True}, "body.value_cents", "int_type"),
        ({"value_cents": "7"}, "body.value_cents", "int_type"),
        ({"value_cents": 7.0}, "body.value_cents", "int_type"),
        ({"currency": "eur"}, "body.currency", "string_pattern_mismatch"),
        ({"expires_at": "2030-01-01"}, "body.expires_at", "timestamp"),
        ({"expires_at": "2030-01-01T00:00:00"}, "body.expires_at", "timestamp"),
        ({"expires_at": "2030-02-30T00:00:00Z"}, "body.expires_at", "timestamp"),
        ({"expires_at": "9999-12-31T23:59:59-23:00"}, "body.expires_at", "timestamp"),
        ({"expires_at": 1_900_000_000}, "body.expires_at", "datetime_type"),
        ({"currency": ...}, "body.currency", "missing"),
        ({"status": "redeemed"}, "body.?", "extra_forbidden"),
    ],
)
async def test_bad_order_is_refused_with_field_and_rule(
    operator: httpx.AsyncClient, store: FakeCouponStore, changes: Json, field: str, rule: str
) -> None:
    """The answer names what is wrong, and nothing is issued."""
    response = await operator.post("/v1/coupons", json=issue_body(**changes), headers=KEY)

    assert_problem(response, 422, "invalid-request")
    assert response.json()["errors"] == [{"field": field, "rule": rule}]
    assert store.coupons == {}


async def test_member_may_not_issue_or_cancel(store: FakeCouponStore, member: httpx.AsyncClient) -> None:
    """What costs the house money is the operator's."""
    coupon = put(store, some_coupon())
    for path, body in (("/v1/coupons", issue_body()), (f"/v1/coupons/{coupon.code}/cancel", cancel_body(coupon))):
        assert_problem(await member.post(path, json=body, headers=KEY), 403, "wrong-scope")

    assert store.coupons == {coupon.code: coupon}


async def test_member_redeems_their_own_coupon_and_repeats_get_the_same(
    store: FakeCouponStore, member: httpx.AsyncClient
) -> None:
    """The second answer is the first one, byte for byte."""
    coupon = put(store, some_coupon())
    first = await member.post(f"/v1/coupons/{coupon.code}/redeem")
    again = await member.post(f"/v1/coupons/{coupon.code}/redeem")

    assert (first.status_code, first.json()["status"], first.json()["version"]) == (200, "redeemed", 2)
    assert (again.status_code, again.content) == (200, first.content)


async def test_operator_may_not_redeem(store: FakeCouponStore, operator: httpx.AsyncClient) -> None:
    """A coupon is spent by its owner alone."""
    coupon = put(store, some_coupon())

    assert_problem(await operator.post(f"/v1/coupons/{coupon.code}/redeem"), 403, "wrong-scope")
    assert store.coupons[coupon.code] == coupon


async def test_stranger_cannot_redeem(store: FakeCouponStore, stranger: httpx.AsyncClient) -> None:
    """Knowing the code is not enough."""
    coupon = put(store, some_coupon())

    assert_problem(await stranger.post(f"/v1/coupons/{coupon.code}/redeem"), 404, "coupon-not-found")
    assert store.coupons[coupon.code] == coupon


async def test_expired_and_cancelled_coupons_are_refused_each_with_its_code(
    store: FakeCouponStore, member: httpx.AsyncClient, operator: httpx.AsyncClient
) -> None:
    """The member learns why."""
    expired, cancelled = put(store, some_coupon(expires=-SECOND)), put(store, some_coupon())
    await operator.post(f"/v1/coupons/{cancelled.code}/cancel", json=cancel_body(cancelled))

    assert_problem(await member.post(f"/v1/coupons/{expired.code}/redeem"), 409, "coupon-expired")
    assert_problem(await member.post(f"/v1/coupons/{cancelled.code}/redeem"), 409, "coupon-cancelled")


async def test_operator_cancels_and_repeats_get_the_same(store: FakeCouponStore, operator: httpx.AsyncClient) -> None:
    """The second answer is the first one, byte for byte."""
    coupon = put(store, some_coupon())
    path = f"/v1/coupons/{coupon.code}/cancel"
    first, again = [await operator.post(path, json=cancel_body(coupon)) for _ in range(2)]

    assert (first.status_code, first.json()["status"], first.json()["version"]) == (200, "cancelled", 2)
    assert (again.status_code, again.content) == (200, first.content)


async def test_coupon_that_has_not_arrived_is_cancelled_beforehand(
    operator: httpx.AsyncClient, member: httpx.AsyncClient
) -> None:
    """The member sees it as cancelled and cannot redeem it."""
    coupon = some_coupon()
    response = await operator.post(f"/v1/coupons/{coupon.code}/cancel", json=cancel_body(coupon))

    assert (response.status_code, response.json()["version"]) == (200, 2)
    assert (await member.get(f"/v1/coupons/{coupon.code}")).json()["status"] == "cancelled"


async def test_redeemed_coupon_cannot_be_cancelled(
    store: FakeCouponStore, member: httpx.AsyncClient, operator: httpx.AsyncClient
) -> None:
    """What was spent stays spent."""
    coupon = put(store, some_coupon())
    await member.post(f"/v1/coupons/{coupon.code}/redeem")

    response = await operator.post(f"/v1/coupons/{coupon.code}/cancel", json=cancel_body(coupon))
    assert_problem(response, 409, "coupon-used")


async def test_order_for_another_coupon_under_this_code_is_refused(
    store: FakeCouponStore, operator: httpx.AsyncClient
) -> None:
    """An order whose content contradicts the coupon cancels nothing."""
    coupon = put(store, some_coupon())
    path = f"/v1/coupons/{coupon.code}/cancel"

    assert_problem(await operator.post(path, json=cancel_body(coupon, value_cents=1)), 409, "coupon-mismatch")
    assert store.coupons[coupon.code] == coupon


@pytest.mark.parametrize(
    ("changes", "field", "rule"),
    [
        ({"code": new_coupon_code()}, "body.code", "must be the code in the path"),
        ({"redemption_id": "01A20E40-81CF-762A-B458-3C265386670D"}, "body.redemption_id", "string_pattern_mismatch"),
        ({"redemption_id": ...}, "body.redemption_id", "missing"),
        ({"version": 0}, "body.version", "greater_than_equal"),
        ({"version": 2**31}, "body.version", "less_than_equal"),
        ({"expires_at": "2001-01-01T00:00:00Z"}, "body", "expires_before_issued"),
        ({"status": "issued"}, "body.?", "extra_forbidden"),
    ],
)
async def test_bad_cancellation_is_refused_with_field_and_rule(
    operator: httpx.AsyncClient, store: FakeCouponStore, changes: Json, field: str, rule: str
) -> None:
    """The answer names what is wrong, and nothing is cancelled."""
    coupon = put(store, some_coupon())
    response = await operator.post(f"/v1/coupons/{coupon.code}/cancel", json=cancel_body(coupon, **changes))

    assert_problem(response, 422, "invalid-request")
    assert response.json()["errors"] == [{"field": field, "rule": rule}]
    assert store.coupons == {coupon.code: coupon}
