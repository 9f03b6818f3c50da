"""What creating, changing and deleting answer to whom, on the fake store."""

from datetime import timedelta

import httpx
import orjson
import pytest

from loyalty.campaign import CampaignStatus
from loyalty.identifier import is_campaign_id
from tests.support.campaign_api_client import KEY, PATH, Json, assert_problem, campaign_body, match, path_of, put
from tests.support.campaign_sample import ACTIVE, DAY, DRAFT, ENDED, PAUSED, some_campaign
from tests.support.fake_campaign_store import FakeCampaignStore, this_millisecond, view_of_campaign


async def test_operator_creates_a_draft_that_can_be_read_at_its_location(operator: httpx.AsyncClient) -> None:
    """What the order asked for is what is found; Location and ETag of the answer are those of the campaign."""
    body = campaign_body()
    response = await operator.post(PATH, json=body, headers=KEY)
    campaign = response.json()
    read = await operator.get(response.headers["location"])

    assert response.status_code == 201
    assert is_campaign_id(campaign["campaign_id"])
    assert {name: campaign[name] for name in body} == body
    assert (campaign["status"], campaign["version"]) == ("draft", 1)
    assert (read.content, read.headers["etag"]) == (response.content, response.headers["etag"])


async def test_time_in_another_offset_is_answered_in_utc(operator: httpx.AsyncClient) -> None:
    """An instant has one spelling in answers, whatever it was written in."""
    body = campaign_body(starts_at="2030-06-01T02:30:00.250+05:30", ends_at="2030-07-01T00:00:00Z")
    campaign = (await operator.post(PATH, json=body, headers=KEY)).json()

    assert campaign["starts_at"] == "2030-05-31T21:00:00.250000+00:00"
    assert campaign["ends_at"] == "2030-07-01T00:00:00+00:00"


async def test_description_may_be_left_out(operator: httpx.AsyncClient) -> None:
    """A campaign without one has an empty one."""
    response = await operator.post(PATH, json=campaign_body(description=...), headers=KEY)

    assert (response.status_code, response.json()["description"]) == (201, "")


async def test_repeated_order_gets_the_same_answer(operator: httpx.AsyncClient, store: FakeCampaignStore) -> None:
    """Same key and body, spelt in another order and spacing: the same bytes, Location and ETag, and one campaign."""
    body = campaign_body()
    first = await operator.post(PATH, json=body, headers=KEY)
    again = await operator.post(
        PATH,
        content=orjson.dumps(dict(reversed(body.items())), option=orjson.OPT_INDENT_2),
        headers={**KEY, "content-type": "application/json"},
    )

    assert (again.status_code, again.content) == (201, first.content)
    for name in ("location", "etag"):
        assert again.headers[name] == first.headers[name]
    assert len(store.campaigns) == 1


async def test_same_key_with_another_body_is_refused(operator: httpx.AsyncClient, store: FakeCampaignStore) -> None:
    """A key stands for one order."""
    await operator.post(PATH, json=campaign_body(), headers=KEY)

    response = await operator.post(PATH, json=campaign_body(name="Winter"), headers=KEY)
    assert_problem(response, 422, "idempotency-key-reused")
    assert len(store.campaigns) == 1


async def test_order_without_a_key_is_refused(operator: httpx.AsyncClient, store: FakeCampaignStore) -> None:
    """Nobody can create twice by accident."""
    assert_problem(await operator.post(PATH, json=campaign_body()), 422, "invalid-request")
    assert store.campaigns == {}


async def test_member_may_not_write(store: FakeCampaignStore, member: httpx.AsyncClient) -> None:
    """Campaigns are the operators'; a member hears so before anything about the campaign, be it there or not."""
    campaign = put(store, some_campaign(ENDED))
    answers = [
        await member.post(PATH, json=campaign_body(), headers=KEY),
        await member.patch(path_of(campaign), json={"name": "Winter"}, headers=match(1)),
        await member.delete(path_of(campaign), headers=match(1)),
        await member.delete(f"{PATH}/other", headers=match(1)),
    ]

    for answer in answers:
        assert_problem(answer, 403, "wrong-scope")
    assert store.campaigns == {campaign.campaign_id: campaign}


