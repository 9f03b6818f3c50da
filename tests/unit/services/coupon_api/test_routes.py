"""What each route answers to whom, on the fake store."""

from datetime import UTC, datetime

import httpx
import orjson
import pytest

from loyalty.coupon import Coupon
from loyalty.identifier import new_coupon_code
from runtime.pages import encode_cursor
from services.coupon_api.coupon_view import encode
from services.coupon_api.schema import CouponAnswer
from tests.support.coupon_api_client import Api, Json, cancel_body, check_answers, issue_body
from tests.support.coupon_store_contract import DAY, SECOND, some_coupon
from tests.support.fake_coupon_api_store import FakeCouponStore, view_of

KEY = {"idempotency-key": "key-00001"}


def put(store: FakeCouponStore, coupon: Coupon) -> Coupon:
    """Let a coupon be there."""
    store.coupons[coupon.code] = coupon
    return coupon


def assert_problem(response: httpx.Response, status: int, code: str) -> None:
    """Assert that an answer is this problem."""
    assert (response.status_code, response.json().get("code")) == (status, code)
    assert response.headers["content-type"] == "application/problem+json"


async def test_member_reads_their_own_coupon(store: FakeCouponStore, member: httpx.AsyncClient) -> None:
    """The answer is the row, as JSON, and nothing else."""
    coupon = put(store, some_coupon())
    response = await member.get(f"/v1/coupons/{coupon.code}")

    assert response.status_code == 200
    assert response.headers["content-type"] == "application/json"
    assert response.content == encode(view_of(coupon))


async def test_operator_reads_any_coupon(store: FakeCouponStore, operator: httpx.AsyncClient) -> None:
    """An operator is shown a member's coupon."""
    coupon = put(store, some_coupon())

    assert (await operator.get(f"/v1/coupons/{coupon.code}")).json()["member_id"] == "m-1"


async def test_another_member_s_coupon_is_answered_as_one_that_does_not_exist(
    store: FakeCouponStore, stranger: httpx.AsyncClient
) -> None:
    """Nothing in the answer, but the request's id, tells a stranger that the coupon is there."""
    coupon = put(store, some_coupon())
    answers = [
        await stranger.get(f"/v1/coupons/{code}", headers={"x-request-id": "same"})
        for code in (coupon.code, new_coupon_code())
    ]

    for answer in answers:
        assert_problem(answer, 404, "coupon-not-found")
    assert answers[0].content == answers[1].content


@pytest.mark.parametrize("code", ["0", "0" * 17, "abcdefghjkmnpqrs", "ILOU" * 4, "%30" * 16, "0000000000000000%0A"])
async def test_code_in_another_spelling_names_nothing(
    member: httpx.AsyncClient, operator: httpx.AsyncClient, code: str
) -> None:
    """One coupon has one address: no lower case, no look-alike, no percent sign."""
    for client, method, path in ((member, "GET", ""), (member, "POST", "/redeem"), (operator, "POST", "/cancel")):
        response = await client.request(method, f"/v1/coupons/{code}{path}")

        assert response.status_code == 404


@pytest.mark.parametrize("path", ["/v1/coupons/0123456789ABCDEF", "/v1/members/m-1/coupons"])
async def test_request_without_a_token_is_refused(api: Api, path: str) -> None:
    """Every route asks who calls."""
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=api.edge), base_url="http://x") as client:
        assert_problem(await client.get(path), 401, "missing-token")


async def test_spans_of_a_read_come_back_in_the_header_and_stand_in_the_log(
    api: Api, member: httpx.AsyncClient, store: FakeCouponStore
) -> None:
    """A store that makes a span is seen in `Server-Timing`, and the log line says the same."""
    coupon = put(store, some_coupon())
    response = await member.get(f"/v1/coupons/{coupon.code}")

    assert response.headers["server-timing"].startswith("find_coupon;dur=")
    assert api.lines[-1]["server_timing"] == response.headers["server-timing"]


async def test_spans_of_a_refused_request_stand_in_the_log(
    api: Api, member: httpx.AsyncClient, store: FakeCouponStore
) -> None:
    """A request that ends in a problem has its spans in the log line, too."""
    del store
    await member.get(f"/v1/coupons/{new_coupon_code()}")

    assert api.lines[-1]["status"] == 404
    assert str(api.lines[-1]["server_timing"]).startswith("find_coupon;dur=")


async def test_log_line_does_not_hold_the_code(api: Api, member: httpx.AsyncClient, store: FakeCouponStore) -> None:
    """Whoever reads the log cannot spend the coupon."""
    coupon = put(store, some_coupon())
    await member.get(f"/v1/coupons/{coupon.code}")

    assert coupon.code not in repr(api.lines)
    assert api.lines[-1]["route"] == "/v1/coupons/{code}"


