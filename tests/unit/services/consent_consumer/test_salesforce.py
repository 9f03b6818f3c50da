"""What a call of Salesforce sends, and what the client makes of each answer."""

import asyncio
import gzip
import logging
import ssl
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
from structlog.testing import capture_logs

from runtime.http_client import HttpClient
from runtime.http_connection import HttpAnswer, HttpExchangeError
from services.consent_consumer import salesforce as salesforce_module
from services.consent_consumer.errors import SalesforceDenied, SalesforceUnavailable
from services.consent_consumer.outcome import Outcome, Verdict
from services.consent_consumer.record import DETAIL_OBJECT, MASTER_OBJECT
from services.consent_consumer.salesforce import RECORDS_PER_CALL_MAX, open_salesforce
from tests.support.eventually import eventually
from tests.unit.services.consent_consumer.salesforce_fake import (
    SECRET,
    STORED,
    FakeSalesforce,
    answered,
    error,
    fake_settings,
    open_fake,
    records,
    refused,
    sent_records,
    stored,
)

Answer = Callable[[], HttpAnswer]


async def test_a_call_is_one_that_salesforce_understands(tmp_path: Path) -> None:
    """Method, path, token and body are those of its reference: each record with its type, and none for all."""
    fake = FakeSalesforce()
    async with open_fake(fake, fake_settings(tmp_path)) as salesforce:
        assert await salesforce.upsert(MASTER_OBJECT, records("a")) == [Outcome(Verdict.STORED)]
    [call] = fake.calls
    assert (call.method, str(call.url)) == (
        "PATCH",
        "https://salesforce/services/data/v60.0/composite/sobjects/ConsentMaster__c/ExternalId__c",
    )
    assert call.headers["authorization"] == "Bearer token-1"
    assert call.headers["content-type"] == "application/json"
    assert orjson.loads(call.content) == {
        "allOrNone": False,
        "records": [{"attributes": {"type": "ConsentMaster__c"}, "ExternalId__c": "a", "Version__c": 1}],
    }


VERSION_RULE = "Version_Must_Not_Decrease: the record holds a newer version"
REFUSED_CODES = (
    "DUPLICATES_DETECTED",
    "FIELD_CUSTOM_VALIDATION_EXCEPTION",
    "FIELD_FILTER_VALIDATION_EXCEPTION",
    "FIELD_INTEGRITY_EXCEPTION",
    "INVALID_FIELD",
    "INVALID_OR_NULL_FOR_RESTRICTED_PICKLIST",
    "INVALID_TYPE_ON_FIELD_IN_RECORD",
    "MISSING_ARGUMENT",
    "NUMBER_OUTSIDE_VALID_RANGE",
    "REQUIRED_FIELD_MISSING",
    "STRING_TOO_LONG",
)
OUTCOMES: list[tuple[dict[str, Any], Outcome]] = [
    (STORED, Outcome(Verdict.STORED)),
    (STORED | {"created": False}, Outcome(Verdict.STORED)),
    (
        refused("FIELD_CUSTOM_VALIDATION_EXCEPTION", VERSION_RULE, "Version__c"),
        Outcome(Verdict.OLDER, "FIELD_CUSTOM_VALIDATION_EXCEPTION", "a newer version is stored"),
    ),
    (
        refused("INVALID_FIELD", "Foreign key external ID: i:7 not found for field ExternalId__c in entity X"),
        Outcome(Verdict.LATER, "INVALID_FIELD", "its master is not stored"),
    ),
    (refused("UNABLE_TO_LOCK_ROW"), Outcome(Verdict.LATER, "UNABLE_TO_LOCK_ROW")),
    (refused("DUPLICATE_VALUE"), Outcome(Verdict.LATER, "DUPLICATE_VALUE")),
    (refused("SOMETHING_NEW"), Outcome(Verdict.UNKNOWN, "SOMETHING_NEW")),
    (refused("no code at all"), Outcome(Verdict.UNKNOWN, "UNREADABLE")),
    (refused("STRING_TOO_LONG", VERSION_RULE), Outcome(Verdict.REFUSED, "STRING_TOO_LONG")),
    (refused("STRING_TOO_LONG", "Foreign key external ID: a"), Outcome(Verdict.REFUSED, "STRING_TOO_LONG")),
    (refused("STRING_TOO_LONG", "no", "A__c", "B__c"), Outcome(Verdict.REFUSED, "STRING_TOO_LONG", "A__c, B__c")),
    (refused("STRING_TOO_LONG", "no", "A__c", "\x00"), Outcome(Verdict.REFUSED, "STRING_TOO_LONG", "A__c")),
    (refused("DUPLICATE_EXTERNAL_ID"), Outcome(Verdict.REFUSED, "DUPLICATE_EXTERNAL_ID")),
    *((refused(code), Outcome(Verdict.REFUSED, code)) for code in REFUSED_CODES),
]