BAD_FIELDS: list[tuple[Json, str, str]] = [
    ({"name": ""}, "body.name", "string_too_short"),
    ({"name": "a" * 121}, "body.name", "string_too_long"),
    ({"name": "😀" * 91}, "body.name", "too_many_bytes"),
    ({"name": " Summer"}, "body.name", "string_pattern_mismatch"),
    ({"name": "a\nb"}, "body.name", "string_pattern_mismatch"),
    ({"name": 1}, "body.name", "string_type"),
    ({"name": None}, "body.name", "string_type"),
    ({"name": {"$gt": ""}}, "body.name", "string_type"),
    ({"description": "a" * 2_001}, "body.description", "string_too_long"),
    ({"description": "😀" * 1_501}, "body.description", "too_many_bytes"),
    ({"description": "\u001b[31m"}, "body.description", "string_pattern_mismatch"),
    ({"description": ["a"]}, "body.description", "string_type"),
    ({"starts_at": None}, "body.starts_at", "datetime_type"),
    ({"starts_at": "2030-01-01"}, "body.starts_at", "timestamp"),
    ({"starts_at": "2030-01-01T00:00:00"}, "body.starts_at", "timestamp"),
    ({"starts_at": "2030-02-30T00:00:00Z"}, "body.starts_at", "timestamp"),
    ({"starts_at": "1999-12-31T23:59:59Z"}, "body.starts_at", "timestamp"),
    ({"starts_at": "2030-01-01T00:00:00.0001Z"}, "body.starts_at", "finer_than_milliseconds"),
    ({"ends_at": "2030-01-01T00:00:00.000001Z"}, "body.ends_at", "finer_than_milliseconds"),
    ({"ends_at": 1_900_000_000}, "body.ends_at", "datetime_type"),
    ({"starts_at": "2030-01-01T00:00:00Z", "ends_at": "2030-01-01T01:00:00+01:00"}, "body", "ends_before_starts"),
    ({"version": 2}, "body.?", "extra_forbidden"),
    ({"campaign_id": "cp-01a20e40-81cf-762a-b458-3c265386670d"}, "body.?", "extra_forbidden"),
    ({"$set": {}}, "body.?", "extra_forbidden"),
]


@pytest.mark.parametrize(
    ("changes", "field", "rule"),
    [
        *BAD_FIELDS,
        ({"name": ...}, "body.name", "missing"),
        ({"ends_at": ...}, "body.ends_at", "missing"),
        ({"description": None}, "body.description", "string_type"),
        ({"status": "active"}, "body.?", "extra_forbidden"),
    ],
)
async def test_bad_order_is_refused_with_field_and_rule(
    operator: httpx.AsyncClient, store: FakeCampaignStore, changes: Json, field: str, rule: str
) -> None:
    """The answer names what is wrong, and nothing is created."""
    response = await operator.post(PATH, json=campaign_body(**changes), headers=KEY)

    assert_problem(response, 422, "invalid-request")
    assert response.json()["errors"] == [{"field": field, "rule": rule}]
    assert store.campaigns == {}


@pytest.mark.parametrize(
    ("changes", "field", "rule"),
    [
        *BAD_FIELDS,
        ({"status": "Active"}, "body.status", "enum"),
        ({"status": None}, "body.status", "enum"),
        ({"created_at": "2030-01-01T00:00:00Z"}, "body.?", "extra_forbidden"),
    ],
)
async def test_bad_change_is_refused_with_field_and_rule(
    operator: httpx.AsyncClient, store: FakeCampaignStore, changes: Json, field: str, rule: str
) -> None:
    """The answer names what is wrong, and nothing is changed."""
    campaign = put(store, some_campaign())
    response = await operator.patch(path_of(campaign), json=changes, headers=match(1))

    assert_problem(response, 422, "invalid-request")
    assert response.json()["errors"] == [{"field": field, "rule": rule}]
    assert store.campaigns == {campaign.campaign_id: campaign}


@pytest.mark.parametrize(
    "body", ['{"name": "a\\u0000"}', '{"name": "\\ud800"}', '{"name": "a", "name": "b"}', '["name"]x', ""]
)
async def test_text_that_is_no_strict_json_is_refused(
    operator: httpx.AsyncClient, store: FakeCampaignStore, body: str
) -> None:
    """NUL, half a character and doubled names never reach a field's rule."""
    campaign = put(store, some_campaign())
    headers = {**match(1), "content-type": "application/json"}

    assert_problem(await operator.patch(path_of(campaign), content=body, headers=headers), 400, "malformed-json")
    assert store.campaigns == {campaign.campaign_id: campaign}


