"""What a client sees of each fault, over a real connection, and what the call has done by then."""

import asyncio
import gzip
import re
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import orjson
import pytest

from sandbox.salesforce import Endpoint, Fault, FaultKind, Salesforce
from tests.support.eventually import eventually
from tests.support.raw_http import RawClient
from tests.support.salesforce import DETAIL, MASTER, SalesforceClient, codes, detail, master, open_sandbox

Sandbox = tuple[Salesforce, SalesforceClient]
BEFORE_AND_AFTER = pytest.mark.parametrize("after_apply", [False, True])


@pytest.fixture
async def sandbox(tmp_path: Path) -> AsyncIterator[Sandbox]:
    """Give a sandbox and a client that has a token."""
    async with open_sandbox(tmp_path) as opened:
        yield opened


def applied(salesforce: Salesforce) -> list[str]:
    """Return the external ids of what was applied, one for each time."""
    return [one.external_id for one in salesforce.applied()]


async def test_a_reset_after_the_call_was_applied_leaves_the_record_there_exactly_once(sandbox: Sandbox) -> None:
    """The client sees a reset, the record is there; the replay updates it, and there is still one."""
    salesforce, client = sandbox
    salesforce.faults.switch_on(Fault(kind=FaultKind.RESET, after_apply=True, calls=1))
    with pytest.raises(httpx.ReadError):
        await client.upsert(MASTER, master("a"))
    assert applied(salesforce) == ["a"]
    (result,) = (await client.upsert(MASTER, master("a"))).json()
    assert (result["success"], result["created"]) == (True, False)
    assert list(salesforce.records(MASTER)) == ["a"]
    assert salesforce.counts.upsert == {"reset": 1, "200": 1}


async def test_a_reset_before_the_call_is_applied_leaves_nothing(sandbox: Sandbox) -> None:
    """The client sees the same reset, and no record is there."""
    salesforce, client = sandbox
    salesforce.faults.switch_on(Fault(kind=FaultKind.RESET, calls=1))
    with pytest.raises(httpx.ReadError):
        await client.upsert(MASTER, master("a"))
    assert applied(salesforce) == []


@BEFORE_AND_AFTER
async def test_a_reset_is_one_and_no_orderly_end(sandbox: Sandbox, after_apply: bool) -> None:
    """On the wire it is a TCP reset, with not a byte of an answer before it."""
    salesforce, client = sandbox
    salesforce.faults.switch_on(Fault(kind=FaultKind.RESET, after_apply=after_apply))
    async with RawClient(address_of(salesforce)) as raw:
        await raw.send(raw_request(client, raw_upsert("a")))
        with pytest.raises(ConnectionResetError):
            await raw.read_to_end()


@BEFORE_AND_AFTER
async def test_a_call_that_hangs_gets_nothing_until_the_client_leaves(sandbox: Sandbox, after_apply: bool) -> None:
    """No answer comes; the client gives up, other calls are served meanwhile, and the record is there or not."""
    salesforce, client = sandbox
    salesforce.faults.switch_on(Fault(kind=FaultKind.HANG, after_apply=after_apply, calls=1))
    hanging = asyncio.create_task(client.upsert(MASTER, master("a")))
    await eventually(lambda: salesforce.counts.upsert["hang"])
    assert codes(await client.upsert(MASTER, master("b"))) == [None]
    assert not hanging.done()
    hanging.cancel()
    await asyncio.wait({hanging})
    assert applied(salesforce) == (["a", "b"] if after_apply else ["b"])


@BEFORE_AND_AFTER
async def test_half_a_body_ends_in_its_middle(sandbox: Sandbox, after_apply: bool) -> None:
    """The announced length is the whole body's; half of it comes, and then the connection's orderly end."""
    salesforce, client = sandbox
    salesforce.faults.switch_on(Fault(kind=FaultKind.HALF_BODY, after_apply=after_apply))
    with pytest.raises(httpx.RemoteProtocolError, match="without sending complete message body"):
        await client.upsert(MASTER, master("a"))
    head, body = await raw_answer(salesforce, client, raw_upsert("b"))
    assert len(body) == int(head["content-length"]) // 2
    assert head["status"] == ("200" if after_apply else "500")
    assert applied(salesforce) == (["a", "b"] if after_apply else [])