@pytest.mark.parametrize(("result", "outcome"), OUTCOMES)
async def test_each_result_of_a_record_has_its_outcome(
    tmp_path: Path, result: dict[str, Any], outcome: Outcome
) -> None:
    """Code by code, in a call whose other records are stored, at its own place."""
    fake = FakeSalesforce(lambda _: answered(200, [STORED, result, STORED]))
    async with open_fake(fake, fake_settings(tmp_path)) as salesforce:
        found = await salesforce.upsert(MASTER_OBJECT, records("a", "b", "c"))
    assert found == [Outcome(Verdict.STORED), outcome, Outcome(Verdict.STORED)]
    assert len(fake.calls) == 1


@pytest.mark.parametrize(
    ("results", "verdict"),
    [
        (["UNABLE_TO_LOCK_ROW", "STRING_TOO_LONG"], Verdict.REFUSED),
        (["UNABLE_TO_LOCK_ROW", "SOMETHING_NEW"], Verdict.UNKNOWN),
        (["STRING_TOO_LONG", "FIELD_CUSTOM_VALIDATION_EXCEPTION"], Verdict.OLDER),
    ],
)
async def test_of_several_errors_of_a_record_the_most_final_one_counts(
    tmp_path: Path, results: list[str], verdict: Verdict
) -> None:
    """A record that is refused anyway is not tried again for the sake of a lock; an older one is settled."""
    errors = [refused(code, VERSION_RULE)["errors"][0] for code in results]
    fake = FakeSalesforce(lambda _: answered(200, [{"id": None, "success": False, "errors": errors}]))
    async with open_fake(fake, fake_settings(tmp_path)) as salesforce:
        [outcome] = await salesforce.upsert(MASTER_OBJECT, records("a"))
    assert outcome.verdict is verdict


GZIPPED = gzip.compress(orjson.dumps([STORED]))
UNAVAILABLE: list[tuple[Answer, str]] = [
    (lambda: error(403, "REQUEST_LIMIT_EXCEEDED"), "answered 403 REQUEST_LIMIT_EXCEEDED"),
    (lambda: answered(408), "answered 408"),
    (lambda: error(429, "TOO_MANY_REQUESTS"), "answered 429"),
    (lambda: error(500, "UNKNOWN_EXCEPTION"), "answered 500"),
    (lambda: answered(502, b"<html>"), "answered 502"),
    (lambda: error(503, "SERVER_UNAVAILABLE"), "answered 503"),
    (lambda: answered(301, headers={"location": "https://elsewhere/"}), "answered 301"),
    (lambda: answered(307, headers={"location": "https://elsewhere/"}), "answered 307"),
    (lambda: answered(204), "answered 204"),
    (lambda: answered(200, b"<html>Maintenance</html>"), "what is no JSON"),
    (lambda: answered(200, b'[{"id":"a00'), "what is no JSON"),
    (lambda: answered(200, b""), "what is no JSON"),
    (lambda: answered(200, {"records": [STORED]}), "without a result for each record"),
    (lambda: answered(200, []), "without a result for each record"),
    (lambda: answered(200, [STORED] * 2), "without a result for each record"),
    (lambda: answered(200, None), "without a result for each record"),
    (lambda: answered(200, ["stored"]), "a result that cannot be read"),
    (lambda: answered(200, [{}]), "a result that cannot be read"),
    (lambda: answered(200, [STORED | {"errors": [{}]}]), "a result that cannot be read"),
    (lambda: answered(200, [STORED | {"success": 1}]), "a result that cannot be read"),
    (lambda: answered(200, [STORED | {"success": False}]), "a result that cannot be read"),
    (lambda: answered(200, [{"success": False, "errors": "no"}]), "a result that cannot be read"),
    (lambda: answered(200, [{"success": False, "errors": ["no"]}]), "a result that cannot be read"),
    (lambda: answered(200, [{"success": False, "errors": [{"statusCode": 7}]}]), "a result that cannot be read"),
    (lambda: answered(200, [refused("REQUEST_LIMIT_EXCEEDED")]), "refused a record: REQUEST_LIMIT_EXCEEDED"),
    (lambda: answered(200, [refused("SERVER_UNAVAILABLE")]), "refused a record: SERVER_UNAVAILABLE"),
    (lambda: answered(200, GZIPPED[:-1], {"content-encoding": "gzip"}), "with half a body"),
    (lambda: answered(200, b"plain", {"content-encoding": "gzip"}), "with what is no gzip"),
    (lambda: answered(200, GZIPPED, {"content-encoding": "br"}), "in an encoding nobody asked for"),
    (lambda: answered(200, gzip.compress(b" " * 5_000_000), {"content-encoding": "gzip"}), "with too long a body"),
]


