"""What a client of Salesforce sees over a real connection when nothing goes wrong on command."""

import asyncio
import base64
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from sandbox.salesforce import Fault, FaultKind, Salesforce
from tests.support.eventually import eventually
from tests.support.salesforce import (
    APP,
    DETAIL,
    MASTER,
    Content,
    SalesforceClient,
    codes,
    detail,
    master,
    open_client,
    open_sandbox,
)

COLLECTION = f"composite/sobjects/{MASTER}/ExternalId__c"


@pytest.fixture
async def sandbox(tmp_path: Path) -> AsyncIterator[tuple[Salesforce, SalesforceClient]]:
    """Give a sandbox and a client that has a token."""
    async with open_sandbox(tmp_path) as opened:
        yield opened


Sandbox = tuple[Salesforce, SalesforceClient]


def error_of(response: httpx.Response) -> tuple[int, str]:
    """Return status and code of a failed call, whose body is an array of one error."""
    assert response.headers["content-type"] == "application/json;charset=UTF-8"
    (error,) = response.json()
    assert error.keys() - {"fields"} == {"message", "errorCode"}
    return response.status_code, error["errorCode"]


async def test_a_token_is_answered_as_documented(sandbox: Sandbox) -> None:
    """The answer names the instance under the address that was called, and says nothing of an expiry."""
    salesforce, client = sandbox
    response = await client.ask_token()
    content = response.json()
    assert content.keys() == {"access_token", "signature", "scope", "instance_url", "id", "token_type", "issued_at"}
    assert (content["instance_url"], content["token_type"]) == (salesforce.url, "Bearer")
    assert response.headers["cache-control"] == "no-store"
    assert content["access_token"] != client.token
    assert salesforce.counts.tokens_issued == 2


async def test_a_client_may_name_itself_in_a_header(sandbox: Sandbox) -> None:
    """Basic authentication does as well as the form, and a wrong secret in it is refused."""
    _, client = sandbox
    for secret, status in ((APP.client_secret, 200), ("other", 400), ("", 400)):
        basic = base64.b64encode(f"{APP.client_id}:{secret}".encode()).decode()
        response = await client.http.post(
            "/services/oauth2/token",
            data={"grant_type": "client_credentials"},
            headers={"authorization": f"Basic {basic}"},
        )
        assert response.status_code == status


@pytest.mark.parametrize(
    ("form", "error"),
    [
        ({"client_secret": "wrong"}, "invalid_client"),
        ({"client_id": "somebody"}, "invalid_client"),
        ({"grant_type": "password"}, "unsupported_grant_type"),
        ({"grant_type": ""}, "unsupported_grant_type"),
    ],
)
async def test_a_wrong_request_for_a_token_is_refused(sandbox: Sandbox, form: dict[str, str], error: str) -> None:
    """It is 400 with the error of OAuth, and no token is made."""
    salesforce, client = sandbox
    response = await client.ask_token(**form)
    assert (response.status_code, response.json()["error"]) == (400, error)
    assert salesforce.counts.tokens_issued == 1


async def test_a_token_is_only_given_for_a_form_that_is_posted(sandbox: Sandbox) -> None:
    """GET is 405, and a body that is no form 400."""
    _, client = sandbox
    assert (await client.http.get("/services/oauth2/token")).status_code == 405
    response = await client.http.post("/services/oauth2/token", content=b"grant_type=%ff")
    assert (response.status_code, response.json()["error"]) == (400, "invalid_request")


async def test_a_collection_is_answered_record_by_record(sandbox: Sandbox) -> None:
    """200, in order, with what became of each record, though one of them was refused."""
    salesforce, client = sandbox
    await client.upsert(MASTER, master("known"))
    response = await client.upsert(MASTER, master("new"), master("bad", Status__c="maybe"), master("known", 2))
    held = salesforce.records(MASTER)
    assert response.status_code == 200
    assert response.json() == [
        {"id": held["new"].id, "success": True, "errors": [], "created": True},
        {
            "id": None,
            "success": False,
            "errors": [
                {
                    "statusCode": "INVALID_OR_NULL_FOR_RESTRICTED_PICKLIST",
                    "message": "Status__c: bad value for restricted picklist field: maybe",
                    "fields": ["Status__c"],
                }
            ],
            "created": False,
        },
        {"id": held["known"].id, "success": True, "errors": [], "created": False},
    ]


