"""What a client that queries sees over a real connection, in order and under each fault."""

import gzip
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from sandbox.salesforce import Endpoint, Fault, FaultKind, Salesforce, SalesforceControl
from tests.support.salesforce import (
    DETAIL,
    MASTER,
    SalesforceClient,
    codes,
    detail,
    master,
    open_client,
    open_sandbox,
)

Sandbox = tuple[Salesforce, SalesforceClient]
ALL = "SELECT ExternalId__c FROM ConsentMaster__c"


@pytest.fixture
async def sandbox(tmp_path: Path) -> AsyncIterator[Sandbox]:
    """Give a sandbox with one master, and a client that has a token."""
    async with open_sandbox(tmp_path) as (salesforce, client):
        await client.upsert(MASTER, master("m"))
        yield salesforce, client


def external_ids(response: httpx.Response) -> list[str]:
    """Return the external ids of a page."""
    assert response.status_code == 200, response.text
    return [record["ExternalId__c"] for record in response.json()["records"]]


def error_of(response: httpx.Response) -> tuple[int, str]:
    """Return status and code of a failed call."""
    (error,) = response.json()
    return response.status_code, error["errorCode"]


async def test_a_query_is_answered_as_documented(sandbox: Sandbox) -> None:
    """Its size, whether it is done, each record with its attributes; a slash behind the path is as good."""
    salesforce, client = sandbox
    await client.upsert(DETAIL, detail("d", "m", 7))
    text = "SELECT ExternalId__c, Version__c FROM ConsentDetail__c WHERE Deleted__c = FALSE AND Version__c >= 7"
    url = f"/services/data/v60.0/sobjects/{DETAIL}/{salesforce.records(DETAIL)['d'].id}"
    response = await client.query(text)
    assert response.headers["content-type"] == "application/json;charset=UTF-8"
    assert response.json() == {
        "totalSize": 1,
        "done": True,
        "records": [{"attributes": {"type": DETAIL, "url": url}, "ExternalId__c": "d", "Version__c": 7}],
    }
    assert (await client.get("/services/data/v60.0/query/", q=text)).json() == response.json()


async def test_pages_follow_one_another_by_the_address_each_one_gives(sandbox: Sandbox) -> None:
    """2,001 records are two pages, and each record is in one of them; a record made in between is in none."""
    _, client = sandbox
    for start in range(0, 2_000, 200):
        await client.upsert(MASTER, *[master(f"x{number}") for number in range(start, start + 200)])
    first = await client.query(f"{ALL} ORDER BY ExternalId__c")
    await client.upsert(MASTER, master("new"))
    second = await client.get(first.json()["nextRecordsUrl"])
    assert (first.json()["totalSize"], first.json()["done"], second.json()["done"]) == (2_001, False, True)
    assert external_ids(first) + external_ids(second) == sorted(["m", *[f"x{number}" for number in range(2_000)]])


async def test_an_open_query_does_not_outlive_the_process(tmp_path: Path) -> None:
    """After a restart its next page is 404 INVALID_QUERY_LOCATOR, and the query can be asked anew."""
    async with open_sandbox(tmp_path) as (_, client):
        for start in range(0, 2_200, 200):
            await client.upsert(MASTER, *[master(f"x{number}") for number in range(start, start + 200)])
        following = (await client.query(ALL)).json()["nextRecordsUrl"]
    async with open_sandbox(tmp_path) as (_, client):
        assert error_of(await client.get(following)) == (404, "INVALID_QUERY_LOCATOR")
        assert len(external_ids(await client.query(ALL))) == 2_000


async def test_a_text_of_any_characters_finds_its_record(sandbox: Sandbox) -> None:
    """Quotes, percent signs and other alphabets come through the address as they were."""
    _, client = sandbox
    name = "a'b\\c%27&q=+ü 😀"
    await client.upsert(MASTER, master(name))
    literal = name.replace("\\", "\\\\").replace("'", "\\'")
    assert external_ids(await client.query(f"{ALL} WHERE ExternalId__c = '{literal}'")) == [name]


@pytest.mark.parametrize(
    ("query", "error"),
    [
        ("", (400, "MALFORMED_QUERY")),
        ("?q=", (400, "MALFORMED_QUERY")),
        ("?q=SELECT", (400, "MALFORMED_QUERY")),
        ("?q=%ff", (400, "MALFORMED_QUERY")),
        ("?explain=SELECT+Id+FROM+ConsentMaster__c", (400, "MALFORMED_QUERY")),
        ("?q=SELECT+Id+FROM+ConsentMaster__c&other=1", (400, "MALFORMED_QUERY")),
        ("?q=SELECT+Id+FROM+Account", (400, "INVALID_TYPE")),
        ("?q=SELECT+Name+FROM+ConsentMaster__c", (400, "INVALID_FIELD")),
        ("/01g000000000001AAA-2000", (404, "INVALID_QUERY_LOCATOR")),
        ("/x/y", (404, "NOT_FOUND")),
    ],
)
async def test_a_wrong_query_is_refused(sandbox: Sandbox, query: str, error: tuple[int, str]) -> None:
    """The status and the code say what is wrong, and the body is an array of one error."""
    _, client = sandbox
    assert error_of(await client.get(f"/services/data/v60.0/query{query}")) == error