@pytest.mark.parametrize(("answer", "detail"), UNAVAILABLE)
async def test_a_call_that_comes_to_nothing_is_no_records_fault(tmp_path: Path, answer: Answer, detail: str) -> None:
    """Whatever cannot be understood means: come back. One request was made, and it is told what the matter was."""
    fake = FakeSalesforce(lambda _: answer())
    async with open_fake(fake, fake_settings(tmp_path)) as salesforce:
        with pytest.raises(SalesforceUnavailable, match=detail) as caught:
            await salesforce.upsert(MASTER_OBJECT, records("a"))
    assert not isinstance(caught.value, SalesforceDenied)
    assert len(fake.calls) == 1


async def test_a_connection_that_fails_is_no_records_fault(tmp_path: Path) -> None:
    """Nothing is sent again here: whoever asks again knows that it may have been done."""

    def fail(_: httpx.Request) -> HttpAnswer:
        raise HttpExchangeError("half an answer")

    fake = FakeSalesforce(fail)
    async with open_fake(fake, fake_settings(tmp_path)) as salesforce:
        with pytest.raises(SalesforceUnavailable, match="half an answer"):
            await salesforce.upsert(MASTER_OBJECT, records("a"))
    assert len(fake.calls) == 1


DENIED: list[tuple[Answer, str]] = [
    (lambda: error(403, "API_DISABLED_FOR_ORG"), "answered 403 API_DISABLED_FOR_ORG"),
    (lambda: answered(403, b"<html>"), "answered 403"),
    (lambda: error(404, "NOT_FOUND"), "answered 404 NOT_FOUND"),
    (lambda: error(405, "METHOD_NOT_ALLOWED"), "answered 405"),
    (lambda: error(410, "UNSUPPORTED_API_VERSION"), "answered 410"),
    (lambda: error(415, "UNSUPPORTED_MEDIA_TYPE"), "answered 415"),
    (lambda: answered(200, [refused("STORAGE_LIMIT_EXCEEDED")]), "refused a record: STORAGE_LIMIT_EXCEEDED"),
]


@pytest.mark.parametrize(("answer", "detail"), DENIED)
async def test_what_only_a_person_can_mend_stops_the_pushing(tmp_path: Path, answer: Answer, detail: str) -> None:
    """It is told as such, with a time before which asking again makes no sense, and the other object is served."""
    fake = FakeSalesforce(lambda call: answer() if DETAIL_OBJECT in call.url.path else stored(call))
    async with open_fake(fake, fake_settings(tmp_path, denied_pause_seconds=7)) as salesforce:
        with capture_logs() as logs, pytest.raises(SalesforceDenied, match=detail) as caught:
            await salesforce.upsert(DETAIL_OBJECT, records("a"))
        assert await salesforce.upsert(MASTER_OBJECT, records("a")) == [Outcome(Verdict.STORED)]
    assert caught.value.retry_after_seconds == 7
    assert [line["log_level"] for line in logs] == ["error"]


async def test_gzip_is_understood(tmp_path: Path) -> None:
    """A packed answer is read like any other."""
    fake = FakeSalesforce(lambda _: answered(200, GZIPPED, {"content-encoding": "gzip"}))
    async with open_fake(fake, fake_settings(tmp_path)) as salesforce:
        assert await salesforce.upsert(MASTER_OBJECT, records("a")) == [Outcome(Verdict.STORED)]