async def test_change_touches_what_it_names_alone(store: FakeCampaignStore, operator: httpx.AsyncClient) -> None:
    """The answer is the campaign with the named fields changed, at the next version, which is its ETag."""
    campaign = put(store, some_campaign(version=9))
    response = await operator.patch(path_of(campaign), json={"name": "Winter"}, headers=match(9))
    body = response.json()
    before = orjson.loads(orjson.dumps(view_of_campaign(campaign)))

    assert (response.status_code, response.headers["etag"]) == (200, '"10"')
    assert body == {**before, "name": "Winter", "version": 10, "updated_at": body["updated_at"]}
    assert (await operator.get(path_of(campaign))).content == response.content


async def test_null_removes_the_description(store: FakeCampaignStore, operator: httpx.AsyncClient) -> None:
    """A merge patch removes by null, and what has no description has an empty one."""
    campaign = put(store, some_campaign())
    response = await operator.patch(path_of(campaign), json={"description": None}, headers=match(1))

    assert (response.status_code, response.json()["description"]) == (200, "")


async def test_empty_change_gets_the_campaign_as_it_is(store: FakeCampaignStore, operator: httpx.AsyncClient) -> None:
    """Nothing to do is done: no new version."""
    campaign = put(store, some_campaign())
    response = await operator.patch(path_of(campaign), json={}, headers=match(1))

    assert (response.status_code, response.headers["etag"]) == (200, '"1"')
    assert store.campaigns[campaign.campaign_id] == campaign


async def test_repeated_change_gets_the_same_answer_until_another_one_is_made(
    store: FakeCampaignStore, operator: httpx.AsyncClient
) -> None:
    """Whoever did not hear the first answer hears it now; behind somebody else's change it is 412."""
    campaign = put(store, some_campaign())
    wish = {"status": "active", "name": "Winter"}
    first, again = [await operator.patch(path_of(campaign), json=wish, headers=match(1)) for _ in range(2)]
    await operator.patch(path_of(campaign), json={"status": "paused"}, headers=match(2))
    late = await operator.patch(path_of(campaign), json=wish, headers=match(1))

    assert (again.status_code, again.content) == (200, first.content)
    assert_problem(late, 412, "campaign-changed")


async def test_repeated_deletion_finds_none(store: FakeCampaignStore, operator: httpx.AsyncClient) -> None:
    """Whoever did not hear of the first one hears that the campaign is gone."""
    campaign = put(store, some_campaign(ENDED, version=2))
    first, again = [await operator.delete(path_of(campaign), headers=match(2)) for _ in range(2)]

    assert (first.status_code, first.content) == (204, b"")
    assert "content-type" not in first.headers
    assert_problem(again, 404, "campaign-not-found")
    assert store.campaigns == {}


@pytest.mark.parametrize(
    ("condition", "status"),
    [
        ('"3"', 200),
        ("*", 200),
        ('"1", "3"', 200),
        ('"1","x" , "3",', 200),
        ('"2"', 412),
        ('"4"', 412),
        ('W/"3"', 412),
        ('W/"3", "2"', 412),
        ('"03"', 412),
        ('"1,3"', 412),
        ('"9999999999999999999999"', 412),
        ('""', 412),
        ("3", 422),
        ('"3', 422),
        ('"3" "4"', 422),
        ('*, "3"', 422),
        ('w/"3"', 422),
        (",", 422),
        ("", 422),
    ],
)
async def test_condition_compares_strongly(
    store: FakeCampaignStore, operator: httpx.AsyncClient, condition: str, status: int
) -> None:
    """Any tag of the list will do, `*` is whatever is there, a weak tag matches nothing, what is no list is refused."""
    headers = {"if-match": condition}
    for method, body in (("PATCH", {"name": "Winter"}), ("DELETE", None)):
        campaign = put(store, some_campaign(version=3))
        response = await operator.request(method, path_of(campaign), json=body, headers=headers)

        assert response.status_code == (204 if (method, status) == ("DELETE", 200) else status)
        if status == 412:
            assert_problem(response, 412, "campaign-changed")
        elif status == 422:
            assert response.json()["errors"] == [{"field": "header.if-match", "rule": "entity tags"}]
        assert status == 200 or store.campaigns[campaign.campaign_id] == campaign