async def test_two_hundred_records_are_taken_and_one_more_is_not(sandbox: Sandbox) -> None:
    """200 records are stored; 201 are 400 and none of them is; none at all is an empty answer."""
    salesforce, client = sandbox
    many = [master(f"x{number}") for number in range(201)]
    assert codes(await client.upsert(MASTER, *many[:200])) == [None] * 200
    many = [master(f"y{number}") for number in range(201)]
    assert error_of(await client.upsert(MASTER, *many)) == (400, "EXCEEDED_ID_LIMIT")
    assert codes(await client.upsert(MASTER)) == []
    assert len(salesforce.records(MASTER)) == 200


async def test_all_or_none_rolls_back(sandbox: Sandbox) -> None:
    """With one bad record nothing is stored, and the good ones say that they were rolled back."""
    salesforce, client = sandbox
    response = await client.upsert(MASTER, master("a"), master("b", MemberId__c=""), all_or_none=True)
    assert codes(response) == ["ALL_OR_NONE_OPERATION_ROLLED_BACK", "REQUIRED_FIELD_MISSING"]
    assert (len(salesforce.records(MASTER)), list(salesforce.applied())) == (0, [])


async def test_a_detail_follows_its_master(sandbox: Sandbox) -> None:
    """A detail is refused until its master is there, and its relation is kept as it was sent."""
    salesforce, client = sandbox
    assert codes(await client.upsert(DETAIL, detail("d", "m"))) == ["INVALID_FIELD"]
    await client.upsert(MASTER, master("m"))
    assert codes(await client.upsert(DETAIL, detail("d", "m"))) == [None]
    assert salesforce.records(DETAIL)["d"].fields == detail("d", "m")


@pytest.mark.parametrize(
    ("content", "code"),
    [
        ([], "JSON_PARSER_ERROR"),
        ({}, "JSON_PARSER_ERROR"),
        ({"records": {}}, "JSON_PARSER_ERROR"),
        ({"records": [], "allOrNone": 1}, "JSON_PARSER_ERROR"),
        ({"records": [], "other": 1}, "JSON_PARSER_ERROR"),
        ({"records": [1]}, "INVALID_INPUT"),
        ({"records": [{"ExternalId__c": "a"}]}, "INVALID_INPUT"),
        ({"records": [{"attributes": {"type": DETAIL}, "ExternalId__c": "a"}]}, "INVALID_INPUT"),
        ({"records": [{"attributes": MASTER, "ExternalId__c": "a"}]}, "INVALID_INPUT"),
    ],
)
async def test_a_collection_that_is_not_well_formed_is_400(sandbox: Sandbox, content: object, code: str) -> None:
    """The whole call is refused, and the body is an array of one error."""
    _, client = sandbox
    assert error_of(await client.patch(COLLECTION, content)) == (400, code)


async def test_a_body_that_is_no_json_is_refused(sandbox: Sandbox) -> None:
    """Broken JSON is 400, another media type 415, and a body beyond the limit 413."""
    _, client = sandbox
    url = f"/services/data/v60.0/{COLLECTION}"
    headers = {"authorization": f"Bearer {client.token}", "content-type": "application/json"}
    for body in (b"", b"{", b'{"records":[{"a":NaN}]}', b'{"records":["\xff"]}'):
        assert error_of(await client.http.patch(url, content=body, headers=headers)) == (400, "JSON_PARSER_ERROR")
    text = headers | {"content-type": "text/plain"}
    assert error_of(await client.http.patch(url, content=b"{}", headers=text)) == (415, "UNSUPPORTED_MEDIA_TYPE")
    async with client.http.stream("PATCH", url, headers=headers, content=b" " * (6 * 2**20 + 1)) as response:
        assert response.status_code == 413


