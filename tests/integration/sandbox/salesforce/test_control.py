"""The control interface, by its client and by hand."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from sandbox.salesforce import ControlError, Fault, FaultKind, Record, Salesforce, SalesforceControl
from tests.support.salesforce import DETAIL, MASTER, SalesforceClient, codes, detail, master, open_sandbox

CONTROL_SECRET = "a-secret-of-the-control"  # noqa: S105 - for this test alone


@dataclass
class World:
    """A sandbox with a client of each of its sides."""

    salesforce: Salesforce
    client: SalesforceClient
    control: SalesforceControl


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    """Give a sandbox that listens on loopback and has no secret for its control."""
    async with open_sandbox(tmp_path) as (salesforce, client), SalesforceControl(salesforce.url) as control:
        yield World(salesforce, client, control)


async def test_records_are_listed_by_object_and_in_pages(world: World) -> None:
    """All records of an object come once, in the order of their creation, over more than one page."""
    for start in range(0, 1_200, 200):
        await world.client.upsert(MASTER, *[master(f"x{number}") for number in range(start, start + 200)])
    await world.client.upsert(DETAIL, detail("d", "x0"))
    masters = [record async for record in world.control.records(MASTER)]
    assert masters == list(world.salesforce.records(MASTER).values())
    assert [record.fields["ExternalId__c"] for record in masters] == [f"x{number}" for number in range(1_200)]
    assert [record.fields async for record in world.control.records(DETAIL)] == [detail("d", "x0")]


async def test_one_record_is_found_by_its_external_id(world: World) -> None:
    """Whatever characters it has; one that is not there is None."""
    name = "a/ü&b=c?#%00 <b>"
    await world.client.upsert(MASTER, master(name))
    record = world.salesforce.records(MASTER)[name]
    assert await world.control.record(MASTER, name) == Record(record.id, master(name))
    assert await world.control.record(MASTER, "other") is None
    assert await world.control.record(DETAIL, name) is None


async def test_the_applied_log_comes_in_pages_and_from_a_place(world: World) -> None:
    """Over more calls than a page holds each entry comes once, in order, and equal to the log's own."""
    for number in range(120):
        await world.client.upsert(MASTER, master("a", number), master(f"x{number}"))
    entries = [entry async for entry in world.control.applied()]
    assert entries == list(world.salesforce.applied())
    assert [entry.call for entry in entries] == [1 + number // 2 for number in range(240)]
    assert [entry async for entry in world.control.applied(after=119)] == entries[-2:]
    assert [entry async for entry in world.control.applied(after=120)] == []


async def test_faults_are_switched_on_and_off(world: World) -> None:
    """A fault that was switched on works and is listed as it was given, until it is switched off."""
    fault = Fault(kind=FaultKind.UNAVAILABLE, object_type=MASTER, retry_after="7", calls=9)
    number = await world.control.switch_on(fault)
    other = await world.control.switch_on(Fault(kind=FaultKind.RECORD, code="X_Y", external_ids=("b",)))
    assert await world.control.faults() == {
        number: fault,
        other: Fault(kind=FaultKind.RECORD, code="X_Y", external_ids=("b",)),
    }
    assert (await world.client.upsert(MASTER, master("a"))).headers["retry-after"] == "7"
    await world.control.switch_off(number)
    assert codes(await world.client.upsert(MASTER, master("a"), master("b"))) == [None, "X_Y"]
    await world.control.clear()
    assert await world.control.faults() == {}
    with pytest.raises(ControlError, match="no such fault"):
        await world.control.switch_off(other)


async def test_tokens_expire_and_calls_are_limited_on_command(world: World) -> None:
    """All tokens of now are refused; then a limit holds until it is lifted."""
    await world.control.revoke_tokens()
    assert (await world.client.upsert(MASTER)).status_code == 401
    await world.client.log_in()
    await world.control.limit_calls(0.001)
    assert [(await world.client.upsert(MASTER)).status_code for _ in range(3)] == [200, 403, 403]
    assert (await world.control.counts()).calls_per_second == 0.001
    await world.control.limit_calls(None)
    assert (await world.client.upsert(MASTER)).status_code == 200
    with pytest.raises(ControlError, match="calls_per_second must"):
        await world.control.limit_calls(-1)


async def test_counts_come_over_the_control_too(world: World) -> None:
    """They are those that the sandbox keeps, and how many records there are."""
    await world.client.upsert(MASTER, master("a"), master("b", Status__c="maybe"))
    await world.client.upsert(MASTER, master("a"))
    counts = await world.control.counts()
    assert (counts.token, counts.upsert, counts.tokens_issued) == ({"200": 1}, {"200": 2}, 1)
    assert (counts.created, counts.updated) == (1, 1)
    assert counts.refused == {"INVALID_OR_NULL_FOR_RESTRICTED_PICKLIST": 1}
    assert counts.records == {MASTER: 1, DETAIL: 0}


@pytest.mark.parametrize(
    ("method", "path", "content"),
    [
        ("GET", "records", None),
        ("GET", "records?object_type=Account", None),
        ("GET", f"records?object_type={MASTER}&limit=0", None),
        ("GET", f"records?object_type={MASTER}&limit=1001", None),
        ("GET", f"records?object_type={MASTER}&after=-1", None),
        ("GET", f"records?object_type={MASTER}&after=%EF%BC%91", None),
        ("GET", f"records?object_type={MASTER}&other=1", None),
        ("GET", "applied?after=x", None),
        ("GET", f"applied?after={10**30}", None),
        ("POST", "faults", {}),
        ("POST", "faults", {"kind": "nothing"}),
        ("POST", "faults", {"kind": "slow"}),
        ("POST", "faults", {"kind": "reset", "calls": "1"}),
        ("POST", "faults", {"kind": "reset", "unknown": 1}),
        ("POST", "faults", {"kind": "record", "code": "X", "external_ids": ["x" * 255] * 1_000}),
        ("PUT", "rate", {}),
        ("PUT", "rate", []),
        ("PUT", "rate", {"calls_per_second": True}),
        ("PUT", "rate", {"calls_per_second": "5"}),
    ],
)
async def test_a_request_that_makes_no_sense_is_400_with_a_reason(
    world: World, method: str, path: str, content: object
) -> None:
    """Nothing is switched on by it, and the answer says what is wrong."""
    response = await world.client.http.request(method, f"/control/{path}", json=content)
    assert response.status_code == 400
    assert response.json()["error"]
    assert len(world.salesforce.faults) == 0
    assert world.salesforce.rate.per_second is None


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "nothing"), ("POST", "records"), ("DELETE", "faults/1"), ("DELETE", "faults/x"), ("GET", "faults/1")],
)
async def test_what_there_is_not_is_404(world: World, method: str, path: str) -> None:
    """Unknown paths, methods and numbers of faults are told as such."""
    response = await world.client.http.request(method, f"/control/{path}")
    assert (response.status_code, bool(response.json()["error"])) == (404, True)