async def test_write_without_a_condition_is_asked_for_one(
    store: FakeCampaignStore, operator: httpx.AsyncClient
) -> None:
    """428, and nothing happens: nobody overwrites what they have not seen by leaving a header out."""
    campaign = put(store, some_campaign())
    answers = [
        await operator.patch(path_of(campaign), json={"name": "Winter"}),
        await operator.delete(path_of(campaign)),
    ]

    for answer in answers:
        assert_problem(answer, 428, "precondition-required")
    assert store.campaigns == {campaign.campaign_id: campaign}


async def test_any_version_of_a_campaign_that_is_not_there_is_not_found(operator: httpx.AsyncClient) -> None:
    """`*` does not make a campaign, and its absence is told as such."""
    path = f"{PATH}/cp-01a20e40-81cf-762a-b458-3c265386670d"

    assert_problem(await operator.patch(path, json={}, headers={"if-match": "*"}), 404, "campaign-not-found")
    assert_problem(await operator.delete(path, headers={"if-match": "*"}), 404, "campaign-not-found")


@pytest.mark.parametrize(
    ("status", "changes", "code"),
    [
        (ENDED, {"status": "active"}, "campaign-transition"),
        (ACTIVE, {"status": "draft"}, "campaign-transition"),
        (DRAFT, {"status": "paused"}, "campaign-transition"),
        (ACTIVE, {"starts_at": timedelta(0)}, "campaign-dates-fixed"),
        (PAUSED, {"starts_at": timedelta(0)}, "campaign-dates-fixed"),
        (ENDED, {"ends_at": 5 * DAY}, "campaign-dates-fixed"),
        (DRAFT, {"ends_at": -2 * DAY}, "campaign-dates-contradict"),
        (DRAFT, {"starts_at": 2 * DAY}, "campaign-dates-contradict"),
    ],
)
async def test_change_against_a_rule_is_refused_with_its_code(
    store: FakeCampaignStore, operator: httpx.AsyncClient, status: CampaignStatus, changes: Json, code: str
) -> None:
    """409 tells by its code which rule it was, and nothing is changed."""
    campaign = put(store, some_campaign(status))
    now = this_millisecond()
    body = {
        name: (now + value).isoformat() if isinstance(value, timedelta) else value for name, value in changes.items()
    }

    assert_problem(await operator.patch(path_of(campaign), json=body, headers=match(1)), 409, code)
    assert store.campaigns == {campaign.campaign_id: campaign}


@pytest.mark.parametrize("status", [ACTIVE, PAUSED])
async def test_campaign_in_use_cannot_be_deleted(
    store: FakeCampaignStore, operator: httpx.AsyncClient, status: CampaignStatus
) -> None:
    """What members may be looking at has to be ended first, then it can go."""
    campaign = put(store, some_campaign(status))

    assert_problem(await operator.delete(path_of(campaign), headers=match(1)), 409, "campaign-in-use")
    await operator.patch(path_of(campaign), json={"status": "ended"}, headers=match(1))
    assert (await operator.delete(path_of(campaign), headers=match(2))).status_code == 204


async def test_whole_life_of_a_campaign(operator: httpx.AsyncClient, member: httpx.AsyncClient) -> None:
    """Each answer's ETag leads to the next step, and members see the campaign from its first activation on."""
    created = await operator.post(PATH, json=campaign_body(), headers=KEY)
    path, etag = created.headers["location"], created.headers["etag"]
    seen = [(await member.get(path)).status_code]
    for status in ("active", "paused", "active", "ended"):
        answer = await operator.patch(path, json={"status": status}, headers={"if-match": etag})
        assert (answer.status_code, answer.json()["status"]) == (200, status)
        etag = answer.headers["etag"]
        seen.append((await member.get(path)).status_code)
    gone = await operator.delete(path, headers={"if-match": etag})

    assert (etag, gone.status_code) == ('"5"', 204)
    assert [*seen, (await member.get(path)).status_code] == [404, 200, 200, 200, 200, 404]