async def test_half_of_a_large_body_comes_to_a_client_that_takes_it_slowly(sandbox: Sandbox) -> None:
    """What the kernel has not taken at once is not lost with the connection's end."""
    salesforce, client = sandbox
    salesforce.faults.switch_on(Fault(kind=FaultKind.HALF_BODY, after_apply=True))
    names = [f"{place}{'x' * 3_000}" for place in range(10)]
    records = [{"attributes": {"type": MASTER}, "ExternalId__c": str(n), **dict.fromkeys(names, 1)} for n in range(180)]
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
    connection.setblocking(False)
    await asyncio.get_running_loop().sock_connect(connection, address_of(salesforce))
    reader, writer = await asyncio.open_connection(sock=connection)
    writer.write(raw_request(client, orjson.dumps({"records": records})))
    async with asyncio.timeout(40):
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    writer.close()
    (length,) = re.findall(rb"content-length: ([0-9]+)", head)
    assert len(body) == int(length) // 2 > 2_500_000


@BEFORE_AND_AFTER
async def test_a_wrong_length_is_half_of_the_body(sandbox: Sandbox, after_apply: bool) -> None:
    """All of the body comes under a length of half of it: a client reads JSON that is cut off."""
    salesforce, client = sandbox
    salesforce.faults.switch_on(Fault(kind=FaultKind.WRONG_LENGTH, after_apply=after_apply))
    response = await client.upsert(MASTER, master("a"))
    with pytest.raises(ValueError, match=r"."):
        response.json()
    head, body = await raw_answer(salesforce, client, raw_upsert("b"))
    assert len(body) // 2 == int(head["content-length"])
    assert body.endswith(b"]")
    assert applied(salesforce) == (["a", "b"] if after_apply else [])


@BEFORE_AND_AFTER
async def test_gzip_comes_unasked_and_whole(sandbox: Sandbox, after_apply: bool) -> None:
    """The body is compressed though the client asked for none, and a call that was not applied says so in it."""
    salesforce, client = sandbox
    salesforce.faults.switch_on(Fault(kind=FaultKind.GZIP, after_apply=after_apply))
    head, body = await raw_answer(salesforce, client, raw_upsert("a"))
    assert head["content-encoding"] == "gzip"
    text = gzip.decompress(body)
    assert (b'"success":true' in text) is after_apply
    assert (head["status"], b"UNKNOWN_EXCEPTION" in text) == (("200", False) if after_apply else ("500", True))
    response = await client.upsert(MASTER, master("b"))
    assert response.status_code == (200 if after_apply else 500)
    assert applied(salesforce) == (["a", "b"] if after_apply else [])


@BEFORE_AND_AFTER
@pytest.mark.parametrize(
    ("kind", "status", "media_type"),
    [
        (FaultKind.HTML, 200, "text/html"),
        (FaultKind.BAD_GATEWAY, 502, "text/html"),
        (FaultKind.JUNK, 200, "application/json"),
    ],
)
async def test_a_body_that_is_no_json(
    sandbox: Sandbox, kind: FaultKind, status: int, media_type: str, after_apply: bool
) -> None:
    """A page of HTML under 200 or 502, or a broken body: no result can be read, whether applied or not."""
    salesforce, client = sandbox
    salesforce.faults.switch_on(Fault(kind=kind, after_apply=after_apply))
    response = await client.upsert(MASTER, master("a"))
    assert (response.status_code, response.headers["content-type"].split(";")[0]) == (status, media_type)
    with pytest.raises(ValueError, match=r"."):
        response.json()
    assert applied(salesforce) == (["a"] if after_apply else [])


@pytest.mark.parametrize(
    ("kind", "status", "code"),
    [
        (FaultKind.ERROR, 500, "UNKNOWN_EXCEPTION"),
        (FaultKind.LIMIT, 403, "REQUEST_LIMIT_EXCEEDED"),
        (FaultKind.THROTTLED, 429, "TOO_MANY_REQUESTS"),
        (FaultKind.UNAVAILABLE, 503, "SERVER_UNAVAILABLE"),
    ],
)
async def test_a_failed_call_is_an_array_of_one_error(
    sandbox: Sandbox, kind: FaultKind, status: int, code: str
) -> None:
    """Status and code are those of Salesforce, there is no Retry-After unasked, and nothing is applied."""
    salesforce, client = sandbox
    salesforce.faults.switch_on(Fault(kind=kind, calls=1))
    response = await client.upsert(MASTER, master("a"))
    (error,) = response.json()
    assert (response.status_code, error["errorCode"]) == (status, code)
    assert "retry-after" not in response.headers
    assert applied(salesforce) == []
    assert codes(await client.upsert(MASTER, master("a"))) == [None]


@pytest.mark.parametrize("text", ["0", "7", "86400", "Sun, 29 Nov 2026 10:00:00 GMT", "soon", "-1", "1e999", ""])
@pytest.mark.parametrize("kind", [FaultKind.UNAVAILABLE, FaultKind.THROTTLED])
async def test_retry_after_is_any_text(sandbox: Sandbox, kind: FaultKind, text: str) -> None:
    """Seconds, a date, a day, nonsense and nothing come in the header as they were asked for."""
    salesforce, client = sandbox
    salesforce.faults.switch_on(Fault(kind=kind, retry_after=text))
    response = await client.upsert(MASTER, master("a"))
    assert response.headers["retry-after"] == text


