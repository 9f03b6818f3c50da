"""What each route answers to whom, on the fake store."""

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import orjson
import pytest

from loyalty.event import EventType
from loyalty.identifier import new_id
from loyalty.reward import Member
from tests.support.fake_reward_store import FakeRewardStore
from tests.support.reward_store_client import KEY, Api, check_answers
from tests.support.reward_store_contract import event_of, some_reward

COFFEE = {"reward_id": "rw-coffee"}
TRACE = "0af7651916cd43dd8448eb211c80319c"


@pytest.fixture
def store() -> FakeRewardStore:
    """A store with two rewards and the member m-1, who has 250 points."""
    store = FakeRewardStore()
    for reward in (some_reward(), some_reward("rw-tea", points_cost=1_000), some_reward("rw-gone", stock=0)):
        store.by_reward[reward.reward_id] = reward
    store.by_member["m-1"] = Member("m-1", 250)
    return store


@pytest.fixture
def api(store: FakeRewardStore, tmp_path: Path) -> Api:
    """The API on that store."""
    return Api(store, store, tmp_path / "secret")


@pytest.fixture
async def member(api: Api) -> AsyncIterator[httpx.AsyncClient]:
    """The member m-1."""
    async with api.client("m-1") as client:
        yield client


@pytest.fixture
async def stranger(api: Api) -> AsyncIterator[httpx.AsyncClient]:
    """Another member, m-2."""
    async with api.client("m-2") as client:
        yield client


@pytest.fixture
async def operator(api: Api) -> AsyncIterator[httpx.AsyncClient]:
    """An operator."""
    async with api.client("ops-1", "operator") as client:
        yield client


def assert_problem(response: httpx.Response, status: int, code: str) -> None:
    """Assert that an answer is this problem."""
    assert (response.status_code, response.json().get("code")) == (status, code)
    assert response.headers["content-type"] == "application/problem+json"


async def redeemed_id(member: httpx.AsyncClient, key: str = "key-0001") -> str:
    """Redeem and return the redemption's id."""
    answer = await member.post("/v1/redemptions", json=COFFEE, headers={"idempotency-key": key})
    assert answer.status_code == 201
    return str(answer.json()["redemption_id"])


async def test_every_answer_fits_its_declared_schema(member: httpx.AsyncClient) -> None:
    """The API's documents tell the truth about each success."""
    await check_answers(member)


async def test_every_reward_is_listed_once_over_the_pages(member: httpx.AsyncClient) -> None:
    """Following `next_cursor` shows each reward once, and the last page says that it is the last."""
    names, path = [], "/v1/rewards?limit=2"
    while path:
        page = (await member.get(path)).json()
        names += [reward["reward_id"] for reward in page["items"]]
        path = f"/v1/rewards?limit=2&cursor={page['next_cursor']}" if page["next_cursor"] else ""
    assert names == ["rw-coffee", "rw-gone", "rw-tea"]


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=101", "limit=x", "cursor=!", "cursor=e30", "page=2", "limit=1&limit=2"]
)
async def test_a_query_outside_its_rules_is_refused(member: httpx.AsyncClient, query: str) -> None:
    """Bounds, unknown names, names given twice and made-up cursors are 422."""
    assert_problem(await member.get(f"/v1/rewards?{query}"), 422, "invalid-request")


@pytest.mark.parametrize("name", ["rw-none", "RW-coffee", "coffee", "rw-", "rw-%63offee", "rw-coffee%0a"])
async def test_a_reward_in_another_spelling_or_none_is_not_found(member: httpx.AsyncClient, name: str) -> None:
    """One reward has one address."""
    assert (await member.get(f"/v1/rewards/{name}")).status_code == 404


async def test_a_member_sees_their_own_points_alone(member: httpx.AsyncClient, stranger: httpx.AsyncClient) -> None:
    """Another's points are answered as if there were no such member, to the byte."""
    assert (await member.get("/v1/members/m-1")).json() == {"member_id": "m-1", "points": 250}
    headers = {"x-request-id": "same"}
    answers = [await stranger.get(f"/v1/members/{name}", headers=headers) for name in ("m-1", "m-none")]
    assert_problem(answers[0], 404, "member-not-found")
    assert answers[0].content == answers[1].content


