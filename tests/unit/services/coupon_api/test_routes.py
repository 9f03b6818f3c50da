"""What each route answers to whom, on the fake store."""

import httpx
import orjson
import pytest

from loyalty.identifier import new_coupon_code
from runtime.pages import encode_cursor
from services.coupon_api.coupon_view import encode
from services.coupon_api.schema import CouponAnswer
from tests.support.coupon_api_client import Api, assert_problem, check_answers, put
from tests.support.coupon_store_contract import DAY, SECOND, some_coupon
from tests.support.fake_coupon_api_store import FakeCouponStore, view_of


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
    assert_problem(await stranger.get("/v1/members/m-1/coupons"), 404, "member-not-found")
    assert_problem(await operator.get("/v1/members/M-1/coupons"), 404, "member-not-found")
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