async def test_a_query_needs_a_token_and_the_right_method_and_has_a_rate(sandbox: Sandbox) -> None:
    """Without a token it is 401, by POST 405, and beyond the rate 403; first page and later ones alike."""
    salesforce, client = sandbox
    paths = ("/services/data/v60.0/query", "/services/data/v60.0/query/01g000000000001AAA-2000")
    headers = {"authorization": f"Bearer {client.token}"}
    for path in paths:
        response = await client.http.post(path, headers=headers)
        assert (error_of(response), response.headers["allow"]) == ((405, "METHOD_NOT_ALLOWED"), "GET")
    async with open_client(salesforce.url, log_in=False) as nobody:
        nobody.token = client.token[:-1]
        assert [error_of(await nobody.get(path)) for path in paths] == [(401, "INVALID_SESSION_ID")] * 2
    salesforce.rate.per_second = 0.001
    await client.query(ALL)
    assert [error_of(await client.get(path)) for path in paths] == [(403, "REQUEST_LIMIT_EXCEEDED")] * 2


@pytest.mark.parametrize(
    ("fault", "status", "code"),
    [
        (Fault(kind=FaultKind.ERROR, endpoint=Endpoint.QUERY), 500, "UNKNOWN_EXCEPTION"),
        (Fault(kind=FaultKind.LIMIT, endpoint=Endpoint.QUERY), 403, "REQUEST_LIMIT_EXCEEDED"),
        (Fault(kind=FaultKind.THROTTLED, endpoint=Endpoint.QUERY, retry_after="3"), 429, "TOO_MANY_REQUESTS"),
        (Fault(kind=FaultKind.UNAVAILABLE, endpoint=Endpoint.QUERY, retry_after="3"), 503, "SERVER_UNAVAILABLE"),
        (Fault(kind=FaultKind.EXPIRED, endpoint=Endpoint.QUERY), 401, "INVALID_SESSION_ID"),
    ],
)
async def test_a_query_meets_its_fault_and_an_upsert_does_not(
    sandbox: Sandbox, fault: Fault, status: int, code: str
) -> None:
    """An upsert passes a fault that is for queries; the query fails in its way until the fault is switched off."""
    salesforce, client = sandbox
    number = salesforce.faults.switch_on(fault)
    assert codes(await client.upsert(MASTER, master("m"))) == [None]
    response = await client.query(ALL)
    assert error_of(response) == (status, code)
    assert response.headers.get("retry-after") == fault.retry_after
    salesforce.faults.switch_off(number)
    await client.log_in()
    assert external_ids(await client.query(ALL)) == ["m"]
    assert salesforce.counts.query == {str(status): 1, "200": 1}


@pytest.mark.parametrize("after_apply", [False, True])
@pytest.mark.parametrize("kind", [FaultKind.RESET, FaultKind.HALF_BODY])
async def test_a_query_s_connection_ends_before_its_answer_is_whole(
    sandbox: Sandbox, kind: FaultKind, after_apply: bool
) -> None:
    """Reset, or half of a body: the client has no answer, and gets it when it asks again."""
    salesforce, client = sandbox
    salesforce.faults.switch_on(Fault(kind=kind, endpoint=Endpoint.QUERY, after_apply=after_apply, calls=1))
    with pytest.raises(httpx.ReadError if kind is FaultKind.RESET else httpx.RemoteProtocolError):
        await client.query(ALL)
    assert external_ids(await client.query(ALL)) == ["m"]
    assert salesforce.counts.query == {str(kind): 1, "200": 1}


@pytest.mark.parametrize("kind", [FaultKind.HTML, FaultKind.JUNK, FaultKind.BAD_GATEWAY, FaultKind.WRONG_LENGTH])
async def test_a_query_s_answer_can_be_no_json(sandbox: Sandbox, kind: FaultKind) -> None:
    """A page of HTML, a broken body or one that is cut off: nothing can be read of it."""
    salesforce, client = sandbox
    salesforce.faults.switch_on(Fault(kind=kind, endpoint=Endpoint.QUERY, after_apply=True, calls=1))
    response = await client.query(ALL)
    with pytest.raises(ValueError, match=r"."):
        response.json()
    assert external_ids(await client.query(ALL)) == ["m"]


async def test_a_query_can_hang_be_slow_and_come_compressed(sandbox: Sandbox) -> None:
    """No answer until the client leaves; then one that is held back; then one in gzip that nobody asked for."""
    salesforce, client = sandbox
    salesforce.faults.switch_on(Fault(kind=FaultKind.HANG, endpoint=Endpoint.QUERY, calls=1))
    async with open_client(salesforce.url) as impatient:
        impatient.http.timeout = httpx.Timeout(0.3)
        with pytest.raises(httpx.ReadTimeout):
            await impatient.query(ALL)
    salesforce.faults.switch_on(Fault(kind=FaultKind.SLOW, seconds=0.2, endpoint=Endpoint.QUERY, calls=1))
    assert (await client.query(ALL)).elapsed.total_seconds() >= 0.2
    salesforce.faults.switch_on(Fault(kind=FaultKind.GZIP, endpoint=Endpoint.QUERY, after_apply=True, calls=1))
    url, headers = "/services/data/v60.0/query", {"authorization": f"Bearer {client.token}"}
    async with client.http.stream("GET", url, params={"q": ALL}, headers=headers) as response:
        body = b"".join([part async for part in response.aiter_raw()])
    assert response.headers["content-encoding"] == "gzip"
    assert b'"totalSize":1' in gzip.decompress(body)


async def test_a_fault_for_queries_is_switched_on_over_the_control_too(sandbox: Sandbox) -> None:
    """The control takes it, lists it as it was given, and counts the queries that met it."""
    salesforce, client = sandbox
    fault = Fault(kind=FaultKind.UNAVAILABLE, endpoint=Endpoint.QUERY, calls=2)
    async with SalesforceControl(salesforce.url) as control:
        number = await control.switch_on(fault)
        assert await control.faults() == {number: fault}
        assert [(await client.query(ALL)).status_code for _ in range(3)] == [503, 503, 200]
        counts = await control.counts()
    assert (counts.query, counts.upsert) == ({"503": 2, "200": 1}, {"200": 1})