async def test_an_operator_sees_any_members_points_and_redeems_nothing(operator: httpx.AsyncClient) -> None:
    """Looking is an operator's, spending is not."""
    assert (await operator.get("/v1/members/m-1")).json()["points"] == 250
    assert_problem(await operator.get("/v1/members/M-1"), 404, "member-not-found")
    answer = await operator.post("/v1/redemptions", json=COFFEE, headers=KEY)
    assert_problem(answer, 403, "wrong-scope")
    assert_problem(await operator.post(f"/v1/redemptions/{new_id()}/cancel"), 403, "wrong-scope")


async def test_a_redemption_answers_201_with_the_code_and_tells_the_relay(
    api: Api, store: FakeRewardStore, member: httpx.AsyncClient
) -> None:
    """The event carries on the request's trace, and the relay is told at once."""
    headers = {**KEY, "traceparent": f"00-{TRACE}-b7ad6b7169203331-01"}
    answer = await member.post("/v1/redemptions", json=COFFEE, headers=headers)
    [waiting] = store.outbox.waiting
    assert answer.status_code == 201
    assert answer.json()["coupon_code"] == waiting.row.key
    assert waiting.row.headers["traceparent"].split("-")[1] == TRACE
    assert waiting.row.headers["traceparent"] != headers["traceparent"]
    assert api.nudges == 1


async def test_the_same_key_gets_the_same_answer_and_another_body_422(
    store: FakeRewardStore, member: httpx.AsyncClient
) -> None:
    """A repetition is answered to the byte, however its JSON is spaced; another body is refused."""
    first = await member.post("/v1/redemptions", json=COFFEE, headers=KEY)
    spaced = b'{ "reward_id" :  "rw-coffee" }'
    again = await member.post("/v1/redemptions", content=spaced, headers={**KEY, "content-type": "application/json"})
    other = await member.post("/v1/redemptions", json={"reward_id": "rw-tea"}, headers=KEY)
    assert (again.status_code, again.content) == (201, first.content)
    assert_problem(other, 422, "idempotency-key-reused")
    assert store.by_member["m-1"].points == 150


@pytest.mark.parametrize("key", [None, "short", "x" * 129, "with space", "ümlaut-key"])
async def test_a_missing_or_misspelt_key_is_refused(
    store: FakeRewardStore, member: httpx.AsyncClient, key: str | None
) -> None:
    """Without a sound key nothing is redeemed."""
    headers = {} if key is None else {b"idempotency-key": key.encode()}
    answer = await member.post("/v1/redemptions", json=COFFEE, headers=headers)
    assert_problem(answer, 422, "invalid-request")
    assert store.redemptions == {}


@pytest.mark.parametrize(
    ("reward_id", "status", "code"),
    [
        ("rw-gone", 409, "sold-out"),
        ("rw-tea", 409, "insufficient-points"),
        ("rw-none", 404, "reward-not-found"),
    ],
)
async def test_a_refusal_has_its_own_code_and_changes_nothing(
    store: FakeRewardStore, member: httpx.AsyncClient, reward_id: str, status: int, code: str
) -> None:
    """Each reason to say no can be told from the others."""
    answer = await member.post("/v1/redemptions", json={"reward_id": reward_id}, headers=KEY)
    assert_problem(answer, status, code)
    assert (store.by_member["m-1"].points, store.redemptions, store.outbox.waiting) == (250, {}, [])


async def test_a_token_of_somebody_without_an_account_redeems_nothing(stranger: httpx.AsyncClient) -> None:
    """A good token is not yet a member."""
    answer = await stranger.post("/v1/redemptions", json=COFFEE, headers=KEY)
    assert_problem(answer, 404, "member-not-found")


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (b"", 400),
        (b"{", 400),
        (b"[]", 422),
        (b"{}", 422),
        (b'{"reward_id": null}', 422),
        (b'{"reward_id": 7}', 422),
        (b'{"reward_id": "coffee"}', 422),
        (b'{"reward_id": "rw-coffee\\n"}', 422),
        (b'{"reward_id": "rw-coffee", "points": 1}', 422),
        (b'{"reward_id": "rw-coffee", "reward_id": "rw-tea"}', 400),
        (b'{"reward_id": "rw-\\ud800"}', 400),
        (b'{"reward_id": "rw-\xff"}', 400),
    ],
)
async def test_a_body_outside_its_rules_is_refused_before_anything_happens(
    store: FakeRewardStore, member: httpx.AsyncClient, content: bytes, status: int
) -> None:
    """Syntax is 400, shape is 422, and neither repeats what was sent."""
    headers = {**KEY, "content-type": "application/json"}
    answer = await member.post("/v1/redemptions", content=content, headers=headers)
    assert answer.status_code == status
    assert store.answers == {}