async def test_a_small_answer_that_unpacks_to_a_large_one_takes_no_memory(tmp_path: Path) -> None:
    """Of 64 MiB in 64 KiB no more is unpacked than an answer may have."""
    packer = zlib.compressobj(wbits=31)
    bomb = b"".join(packer.compress(b" " * 1_048_576) for _ in range(64)) + packer.flush()
    fake = FakeSalesforce(lambda _: answered(200, bomb, {"content-encoding": "gzip"}))
    async with open_fake(fake, fake_settings(tmp_path, answer_bytes_max=1_048_576)) as salesforce:
        tracemalloc.start()
        try:
            with pytest.raises(SalesforceUnavailable, match="with too long a body"):
                await salesforce.upsert(MASTER_OBJECT, records("a"))
            _, peak_bytes = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert peak_bytes < 8 * 1_048_576


def refusing(*poison: str, answer: Answer = lambda: error(400, "JSON_PARSER_ERROR")) -> FakeSalesforce:
    """Make a fake that refuses every call in which one of these records is, and stores the others."""

    def handle(request: httpx.Request) -> HttpAnswer:
        ids = {record["ExternalId__c"] for record in sent_records(request)}
        return stored(request) if ids.isdisjoint(poison) else answer()

    return FakeSalesforce(handle)


IDS = [f"id-{number}" for number in range(RECORDS_PER_CALL_MAX)]


@pytest.mark.parametrize("poison", [[IDS[0]], [IDS[199]], [IDS[57]], [IDS[57], IDS[58], IDS[140]], IDS[:2]])
async def test_a_record_that_spoils_its_call_is_found_in_halves(tmp_path: Path, poison: list[str]) -> None:
    """Each record is refused alone that spoils the call, each other one is stored, in the order that was given."""
    fake = refusing(*poison)
    async with open_fake(fake, fake_settings(tmp_path)) as salesforce:
        outcomes = await salesforce.upsert(MASTER_OBJECT, records(*IDS))
    wanted = Outcome(Verdict.REFUSED, "JSON_PARSER_ERROR", "the call as a whole")
    assert outcomes == [wanted if name in poison else Outcome(Verdict.STORED) for name in IDS]
    assert len(fake.calls) <= 1 + 2 * 8 * len(poison)


@pytest.mark.parametrize("answer", [lambda: answered(413), lambda: answered(400, b"<html>")])
async def test_a_refusal_without_a_code_is_told_by_its_status(tmp_path: Path, answer: Answer) -> None:
    """Too long a call is halved as well, and what refused a record alone has a name."""
    fake = refusing("b", answer=answer)
    async with open_fake(fake, fake_settings(tmp_path)) as salesforce:
        outcomes = await salesforce.upsert(MASTER_OBJECT, records("a", "b"))
    assert outcomes == [
        Outcome(Verdict.STORED),
        Outcome(Verdict.REFUSED, str(answer().status), "the call as a whole"),
    ]


async def test_an_external_id_that_is_not_unique_is_found_and_raises_an_alarm(tmp_path: Path) -> None:
    """300 is for a whole call; the record at fault is refused, the others are stored, and an error is logged."""
    fake = refusing("b", answer=lambda: answered(300, ["/a00000000000001AAA", "/a00000000000002AAA"]))
    async with open_fake(fake, fake_settings(tmp_path)) as salesforce:
        with capture_logs() as logs:
            outcomes = await salesforce.upsert(MASTER_OBJECT, records("a", "b", "c"))
    assert [outcome.verdict for outcome in outcomes] == [Verdict.STORED, Verdict.REFUSED, Verdict.STORED]
    assert [outcome.is_alarm for outcome in outcomes] == [False, True, False]
    assert [line["event"] for line in logs if line["log_level"] == "error"] == [
        "An external id is not unique in Salesforce"
    ]


async def test_a_record_that_is_no_json_is_refused_alone(tmp_path: Path) -> None:
    """It never reaches Salesforce, and keeps no other record from it."""
    fake = FakeSalesforce()
    odd: dict[str, object] = {"ExternalId__c": "b", "PolicyVersion__c": "\ud800"}
    async with open_fake(fake, fake_settings(tmp_path)) as salesforce:
        outcomes = await salesforce.upsert(MASTER_OBJECT, [*records("a"), odd, *records("c")])
    assert [outcome.verdict for outcome in outcomes] == [Verdict.STORED, Verdict.REFUSED, Verdict.STORED]
    assert [record["ExternalId__c"] for call in fake.calls for record in sent_records(call)] == ["a", "c"]