async def test_a_non_unique_external_id_is_300_with_both_records(sandbox: Sandbox) -> None:
    """The answer lists the records that match, for a collection and for a single record, and nothing is applied."""
    salesforce, client = sandbox
    salesforce.faults.switch_on(Fault(kind=FaultKind.NOT_UNIQUE))
    for response in (
        await client.upsert(MASTER, master("a")),
        await client.patch(f"sobjects/{MASTER}/ExternalId__c/a", {"Version__c": 1}),
    ):
        assert response.status_code == 300
        first, second = response.json()
        assert first != second
        assert all(one.startswith(f"/services/data/v60.0/sobjects/{MASTER}/a00") for one in (first, second))
    assert applied(salesforce) == []


@BEFORE_AND_AFTER
async def test_a_slow_call_is_served_later(sandbox: Sandbox, after_apply: bool) -> None:
    """A call is held back for its time, before it is applied or after; another one passes it meanwhile."""
    salesforce, client = sandbox
    salesforce.faults.switch_on(Fault(kind=FaultKind.SLOW, seconds=0.5, after_apply=after_apply, calls=1))
    began = asyncio.get_running_loop().time()
    slow = asyncio.create_task(client.upsert(MASTER, master("a")))
    await eventually(lambda: len(salesforce.faults) == 0)
    assert codes(await client.upsert(MASTER, master("b"))) == [None]
    assert codes(await slow) == [None]
    assert asyncio.get_running_loop().time() - began >= 0.5
    assert applied(salesforce) == (["a", "b"] if after_apply else ["b", "a"])


async def test_a_client_that_does_not_wait_for_a_slow_call_has_made_it(sandbox: Sandbox) -> None:
    """The client gives up while its call is held back, and the record is there in the end."""
    salesforce, client = sandbox
    salesforce.faults.switch_on(Fault(kind=FaultKind.SLOW, seconds=0.5, calls=1))
    call = asyncio.create_task(client.upsert(MASTER, master("a")))
    await eventually(lambda: len(salesforce.faults) == 0)
    call.cancel()
    await asyncio.wait({call})
    await eventually(lambda: applied(salesforce) == ["a"])


async def test_records_are_refused_one_by_one_with_200(sandbox: Sandbox) -> None:
    """Lock, duplicate, validation and an unknown code each meet their record, and the others are applied."""
    salesforce, client = sandbox
    wanted = {
        "b": "UNABLE_TO_LOCK_ROW",
        "c": "DUPLICATES_DETECTED",
        "d": "FIELD_CUSTOM_VALIDATION_EXCEPTION",
        "e": "SOMETHING_NEW",
    }
    for external_id, code in wanted.items():
        salesforce.faults.switch_on(Fault(kind=FaultKind.RECORD, code=code, external_ids=(external_id,), calls=1))
    sent = [master(external_id) for external_id in "abcdef"]
    assert codes(await client.upsert(MASTER, *sent)) == [None, *wanted.values(), None]
    assert applied(salesforce) == ["a", "f"]
    assert codes(await client.upsert(MASTER, *sent)) == [None] * 6


async def test_a_record_fault_meets_a_single_record_too(sandbox: Sandbox) -> None:
    """There the code is the call's own, and the status 400."""
    salesforce, client = sandbox
    salesforce.faults.switch_on(Fault(kind=FaultKind.RECORD, code="UNABLE_TO_LOCK_ROW", every=1, calls=1))
    response = await client.patch(f"sobjects/{MASTER}/ExternalId__c/a", {"MemberId__c": "m-1", "Version__c": 1})
    assert (response.status_code, response.json()[0]["errorCode"]) == (400, "UNABLE_TO_LOCK_ROW")
    assert applied(salesforce) == []


async def test_a_fault_for_one_object_leaves_the_other_alone(sandbox: Sandbox) -> None:
    """Details fail while masters are served."""
    salesforce, client = sandbox
    salesforce.faults.switch_on(Fault(kind=FaultKind.UNAVAILABLE, object_type=DETAIL))
    assert codes(await client.upsert(MASTER, master("m"))) == [None]
    assert (await client.upsert(DETAIL, detail("d", "m"))).status_code == 503


