"""What each reading route answers to whom, on the fake store."""

from datetime import timedelta

import httpx
import orjson
import pytest

from loyalty.campaign import CampaignStatus
from loyalty.identifier import new_campaign_id
from runtime.pages import encode_cursor
from services.campaign_api.campaign_view import encode
from services.campaign_api.schema import CampaignAnswer
from tests.support.campaign_api_client import PATH, Api, assert_problem, check_answers, day_of, path_of, put
from tests.support.campaign_sample import (
    ACTIVE,
    DAY,
    DRAFT,
    ENDED,
    MILLISECOND,
    PAUSED,
    newest_first,
    some_campaign,
)
from tests.support.fake_campaign_store import FakeCampaignStore, view_of_campaign

PUBLIC = (ACTIVE, PAUSED, ENDED)


async def ids_of(client: httpx.AsyncClient, **params: str | int) -> list[str]:
    """Return the ids of a page."""
    answer = await client.get(PATH, params=params)
    assert answer.status_code == 200, answer.text
    return [item["campaign_id"] for item in answer.json()["items"]]


@pytest.mark.parametrize("status", PUBLIC)
async def test_member_reads_a_public_campaign(
    store: FakeCampaignStore, member: httpx.AsyncClient, status: CampaignStatus
) -> None:
    """The answer is the document, as JSON, and nothing else; its version is its ETag."""
    campaign = put(store, some_campaign(status, version=12))
    response = await member.get(path_of(campaign))

    assert response.status_code == 200
    assert response.headers["content-type"] == "application/json"
    assert response.headers["etag"] == '"12"'
    assert response.content == encode(view_of_campaign(campaign))


async def test_draft_is_for_operators_alone(
    store: FakeCampaignStore, member: httpx.AsyncClient, operator: httpx.AsyncClient
) -> None:
    """Nothing in the answer, but the request's id, tells a member that the draft is there; an operator reads it."""
    draft = put(store, some_campaign(DRAFT))
    answers = [
        await member.get(f"{PATH}/{campaign_id}", headers={"x-request-id": "same", "if-none-match": '"1"'})
        for campaign_id in (draft.campaign_id, new_campaign_id())
    ]

    for answer in answers:
        assert_problem(answer, 404, "campaign-not-found")
    assert answers[0].content == answers[1].content
    assert "etag" not in answers[0].headers
    assert (await operator.get(path_of(draft))).json()["status"] == "draft"


@pytest.mark.parametrize(
    "campaign_id",
    [
        "0",
        "cp-",
        "cp-01A20E40-81CF-762A-B458-3C265386670D",
        "cp-01a20e40-81cf-462a-b458-3c265386670d",
        "cp-01a20e4081cf762ab4583c265386670d",
        "01a20e40-81cf-762a-b458-3c265386670d",
        "cp-01a20e40-81cf-762a-b458-3c265386670d%0A",
        "cp%2D01a20e40-81cf-762a-b458-3c265386670d",
        "%24where",
    ],
)
async def test_id_in_another_spelling_names_nothing(operator: httpx.AsyncClient, campaign_id: str) -> None:
    """One campaign has one address, for every method: no upper case, no other version, no percent sign."""
    headers = {"if-match": "*"}
    for method, body in (("GET", None), ("PATCH", {"name": "Winter"}), ("DELETE", None)):
        response = await operator.request(method, f"{PATH}/{campaign_id}", json=body, headers=headers)

        assert response.status_code == 404


@pytest.mark.parametrize(
    ("known", "status"),
    [
        ('"3"', 304),
        ('W/"3"', 304),
        ("*", 304),
        (" * ", 304),
        ('"1", "3"', 304),
        ('"1","3" , "x"', 304),
        (', "3",', 304),
        ('"2"', 200),
        ('"03"', 200),
        ('"+3"', 200),
        ('"3 "', 422),
        ('"a,3"', 200),
        ('""', 200),
        ("3", 422),
        ('"3', 422),
        ('"3" "4"', 422),
        ('w/"3"', 422),
        ('*, "3"', 422),
        (",", 422),
        ("", 422),
    ],
)
async def test_known_version_is_not_sent_again(
    store: FakeCampaignStore, member: httpx.AsyncClient, known: str, status: int
) -> None:
    """If-None-Match compares weakly, in lists too; 304 has the ETag and no body, and what is no list is refused."""
    campaign = put(store, some_campaign(ACTIVE, version=3))
    response = await member.get(path_of(campaign), headers={"if-none-match": known})

    assert response.status_code == status
    if status == 304:
        assert (response.content, response.headers["etag"]) == (b"", '"3"')
        assert "content-type" not in response.headers
    elif status == 422:
        assert response.json()["errors"] == [{"field": "header.if-none-match", "rule": "entity tags"}]


async def test_several_lines_of_known_versions_are_one_list(
    store: FakeCampaignStore, member: httpx.AsyncClient
) -> None:
    """A header that is sent twice counts as a list of both."""
    campaign = put(store, some_campaign(ACTIVE, version=3))
    headers = [("if-none-match", '"1"'), ("if-none-match", '"3"')]

    assert (await member.get(path_of(campaign), headers=headers)).status_code == 304