async def test_paths_that_lead_nowhere_are_404(sandbox: Sandbox) -> None:
    """So are an unknown object, another field than the external id, and a version before 46 for a collection."""
    _, client = sandbox
    for path, version in (
        ("composite/sobjects/Account/ExternalId__c", "v60.0"),
        (f"composite/sobjects/{MASTER}/MemberId__c", "v60.0"),
        (f"sobjects/{MASTER}/Id/a00000000000001AAA", "v60.0"),
        (COLLECTION, "v45.0"),
        (COLLECTION, "v99.0"),
        ("nothing", "v60.0"),
    ):
        assert error_of(await client.patch(path, {"records": []}, version=version)) == (404, "NOT_FOUND"), path


async def test_another_method_is_not_allowed(sandbox: Sandbox) -> None:
    """POST to a collection is 405 and names the method that is."""
    _, client = sandbox
    response = await client.http.post(f"/services/data/v60.0/{COLLECTION}", json={})
    assert error_of(response) == (405, "METHOD_NOT_ALLOWED")
    assert response.headers["allow"] == "PATCH"


@pytest.mark.parametrize(
    ("header", "code"),
    [
        ("Bearer made-up", "INVALID_SESSION_ID"),
        ("Bearer", "INVALID_SESSION_ID"),
        ("Basic eDp5", "INVALID_AUTH_HEADER"),
        ("", "INVALID_AUTH_HEADER"),
    ],
)
async def test_without_a_valid_token_nothing_is_read(sandbox: Sandbox, header: str, code: str) -> None:
    """It is 401 with an array of one error, whatever the body holds."""
    _, client = sandbox
    response = await client.patch(COLLECTION, "no collection", headers={"authorization": header})
    assert error_of(response) == (401, code)


async def test_a_token_expires_by_itself(tmp_path: Path) -> None:
    """After its lifetime a token is refused, whatever it was used for, and not before."""
    async with open_sandbox(tmp_path, token_seconds=0.5) as (_, client):
        began = asyncio.get_running_loop().time()

        async def has_expired() -> bool:
            response = await client.upsert(MASTER)
            assert response.status_code == 200 or error_of(response) == (401, "INVALID_SESSION_ID")
            return response.status_code != 200

        await client.log_in()
        await eventually(has_expired)
        assert asyncio.get_running_loop().time() - began >= 0.5


async def test_when_tokens_expire_under_fifty_calls_all_are_refused_and_one_token_serves_them_all(
    sandbox: Sandbox,
) -> None:
    """Fifty parallel calls are all 401 and apply nothing; one new token is enough for all of them."""
    salesforce, client = sandbox
    salesforce.faults.switch_on(Fault(kind=FaultKind.EXPIRED, calls=1))
    sent = [master(f"x{number}") for number in range(50)]
    refused = await asyncio.gather(*(client.upsert(MASTER, record) for record in sent))
    assert {error_of(response) for response in refused} == {(401, "INVALID_SESSION_ID")}
    assert len(salesforce.records(MASTER)) == 0
    await client.log_in()
    served = await asyncio.gather(*(client.upsert(MASTER, record) for record in sent))
    assert all(codes(response) == [None] for response in served)
    assert set(salesforce.records(MASTER)) == {f"x{number}" for number in range(50)}
    assert salesforce.counts.tokens_issued == 2