async def test_a_cancellation_gives_points_back_and_is_the_same_when_repeated(
    api: Api, store: FakeRewardStore, member: httpx.AsyncClient
) -> None:
    """The coupon is cancelled first, then points return, once; the event follows."""
    path = f"/v1/redemptions/{await redeemed_id(member)}/cancel"
    answers = [await member.post(path) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 200]
    assert {answer.content for answer in answers} == {answers[0].content}
    assert orjson.loads(answers[0].content)["status"] == "cancelled"
    assert store.by_member["m-1"].points == 250
    [coupon] = api.coupons.cancelled.values()
    assert coupon.version == 2
    assert event_of(store.outbox.waiting[1].row).type is EventType.CANCELLED


async def test_a_used_coupon_cannot_be_cancelled(api: Api, store: FakeRewardStore, member: httpx.AsyncClient) -> None:
    """The redemption stands, and asking again gets the same refusal."""
    path = f"/v1/redemptions/{await redeemed_id(member)}/cancel"
    [redemption] = store.redemptions.values()
    api.coupons.used.add(redemption.coupon_code)
    for _ in range(2):
        assert_problem(await member.post(path), 409, "coupon-used")
    assert store.redemptions == {redemption.redemption_id: redemption}
    assert store.by_member["m-1"].points == 150


async def test_a_cancellation_without_coupon_api_is_503_and_can_be_asked_for_again(
    api: Api, store: FakeRewardStore, member: httpx.AsyncClient
) -> None:
    """Nothing is given back before coupon_api has spoken; the next request joins in and finishes."""
    path = f"/v1/redemptions/{await redeemed_id(member)}/cancel"
    api.coupons.is_away = True
    answer = await member.post(path)
    assert_problem(answer, 503, "dependency-unavailable")
    assert int(answer.headers["retry-after"]) >= 1
    assert store.by_member["m-1"].points == 150
    api.coupons.is_away = False
    assert (await member.post(path)).json()["status"] == "cancelled"
    assert store.by_member["m-1"].points == 250


async def test_another_members_redemption_is_not_found(
    store: FakeRewardStore, member: httpx.AsyncClient, stranger: httpx.AsyncClient
) -> None:
    """It cannot be cancelled by a stranger, and an id in another spelling names nothing."""
    name = await redeemed_id(member)
    assert_problem(await stranger.post(f"/v1/redemptions/{name}/cancel"), 404, "redemption-not-found")
    for spelling in (name.upper(), name.replace("-", ""), "1", str(new_id())):
        if spelling != name:
            assert_problem(await member.post(f"/v1/redemptions/{spelling}/cancel"), 404, "redemption-not-found")
    assert store.by_member["m-1"].points == 150


async def test_known_verbs_on_a_wrong_path_are_405_with_all_that_is_allowed(member: httpx.AsyncClient) -> None:
    """The client learns what would work."""
    for path, method, allowed in (
        ("/v1/rewards", "POST", "GET"),
        ("/v1/redemptions", "GET", "POST"),
        (f"/v1/redemptions/{new_id()}/cancel", "DELETE", "POST"),
    ):
        answer = await member.request(method, path)
        assert_problem(answer, 405, "method-not-allowed")
        assert answer.headers["allow"] == allowed


async def test_no_route_answers_without_a_token(api: Api) -> None:
    """Only the API's documents are public."""
    transport = httpx.ASGITransport(app=api.edge)
    async with httpx.AsyncClient(transport=transport, base_url="http://reward-store") as nobody:
        for method, path in (("GET", "/v1/rewards"), ("GET", "/v1/members/m-1"), ("POST", "/v1/redemptions")):
            assert_problem(await nobody.request(method, path), 401, "missing-token")
        assert (await nobody.get("/openapi.json")).status_code == 200