async def test_an_outage_amid_the_halves_is_told_as_one(tmp_path: Path) -> None:
    """No record is blamed for it, found or not."""
    fake = refusing("a")
    answer = fake.answer
    fake.answer = lambda request: answer(request) if len(fake.calls) < 3 else answered(503)
    async with open_fake(fake, fake_settings(tmp_path)) as salesforce:
        with pytest.raises(SalesforceUnavailable, match="answered 503"):
            await salesforce.upsert(MASTER_OBJECT, records("a", "b", "c", "d"))


async def test_what_no_call_can_hold_is_refused_before_it_is_sent(tmp_path: Path) -> None:
    """Too many records, and two with one external id, are mistakes of the caller; none at all are nothing to send."""
    fake = FakeSalesforce()
    async with open_fake(fake, fake_settings(tmp_path)) as salesforce:
        with pytest.raises(ValueError, match="at most 200"):
            await salesforce.upsert(MASTER_OBJECT, records(*IDS, "one more"))
        with pytest.raises(ValueError, match="an external id each"):
            await salesforce.upsert(MASTER_OBJECT, records("a", "b", "a"))
        assert await salesforce.upsert(MASTER_OBJECT, []) == []
    assert not fake.calls


async def test_one_failure_keeps_both_streams_back(tmp_path: Path) -> None:
    """Until the pause is over nothing is sent for either object, and each caller is told how long that is."""
    fake = FakeSalesforce(lambda _: answered(503, headers={"retry-after": "120"}))
    async with open_fake(fake, fake_settings(tmp_path)) as salesforce:
        with pytest.raises(SalesforceUnavailable) as caught:
            await salesforce.upsert(MASTER_OBJECT, records("a"))
        assert 119 < caught.value.retry_after_seconds <= 132
        for object_type in (MASTER_OBJECT, DETAIL_OBJECT):
            with pytest.raises(SalesforceUnavailable, match="paused: answered 503") as caught:
                await salesforce.upsert(object_type, records("a"))
            assert 110 < caught.value.retry_after_seconds <= salesforce.paused_seconds + 1
    assert len(fake.calls) == 1


async def test_a_call_that_is_served_makes_the_next_pause_a_short_one(tmp_path: Path) -> None:
    """Ten failures in a row make the pause a thousand times longer; after a success it begins anew."""
    fake = FakeSalesforce()
    settings = fake_settings(tmp_path, backoff_first_seconds=1e-6, backoff_most_seconds=60)

    async def fail() -> float:
        fake.answer = lambda _: answered(503)
        with pytest.raises(SalesforceUnavailable, match="answered 503") as caught:
            await salesforce.upsert(MASTER_OBJECT, records("a"))
        await eventually(lambda: not salesforce.paused_seconds)
        return caught.value.retry_after_seconds

    async with open_fake(fake, settings) as salesforce:
        for _ in range(10):
            await fail()
        assert await fail() > 1e-4
        fake.answer = stored
        await salesforce.upsert(MASTER_OBJECT, records("a"))
        assert await fail() <= 1e-6


async def never(_: httpx.Request) -> HttpAnswer:
    """Give no answer."""
    await asyncio.Event().wait()
    raise AssertionError


async def test_a_call_without_an_answer_ends_at_its_deadline(tmp_path: Path) -> None:
    """It is unavailable, and says for how long was waited."""
    async with open_fake(FakeSalesforce(never), fake_settings(tmp_path, **_times(0.05, 9))) as salesforce:
        with pytest.raises(SalesforceUnavailable, match=r"no answer within 0\.05 s"):
            await salesforce.upsert(MASTER_OBJECT, records("a"))


async def test_a_call_with_all_that_belongs_to_it_ends_at_its_deadline(tmp_path: Path) -> None:
    """A token that is slow, and a call that is slow after it, have one deadline together."""
    fake = FakeSalesforce(never)

    async def slow(_: httpx.Request) -> HttpAnswer:
        await asyncio.sleep(0.03)
        return answered(200, {"access_token": "late"})

    fake.answer_token = slow
    settings = fake_settings(tmp_path).model_copy(update=_times(60.0, 1.0))
    async with open_fake(fake, settings) as salesforce:
        with pytest.raises(SalesforceUnavailable, match="not done within 1 s"):
            await salesforce.upsert(MASTER_OBJECT, records("a"))
    assert fake.bearers == ["late"]