async def test_a_single_record_is_created_and_then_updated(sandbox: Sandbox) -> None:
    """201 and then 200, each with the id; before version 46 an update is 204 without a body."""
    salesforce, client = sandbox
    path = f"sobjects/{MASTER}/ExternalId__c/a%2F%C3%BC"
    fields = master("")
    del fields["ExternalId__c"]
    created = await client.patch(path, fields)
    record = salesforce.records(MASTER)["a/ü"]
    assert created.status_code == 201
    assert created.json() == {"id": record.id, "success": True, "errors": [], "created": True}
    updated = await client.patch(path, {"Version__c": 2})
    assert updated.status_code == 200
    assert updated.json() == {"id": record.id, "success": True, "errors": [], "created": False}
    old = await client.patch(path, {"Version__c": 3}, version="v45.0")
    assert (old.status_code, old.content) == (204, b"")
    assert record.fields == master("a/ü", 3)


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"Version__c": 0}, "FIELD_CUSTOM_VALIDATION_EXCEPTION"),
        ({"Status__c": "maybe"}, "INVALID_OR_NULL_FOR_RESTRICTED_PICKLIST"),
        ({"ExternalId__c": "a"}, "INVALID_FIELD"),
        ([], "JSON_PARSER_ERROR"),
    ],
)
async def test_a_single_record_that_is_refused_is_400(sandbox: Sandbox, fields: Content, code: str) -> None:
    """The code that a collection tells per record is the call's own here."""
    _, client = sandbox
    await client.upsert(MASTER, master("a"))
    assert error_of(await client.patch(f"sobjects/{MASTER}/ExternalId__c/a", fields)) == (400, code)


async def test_calls_beyond_the_rate_are_refused(tmp_path: Path) -> None:
    """Of ten calls at once at two a second, some are 403 REQUEST_LIMIT_EXCEEDED and apply nothing; the limit can go."""
    async with open_sandbox(tmp_path, calls_per_second=2) as (salesforce, client):
        responses = await asyncio.gather(*(client.upsert(MASTER, master(f"x{number}")) for number in range(10)))
        refused = [response for response in responses if response.status_code != 200]
        assert refused
        assert {error_of(response) for response in refused} == {(403, "REQUEST_LIMIT_EXCEEDED")}
        assert len(salesforce.records(MASTER)) == 10 - len(refused)
        salesforce.rate.per_second = None
        responses = await asyncio.gather(*(client.upsert(MASTER, master(f"x{number}")) for number in range(10)))
        assert all(codes(response) == [None] for response in responses)


async def test_a_full_log_fails_the_call_and_applies_nothing(tmp_path: Path) -> None:
    """What cannot be written down is not applied: 500, and the record is not there."""
    async with open_sandbox(tmp_path, log_bytes_max=1_024) as (salesforce, client):
        response = await client.upsert(MASTER, *[master(f"x{number}") for number in range(10)])
        assert error_of(response) == (500, "UNKNOWN_EXCEPTION")
        assert len(salesforce.records(MASTER)) == 0


async def test_counts_tell_what_was_asked_and_what_became_of_it(sandbox: Sandbox) -> None:
    """Calls count by status, records by what became of them."""
    salesforce, client = sandbox
    await client.upsert(MASTER, master("a"), master("b"), master("c", Status__c="maybe"))
    await client.upsert(MASTER, master("a", 0), master("b", 2))
    await client.patch(COLLECTION, {})
    await client.ask_token(client_id="somebody")
    counts = salesforce.counts
    assert (counts.token, counts.upsert) == ({"200": 1, "400": 1}, {"200": 2, "400": 1})
    assert (counts.created, counts.updated) == (2, 1)
    assert counts.refused == {
        "INVALID_OR_NULL_FOR_RESTRICTED_PICKLIST": 1,
        "FIELD_CUSTOM_VALIDATION_EXCEPTION": 1,
    }


async def test_what_was_applied_is_there_after_a_restart_and_tokens_are_not(tmp_path: Path) -> None:
    """A sandbox on the same log holds the same records, goes on with its numbers, and asks for a new token."""
    async with open_sandbox(tmp_path) as (_, client):
        await client.upsert(MASTER, master("a"))
        token = client.token
    async with open_sandbox(tmp_path) as (salesforce, client):
        assert salesforce.records(MASTER)["a"].fields == master("a")
        await client.upsert(MASTER, master("a", 2))
        assert [(one.call, one.is_created) for one in salesforce.applied()] == [(1, True), (2, False)]
        async with open_client(salesforce.url, log_in=False) as other:
            other.token = token
            assert error_of(await other.upsert(MASTER)) == (401, "INVALID_SESSION_ID")