async def test_pages_lead_through_all_of_a_member_s_coupons(store: FakeCouponStore, member: httpx.AsyncClient) -> None:
    """Seven coupons in pages of three: each once, newest first, and no cursor on the last page."""
    coupons = [put(store, some_coupon(issued=-DAY * days)) for days in range(1, 8)]
    put(store, some_coupon(member_id="m-2"))
    seen: list[str] = []
    sizes: list[int] = []
    params: dict[str, str | int] = {"limit": 3}
    while True:
        page = (await member.get("/v1/members/m-1/coupons", params=params)).json()
        seen += [item["code"] for item in page["items"]]
        sizes.append(len(page["items"]))
        if page["next_cursor"] is None:
            break
        params["cursor"] = page["next_cursor"]

    assert seen == [coupon.code for coupon in coupons]
    assert sizes == [3, 3, 1]


async def test_page_that_ends_with_the_last_coupon_has_no_cursor(
    store: FakeCouponStore, member: httpx.AsyncClient
) -> None:
    """Three coupons in a page of three: nobody is sent to an empty page."""
    for _ in range(3):
        put(store, some_coupon())
    page = (await member.get("/v1/members/m-1/coupons", params={"limit": 3})).json()

    assert (len(page["items"]), page["next_cursor"]) == (3, None)


async def test_member_without_coupons_has_an_empty_page(member: httpx.AsyncClient) -> None:
    """Nothing is an answer."""
    assert (await member.get("/v1/members/m-1/coupons")).json() == {"items": [], "next_cursor": None}


async def test_list_of_another_member_is_not_found(stranger: httpx.AsyncClient, operator: httpx.AsyncClient) -> None:
    """A member cannot ask for another's list, nor anybody for one whose name is misspelt; an operator sees any."""
    assert_problem(await stranger.get("/v1/members/m-1/coupons"), 404, "not-found")
    assert_problem(await operator.get("/v1/members/M-1/coupons"), 404, "not-found")
    assert (await operator.get("/v1/members/m-1/coupons")).status_code == 200


@pytest.mark.parametrize(
    "query",
    [
        "limit=0",
        "limit=101",
        "limit=-1",
        "limit=1.0",
        "limit=%D9%A1",
        "limit=",
        "limit=1&limit=2",
        "offset=1",
        "cursor=",
        "cursor=***",
        "cursor=" + encode_cursor((1,)),
        "cursor=" + encode_cursor((1, "x")),
        "cursor=" + encode_cursor(("0", "0123456789ABCDEF")),
        "cursor=" + encode_cursor((2**62, "0123456789ABCDEF")),
        "cursor=" + encode_cursor((-(2**62), "0123456789ABCDEF")),
    ],
)
async def test_bad_page_is_refused(member: httpx.AsyncClient, query: str) -> None:
    """A limit out of range, an unknown parameter and a made-up cursor are the client's fault, and named so."""
    assert_problem(await member.get(f"/v1/members/m-1/coupons?{query}"), 422, "invalid-request")


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


async def test_answers_are_as_the_document_declares_them(
    store: FakeCouponStore, member: httpx.AsyncClient, operator: httpx.AsyncClient
) -> None:
    """Each kind of success fits the OpenAPI schema of its route, and the class that schema is made from."""
    coupons = [put(store, some_coupon()) for _ in range(2)]
    put(store, some_coupon(expires=-SECOND))

    await check_answers(member, operator, coupons[0], coupons[1])


async def test_schema_refuses_an_answer_that_is_wrong() -> None:
    """The test above can fail: an answer with a field too many, too few or of another kind does not fit."""
    good = orjson.loads(encode(view_of(some_coupon())))
    CouponAnswer.model_validate_json(orjson.dumps(good))
    for bad in ({**good, "source": "event"}, {**good, "version": "1"}, {**good, "expires_at": "soon"}):
        with pytest.raises(ValueError, match="Coupon"):
            CouponAnswer.model_validate_json(orjson.dumps(bad), strict=True)


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("DELETE", "/v1/coupons/0123456789ABCDEF", "GET"),
        ("GET", "/v1/coupons", "POST"),
        ("GET", "/v1/coupons/0123456789ABCDEF/redeem", "POST"),
        ("PUT", "/v1/members/m-1/coupons", "GET"),
    ],
)
async def test_wrong_method_is_told_the_right_ones(
    member: httpx.AsyncClient, method: str, path: str, allow: str
) -> None:
    """405 with the whole Allow."""
    response = await member.request(method, path)

    assert_problem(response, 405, "method-not-allowed")
    assert response.headers["allow"] == allow