def _times(call: float, whole: float) -> dict[str, float]:
    return {"connect_timeout_seconds": min(call, whole), "call_timeout_seconds": call, "timeout_seconds": whole}


async def test_a_client_that_is_closed_ends_its_call_and_begins_no_half_of_it(tmp_path: Path) -> None:
    """The call under way has its answer; of the halves that it asks for none is sent, nor any later call."""
    fake = FakeSalesforce()
    async with open_fake(fake, fake_settings(tmp_path)) as salesforce:

        def close(_: httpx.Request) -> HttpAnswer:
            salesforce.close()
            return answered(300, [])

        fake.answer = close
        for _ in range(2):
            with pytest.raises(SalesforceUnavailable, match="closed"):
                await salesforce.upsert(MASTER_OBJECT, records("a", "b"))
        assert len(fake.calls) == 1


async def test_a_cancel_ends_a_call_and_is_not_swallowed(tmp_path: Path) -> None:
    """The caller's cancel is the caller's: no pause begins, and the next call is served."""
    fake = FakeSalesforce(never)
    async with open_fake(
        fake, fake_settings(tmp_path, backoff_first_seconds=60, backoff_most_seconds=60)
    ) as salesforce:
        call = asyncio.create_task(salesforce.upsert(MASTER_OBJECT, records("a")))
        await eventually(lambda: fake.calls)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        fake.answer = stored
        assert await salesforce.upsert(MASTER_OBJECT, records("a")) == [Outcome(Verdict.STORED)]


FAILURES: list[Answer] = [
    *(answer for answer, _ in [*UNAVAILABLE, *DENIED]),
    lambda: error(400, "JSON_PARSER_ERROR"),
    lambda: answered(401, f"token-1 token-2 {SECRET}".encode()),
    lambda: answered(300, [SECRET]),
    lambda: error(403, SECRET),
    lambda: answered(200, [refused(SECRET, SECRET, SECRET)]),
]


@pytest.mark.parametrize("answer", FAILURES)
@pytest.mark.parametrize("is_token", [False, True])
async def test_secret_and_token_are_told_to_nobody(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, answer: Answer, is_token: bool
) -> None:
    """Neither is in an error with its causes, in a line of any logger at its lowest level, or in an object's text."""
    caplog.set_level(logging.DEBUG)
    fake = FakeSalesforce(lambda _: answer())
    if is_token:
        fake.answer_token = fake.answer
    told: list[object] = []
    async with open_fake(fake, fake_settings(tmp_path)) as salesforce:
        with capture_logs() as logs:
            try:
                told += await salesforce.upsert(MASTER_OBJECT, records("a"))
            except SalesforceUnavailable as failure:
                cause: BaseException | None = failure
                while cause is not None:
                    told += [repr(cause), str(cause), vars(cause)]
                    cause = cause.__cause__ or cause.__context__
        parts = [salesforce, *vars(salesforce).values(), *vars(vars(salesforce)["_tokens"]).values()]
        told += [repr(part) for part in parts]
    text = "\n".join(map(repr, [*told, *logs, caplog.text]))
    assert fake.forms[0]["client_secret"] == SECRET
    assert SECRET not in text
    assert "token-1" not in text
    assert "token-2" not in text


async def test_a_client_of_its_own_checks_certificates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It verifies TLS and the host's name; without TLS it has nothing to verify."""
    made: list[ssl.SSLContext | None] = []

    def note(*arguments: Any, **named: Any) -> HttpClient:  # noqa: ANN401 - as there
        made.append(named["tls"])
        return HttpClient(*arguments, **named)

    monkeypatch.setattr(salesforce_module, "HttpClient", note)
    for url in ("https://salesforce", "http://127.0.0.1:1"):
        async with open_salesforce(fake_settings(tmp_path, url=url)):
            pass
    secure, plain = made
    assert secure is not None
    assert (secure.verify_mode, secure.check_hostname) == (ssl.CERT_REQUIRED, True)
    assert plain is None