async def test_a_refused_call_keeps_its_answer_and_leaves_the_fault_on(sandbox: Sandbox) -> None:
    """What is to happen after a call was applied waits for one that is."""
    salesforce, client = sandbox
    salesforce.faults.switch_on(Fault(kind=FaultKind.RESET, after_apply=True, calls=1))
    assert (await client.patch(f"composite/sobjects/{MASTER}/ExternalId__c", {})).status_code == 400
    assert len(salesforce.faults) == 1
    with pytest.raises(httpx.ReadError):
        await client.upsert(MASTER, master("a"))


@pytest.mark.parametrize(
    ("fault", "status", "error"),
    [
        (Fault(kind=FaultKind.ERROR, endpoint=Endpoint.TOKEN), 500, "unknown_error"),
        (Fault(kind=FaultKind.DENIED, endpoint=Endpoint.TOKEN), 400, "invalid_grant"),
        (Fault(kind=FaultKind.DENIED, endpoint=Endpoint.TOKEN, status=401), 401, "invalid_client"),
    ],
)
async def test_a_token_is_not_given(sandbox: Sandbox, fault: Fault, status: int, error: str) -> None:
    """As often as the client asks; calls with the old token are served all the same."""
    salesforce, client = sandbox
    salesforce.faults.switch_on(fault)
    for _ in range(3):
        response = await client.ask_token()
        assert (response.status_code, response.json()["error"]) == (status, error)
    assert codes(await client.upsert(MASTER, master("a"))) == [None]
    assert salesforce.counts.tokens_issued == 1


async def test_the_token_endpoint_gives_junk_is_slow_or_is_reset(sandbox: Sandbox) -> None:
    """Each of them once, in the order in which they were switched on, and then a token."""
    salesforce, client = sandbox
    for kind in (FaultKind.JUNK, FaultKind.HTML, FaultKind.RESET):
        salesforce.faults.switch_on(Fault(kind=kind, endpoint=Endpoint.TOKEN, calls=1))
    salesforce.faults.switch_on(Fault(kind=FaultKind.SLOW, seconds=0.3, endpoint=Endpoint.TOKEN, calls=1))
    for _ in range(2):
        response = await client.ask_token()
        with pytest.raises(ValueError, match=r"."):
            response.json()
    with pytest.raises(httpx.ReadError):
        await client.ask_token()
    began = asyncio.get_running_loop().time()
    assert (await client.ask_token()).status_code == 200
    assert asyncio.get_running_loop().time() - began >= 0.3
    assert salesforce.counts.token == {"200": 4, "reset": 1}
    assert salesforce.counts.tokens_issued == 2


async def test_a_stop_ends_what_hangs_and_what_is_slow(tmp_path: Path) -> None:
    """An orderly stop lets a slow call be served at once, ends one that hangs, and has cut off nothing else."""
    async with open_sandbox(tmp_path) as (salesforce, client):
        salesforce.faults.switch_on(Fault(kind=FaultKind.HANG, calls=1))
        salesforce.faults.switch_on(Fault(kind=FaultKind.SLOW, seconds=600, calls=1))
        hanging = asyncio.create_task(client.upsert(MASTER, master("a")))
        await eventually(lambda: len(salesforce.faults) == 1)
        slow = asyncio.create_task(client.upsert(MASTER, master("b")))
        await eventually(lambda: len(salesforce.faults) == 0)
        await salesforce.drain()
        assert codes(await slow) == [None]
        with pytest.raises(httpx.HTTPError):
            await hanging
        assert applied(salesforce) == ["b"]


def address_of(salesforce: Salesforce) -> tuple[str, int]:
    """Return where to connect to."""
    url = httpx.URL(salesforce.url)
    assert url.port is not None
    return url.host, url.port


def raw_upsert(external_id: str) -> bytes:
    """Return the body of a call for one record."""
    return orjson.dumps({"records": [{"attributes": {"type": MASTER}, **master(external_id)}]})


def raw_request(client: SalesforceClient, body: bytes) -> bytes:
    """Return a whole request, byte by byte."""
    lines = [
        f"PATCH /services/data/v60.0/composite/sobjects/{MASTER}/ExternalId__c HTTP/1.1",
        "host: sandbox",
        f"authorization: Bearer {client.token}",
        "content-type: application/json",
        "connection: close",
        f"content-length: {len(body)}",
    ]
    return "\r\n".join([*lines, "", ""]).encode() + body


async def raw_answer(salesforce: Salesforce, client: SalesforceClient, body: bytes) -> tuple[dict[str, str], bytes]:
    """Send a collection and return all that comes until the connection ends: the head with the status, and the rest."""
    async with RawClient(address_of(salesforce)) as raw:
        await raw.send(raw_request(client, body))
        head, _, rest = (await raw.read_to_end()).partition(b"\r\n\r\n")
    status_line, *lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    return headers | {"status": status_line.split(" ")[1]}, rest