async def test_the_largest_fault_is_taken_and_a_larger_body_is_not(world: World) -> None:
    """200 external ids of 255 characters that each take 12 bytes of JSON fit; a body above 1 MiB is refused unread."""
    most = ["\U0001f600" * 255] * 200
    fault = {"kind": "record", "code": "X", "external_ids": most}
    assert (await world.client.http.post("/control/faults", json=fault)).status_code == 201
    body = b'{"kind":"reset"' + b" " * 1024 * 1024 + b"}"
    headers = {"content-type": "application/json"}
    response = await world.client.http.post("/control/faults", content=body, headers=headers)
    assert (response.status_code, "at most 1048576 bytes" in response.text) == (400, True)
    assert len(world.salesforce.faults) == 1


async def test_a_form_of_another_page_switches_nothing_on(world: World) -> None:
    """A body that a browser sends to other sites without asking them is refused."""
    for media_type in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"):
        response = await world.client.http.post(
            "/control/faults", content=b'{"kind":"reset"}', headers={"content-type": media_type}
        )
        assert response.status_code == 400
    assert len(world.salesforce.faults) == 0


@pytest.mark.parametrize("host", ["sandbox.example:1", "evil.example", "127.0.0.1.evil.example", "[::1", ""])
async def test_without_a_secret_the_control_answers_to_this_machines_names_alone(world: World, host: str) -> None:
    """A name that somebody else made point here (DNS rebinding) is refused, localhost is not."""
    assert (await world.client.http.get("/control/counts", headers={"host": host})).status_code == 403
    assert (await world.client.http.get("/control/counts", headers={"host": "localhost:80"})).status_code == 200


async def test_with_a_secret_the_control_opens_to_it_alone(tmp_path: Path) -> None:
    """Without it, with a wrong one, and with a token for the REST interface it is 401; with it, any name will do."""
    settings: dict[str, Any] = {"host": "0.0.0.0", "control_secret": CONTROL_SECRET}  # noqa: S104 - what is tested
    async with open_sandbox(tmp_path, **settings) as (salesforce, client):
        wrong: list[dict[str, str]] = [
            {},
            {"authorization": "Bearer wrong"},
            {"authorization": f"Bearer {client.token}"},
        ]
        for headers in wrong:
            for method, path in (("GET", "counts"), ("POST", "faults"), ("DELETE", "tokens")):
                response = await client.http.request(method, f"/control/{path}", headers=headers)
                assert response.status_code == 401
        url = f"http://127.0.0.1:{httpx.URL(salesforce.url).port}"
        async with SalesforceControl(url, CONTROL_SECRET) as control:
            assert (await control.counts()).tokens_issued == 1
        async with SalesforceControl(url) as control:
            with pytest.raises(ControlError, match="secret is needed"):
                await control.counts()