@pytest.mark.parametrize("path", [PATH, f"{PATH}/cp-01a20e40-81cf-762a-b458-3c265386670d"])
async def test_request_without_a_token_is_refused(api: Api, path: str) -> None:
    """Every route asks who calls."""
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=api.edge), base_url="http://x") as client:
        assert_problem(await client.get(path), 401, "missing-token")


async def test_pages_lead_through_all_campaigns(store: FakeCampaignStore, operator: httpx.AsyncClient) -> None:
    """Seven campaigns in pages of three: each once, newest start first, and no cursor on the last page."""
    campaigns = [put(store, some_campaign(starts=-DAY * days)) for days in (1, 1, 2, 3, 4, 5, 6)]
    seen: list[str] = []
    sizes: list[int] = []
    params: dict[str, str | int] = {"limit": 3}
    while True:
        page = (await operator.get(PATH, params=params)).json()
        seen += [item["campaign_id"] for item in page["items"]]
        sizes.append(len(page["items"]))
        if page["next_cursor"] is None:
            break
        params["cursor"] = page["next_cursor"]

    assert seen == newest_first(*campaigns)
    assert sizes == [3, 3, 1]


async def test_page_that_ends_with_the_last_campaign_has_no_cursor(
    store: FakeCampaignStore, operator: httpx.AsyncClient
) -> None:
    """Three campaigns in a page of three: nobody is sent to an empty page."""
    for _ in range(3):
        put(store, some_campaign())
    page = (await operator.get(PATH, params={"limit": 3})).json()

    assert (len(page["items"]), page["next_cursor"]) == (3, None)


async def test_drafts_are_left_out_of_what_a_member_lists(
    store: FakeCampaignStore, member: httpx.AsyncClient, operator: httpx.AsyncClient
) -> None:
    """A member sees three of the four statuses, and by status each of the three; an operator sees all four."""
    campaigns = {status: put(store, some_campaign(status)).campaign_id for status in CampaignStatus}

    assert set(await ids_of(member)) == {campaigns[status] for status in PUBLIC}
    assert set(await ids_of(operator)) == set(campaigns.values())
    for status in CampaignStatus:
        assert await ids_of(operator, status=status.value) == [campaigns[status]]
        assert await ids_of(member, status=status.value) == ([campaigns[status]] if status in PUBLIC else [])


async def test_time_is_met_from_the_start_on_and_before_the_end(
    store: FakeCampaignStore, member: httpx.AsyncClient
) -> None:
    """To the microsecond, in whatever offset the time is written."""
    campaign = put(store, some_campaign(ACTIVE))
    microsecond = timedelta(microseconds=1)
    times = {
        campaign.starts_at - microsecond: False,
        campaign.starts_at: True,
        campaign.starts_at + microsecond: True,
        campaign.ends_at - microsecond: True,
        campaign.ends_at: False,
    }
    for time, meets in times.items():
        assert await ids_of(member, on=time.isoformat()) == [campaign.campaign_id] * meets
    local = (campaign.starts_at.replace(tzinfo=None) + timedelta(hours=5, minutes=30)).isoformat() + "+05:30"
    assert await ids_of(member, on=local) == [campaign.campaign_id]


async def test_day_is_met_by_whatever_its_dates_touch_in_utc(
    store: FakeCampaignStore, member: httpx.AsyncClient
) -> None:
    """A campaign from noon to the midnight two days later is met by both days, not by the day before or after."""
    midnight = some_campaign().starts_at.replace(hour=0, minute=0, second=0, microsecond=0)
    campaign = put(store, some_campaign(ACTIVE, now=midnight, starts=DAY / 2, ends=2 * DAY))
    days = {midnight - MILLISECOND: False, midnight: True, midnight + DAY: True, midnight + 2 * DAY: False}

    for time, meets in days.items():
        assert await ids_of(member, on=day_of(time)) == [campaign.campaign_id] * meets


async def test_filters_narrow_each_other_and_go_on_behind_a_cursor(
    store: FakeCampaignStore, member: httpx.AsyncClient
) -> None:
    """Of five campaigns two are active on the day; in pages of one the second follows the first, and that is all."""
    first, second = (put(store, some_campaign(ACTIVE, starts=-DAY * days)) for days in (1, 2))
    put(store, some_campaign(PAUSED))
    put(store, some_campaign(ACTIVE, starts=5 * DAY, ends=6 * DAY))
    put(store, some_campaign(ACTIVE, starts=-6 * DAY, ends=-5 * DAY))
    wanted: dict[str, str | int] = {"status": "active", "on": day_of(first.starts_at + DAY), "limit": 1}
    page = (await member.get(PATH, params=wanted)).json()
    rest = (await member.get(PATH, params={**wanted, "cursor": page["next_cursor"]})).json()

    assert [item["campaign_id"] for item in page["items"] + rest["items"]] == [first.campaign_id, second.campaign_id]
    assert rest["next_cursor"] is None


async def test_nothing_is_an_answer(member: httpx.AsyncClient) -> None:
    """Without campaigns there is an empty page."""
    assert (await member.get(PATH)).json() == {"items": [], "next_cursor": None}


ID = "cp-01a20e40-81cf-762a-b458-3c265386670d"


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("limit=0", "query.limit"),
        ("limit=101", "query.limit"),
        ("limit=", "query.limit"),
        ("limit=1&limit=2", "query.limit"),
        ("offset=1", "query"),
        ("status=", "query.status"),
        ("status=Active", "query.status"),
        ("status=gone", "query.status"),
        ("status=active&status=paused", "query.status"),
        ("status=active%00", "query.status"),
        ("status[$ne]=active", "query"),
        ("on=", "query.on"),
        ("on=today", "query.on"),
        ("on=2026-02-30", "query.on"),
        ("on=2026-1-1", "query.on"),
        ("on=1999-12-31", "query.on"),
        ("on=3000-01-01", "query.on"),
        ("on=2026-01-01T00:00:00", "query.on"),
        ("on=2026-01-01T00:00:00+00:00", "query.on"),
        ("on=2026-01-01T24:00:00Z", "query.on"),
        ("on=1767225600", "query.on"),
        ("on=%D9%A2026-01-01", "query.on"),
        ("on=2026-01-01&on=2026-01-02", "query.on"),
        ("cursor=", "query.cursor"),
        ("cursor=***", "query.cursor"),
        ("cursor=" + encode_cursor((1,)), "query.cursor"),
        ("cursor=" + encode_cursor((1, "x")), "query.cursor"),
        ("cursor=" + encode_cursor(("0", ID)), "query.cursor"),
        ("cursor=" + encode_cursor((2**62, ID)), "query.cursor"),
        ("cursor=" + encode_cursor((-(2**62), ID)), "query.cursor"),
    ],
)
async def test_bad_query_is_refused_with_its_field(member: httpx.AsyncClient, query: str, field: str) -> None:
    """Values out of range, unknown parameters, doubled ones and a made-up cursor are the client's fault, named so."""
    response = await member.get(f"{PATH}?{query}")

    assert_problem(response, 422, "invalid-request")
    assert [error["field"] for error in response.json()["errors"]] == [field]


@pytest.mark.parametrize("time", ["2000-01-01", "2999-12-31", "2000-01-01T00:00:00Z", "2999-12-31T23:59:59.999999Z"])
async def test_first_and_last_time_can_be_asked_for(member: httpx.AsyncClient, time: str) -> None:
    """The ends of what the API knows as a time are times."""
    assert await ids_of(member, on=time) == []


async def test_answers_are_as_the_document_declares_them(
    store: FakeCampaignStore, member: httpx.AsyncClient, operator: httpx.AsyncClient
) -> None:
    """Each kind of success fits the OpenAPI schema of its route, and the class that schema is made from."""
    campaign = put(store, some_campaign())
    for status in PUBLIC:
        put(store, some_campaign(status))

    await check_answers(member, operator, campaign)


async def test_document_names_conditions_and_what_comes_of_them(member: httpx.AsyncClient) -> None:
    """304 stands with the read alone, 412 and 428 with what needs If-Match, and both headers with their routes."""
    operations = (await member.get("/openapi.json")).json()["paths"][f"{PATH}/{{campaign_id}}"]
    headers = {
        method: {one["name"]: one["required"] for one in operation["parameters"] if one["in"] == "header"}
        for method, operation in operations.items()
    }

    assert {method for method, operation in operations.items() if "304" in operation["responses"]} == {"get"}
    assert headers == {"get": {"If-None-Match": False}, "patch": {"If-Match": True}, "delete": {"If-Match": True}}
    for method in ("patch", "delete"):
        assert {"409", "412", "428"} <= set(operations[method]["responses"])


async def test_schema_refuses_an_answer_that_is_wrong() -> None:
    """The tests above can fail: an answer with a field too many, too few or of another kind does not fit."""
    good = orjson.loads(encode(view_of_campaign(some_campaign())))
    CampaignAnswer.model_validate_json(orjson.dumps(good), strict=True)
    for bad in (
        {**good, "_id": "x"},
        {**good, "version": "1"},
        {**good, "status": "gone"},
        {**good, "ends_at": "soon"},
    ):
        with pytest.raises(ValueError, match="Campaign"):
            CampaignAnswer.model_validate_json(orjson.dumps(bad), strict=True)


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("PUT", f"{PATH}/{ID}", "DELETE, GET, PATCH"),
        ("DELETE", PATH, "GET, POST"),
        ("PATCH", PATH, "GET, POST"),
    ],
)
async def test_wrong_method_is_told_the_right_ones(
    member: httpx.AsyncClient, method: str, path: str, allow: str
) -> None:
    """405 with the whole Allow."""
    response = await member.request(method, path)

    assert_problem(response, 405, "method-not-allowed")
    assert response.headers["allow"] == allow
