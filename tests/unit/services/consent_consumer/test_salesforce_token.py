"""How the client gets a token, gets the next one once, and leaves an endpoint alone that gives none."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from structlog.testing import capture_logs

from runtime.http_connection import HttpAnswer
from services.consent_consumer.errors import SalesforceDenied, SalesforceUnavailable
from services.consent_consumer.outcome import STORED
from services.consent_consumer.record import DETAIL_OBJECT, MASTER_OBJECT
from tests.support.eventually import eventually
from tests.unit.services.consent_consumer.salesforce_fake import (
    SECRET,
    FakeSalesforce,
    answered,
    error,
    fake_settings,
    open_fake,
    records,
    stored,
)

CALLERS = 50


def taking(*tokens: str) -> FakeSalesforce:
    """Make a fake that takes these tokens and no others."""

    def handle(request: httpx.Request) -> HttpAnswer:
        bearer = request.headers["authorization"].removeprefix("Bearer ")
        return stored(request) if bearer in tokens else error(401, "INVALID_SESSION_ID")

    return FakeSalesforce(handle)


async def test_the_request_for_a_token_is_one_of_client_credentials(tmp_path: Path) -> None:
    """Its form is that of RFC 6749, section 4.4.2, and one token serves all calls."""
    fake = FakeSalesforce()
    async with open_fake(fake, fake_settings(tmp_path)) as salesforce:
        for _ in range(3):
            await salesforce.upsert(MASTER_OBJECT, records("a"))
    assert fake.forms == [{"grant_type": "client_credentials", "client_id": "the-app", "client_secret": SECRET}]
    assert fake.bearers == ["token-1"] * 3


async def test_a_changed_secret_counts_with_the_next_token(tmp_path: Path) -> None:
    """The file is read anew for each token, so a new secret needs no restart."""
    fake = taking("token-1")
    async with open_fake(fake, fake_settings(tmp_path)) as salesforce:
        await salesforce.upsert(MASTER_OBJECT, records("a"))
        (tmp_path / "secret").write_text("the-next-secret")
        fake.answer = taking("token-2").answer
        await salesforce.upsert(MASTER_OBJECT, records("a"))
    assert [form["client_secret"] for form in fake.forms] == [SECRET, "the-next-secret"]


async def test_a_refused_token_is_replaced_and_the_call_made_once_more(tmp_path: Path) -> None:
    """The caller sees the outcome alone."""
    fake = taking("token-2")
    async with open_fake(fake, fake_settings(tmp_path)) as salesforce:
        assert await salesforce.upsert(MASTER_OBJECT, records("a")) == [STORED]
    assert fake.bearers == ["token-1", "token-2"]
    assert fake.calls[0].content == fake.calls[1].content


async def test_many_calls_that_lose_their_token_together_get_one_new_one(tmp_path: Path) -> None:
    """All of them are refused before the first new token comes; each is made once more, with that one."""
    fake = taking("token-1")
    async with open_fake(fake, fake_settings(tmp_path)) as salesforce:
        await salesforce.upsert(MASTER_OBJECT, records("a"))
        fake.calls.clear()
        fake.answer = taking("token-2").answer
        all_refused = asyncio.Event()

        async def give_late(_: httpx.Request) -> HttpAnswer:
            await all_refused.wait()
            return answered(200, {"access_token": f"token-{len(fake.forms)}"})

        fake.answer_token = give_late
        calls = [asyncio.create_task(salesforce.upsert(MASTER_OBJECT, records(str(n)))) for n in range(CALLERS)]
        await eventually(lambda: len(fake.calls) == CALLERS)
        all_refused.set()
        assert await asyncio.gather(*calls) == [[STORED]] * CALLERS
    assert len(fake.forms) == 2
    assert fake.bearers == ["token-1"] * CALLERS + ["token-2"] * CALLERS


async def test_a_late_refusal_of_an_old_token_asks_for_no_other_one(tmp_path: Path) -> None:
    """The call that was under way with the token before the last one finds that there is a newer one."""
    fake = taking("token-1")
    late = asyncio.Event()
    async with open_fake(fake, fake_settings(tmp_path)) as salesforce:
        await salesforce.upsert(MASTER_OBJECT, records("a"))
        current = taking("token-2").answer

        async def answer(request: httpx.Request) -> HttpAnswer:
            if b'"slow"' in request.content and request.headers["authorization"].endswith("token-1"):
                await late.wait()
            found = current(request)
            assert isinstance(found, HttpAnswer)
            return found

        fake.answer = answer
        slow = asyncio.create_task(salesforce.upsert(MASTER_OBJECT, records("slow")))
        await eventually(lambda: len(fake.calls) == 2)
        assert await salesforce.upsert(MASTER_OBJECT, records("b")) == [STORED]
        late.set()
        assert await slow == [STORED]
    assert len(fake.forms) == 2


async def test_a_token_that_is_refused_at_once_is_no_reason_for_a_third(tmp_path: Path) -> None:
    """The call is made twice, not more, and then there is a pause like after any failure."""
    fake = taking()
    settings = fake_settings(tmp_path, backoff_first_seconds=60, backoff_most_seconds=60)
    async with open_fake(fake, settings) as salesforce:
        with pytest.raises(SalesforceUnavailable, match="refused a token it had just given"):
            await salesforce.upsert(MASTER_OBJECT, records("a"))
        with pytest.raises(SalesforceUnavailable, match="paused"):
            await salesforce.upsert(MASTER_OBJECT, records("a"))
    assert (len(fake.calls), len(fake.forms)) == (2, 2)


async def test_those_who_wait_for_a_token_that_does_not_come_ask_for_no_other(tmp_path: Path) -> None:
    """One request for all of them, and one answer: there is none for a while."""
    fake = FakeSalesforce()
    all_wait = asyncio.Event()

    async def fail(_: httpx.Request) -> HttpAnswer:
        await all_wait.wait()
        return answered(500)

    fake.answer_token = fail
    settings = fake_settings(tmp_path, backoff_first_seconds=60, backoff_most_seconds=60)
    async with open_fake(fake, settings) as salesforce:
        calls = [asyncio.create_task(salesforce.upsert(MASTER_OBJECT, records(str(n)))) for n in range(CALLERS)]
        await eventually(lambda: fake.forms)
        all_wait.set()
        failures = await asyncio.gather(*calls, return_exceptions=True)
    assert {type(failure) for failure in failures} == {SalesforceUnavailable}
    assert (len(fake.forms), fake.calls) == (1, [])


async def test_a_caller_that_is_cancelled_leaves_the_request_to_the_next_one(tmp_path: Path) -> None:
    """The others get a token all the same."""
    fake = FakeSalesforce()

    async def never(_: httpx.Request) -> HttpAnswer:
        fake.answer_token = None
        await asyncio.Event().wait()
        raise AssertionError

    fake.answer_token = never
    async with open_fake(fake, fake_settings(tmp_path)) as salesforce:
        first = asyncio.create_task(salesforce.upsert(MASTER_OBJECT, records("a")))
        await eventually(lambda: fake.forms)
        second = asyncio.create_task(salesforce.upsert(MASTER_OBJECT, records("b")))
        first.cancel()
        assert await second == [STORED]
        with pytest.raises(asyncio.CancelledError):
            await first
    assert len(fake.forms) == 2


DENIED: list[tuple[Callable[[], HttpAnswer], str]] = [
    (lambda: answered(400, {"error": "invalid_grant"}), "refused the credentials: 400 invalid_grant"),
    (lambda: answered(400, {"error": "invalid_client"}), "refused the credentials: 400 invalid_client"),
    (lambda: answered(400, {"error": "<script>"}), "refused the credentials: 400"),
    (lambda: answered(400, b"junk"), "refused the credentials: 400"),
    (lambda: answered(401, {"error": "invalid_client"}), "refused the credentials: 401 invalid_client"),
    (lambda: answered(403, []), "refused the credentials: 403"),
    (lambda: answered(404, b"<html>"), "refused the credentials: 404"),
]


@pytest.mark.parametrize(("answer", "detail"), DENIED)
async def test_refused_credentials_stop_the_pushing_and_the_asking(
    tmp_path: Path, answer: Callable[[], HttpAnswer], detail: str
) -> None:
    """However often both streams ask, there is one request in the time of the pause, and one line in the log."""
    fake = FakeSalesforce()
    fake.answer_token = lambda _: answer()
    async with open_fake(fake, fake_settings(tmp_path, denied_pause_seconds=60)) as salesforce:
        with capture_logs() as logs:
            for object_type in (MASTER_OBJECT, DETAIL_OBJECT) * 20:
                with pytest.raises(SalesforceDenied, match=detail) as caught:
                    await salesforce.upsert(object_type, records("a"))
                assert 50 < caught.value.retry_after_seconds <= 60
    assert (len(fake.forms), fake.calls) == (1, [])
    assert [(line["event"], line["reason"]) for line in logs] == [("Salesforce gives no token", detail)]


async def test_what_was_mended_is_noticed(tmp_path: Path) -> None:
    """After the pause the next call asks again, and goes on as if nothing had been."""
    fake = FakeSalesforce()
    fake.answer_token = lambda _: answered(401)
    async with open_fake(fake, fake_settings(tmp_path, denied_pause_seconds=0.001)) as salesforce:
        with pytest.raises(SalesforceDenied):
            await salesforce.upsert(MASTER_OBJECT, records("a"))
        fake.answer_token = None
        await eventually(lambda: not salesforce.paused_seconds)
        assert await salesforce.upsert(MASTER_OBJECT, records("a")) == [STORED]


@pytest.mark.parametrize("content", [None, b"", b"\n", b"\xffword"])
async def test_a_secret_that_cannot_be_read_is_denied_without_a_request(tmp_path: Path, content: bytes | None) -> None:
    """A file that is gone, empty or no text has to be mended, and its content is not told."""
    fake = FakeSalesforce()
    settings = fake_settings(tmp_path, denied_pause_seconds=60)
    (tmp_path / "secret").unlink() if content is None else (tmp_path / "secret").write_bytes(content)
    async with open_fake(fake, settings) as salesforce:
        with capture_logs() as logs:
            for _ in range(2):
                with pytest.raises(SalesforceDenied, match=r"client_secret_file cannot be read: [A-Za-z]+$") as caught:
                    await salesforce.upsert(MASTER_OBJECT, records("a"))
                assert caught.value.__cause__ is None  # which would hold what it could not decode
    assert fake.forms == []
    assert len(logs) == 1


UNAVAILABLE: list[tuple[Callable[[], HttpAnswer], str]] = [
    (lambda: answered(429), "answered 429"),
    (lambda: answered(500), "answered 500"),
    (lambda: answered(503), "answered 503"),
    (lambda: answered(302, headers={"location": "https://elsewhere/"}), "answered 302 to the request for a token"),
    (lambda: answered(200, b"<html>"), "a token that cannot be read"),
    (lambda: answered(200, []), "a token that cannot be read"),
    (lambda: answered(200, {"access_token": None}), "a token that cannot be read"),
    (lambda: answered(200, {"access_token": ""}), "a token that cannot be read"),
    (lambda: answered(200, {"access_token": "a b"}), "a token that cannot be read"),
    (lambda: answered(200, {"access_token": "a\r\nx: y"}), "a token that cannot be read"),
    (lambda: answered(200, {"access_token": "é"}), "a token that cannot be read"),
    (lambda: answered(200, {"access_token": "x" * 4_097}), "a token that cannot be read"),
]


@pytest.mark.parametrize(("answer", "detail"), UNAVAILABLE)
async def test_an_endpoint_that_fails_is_unavailable(
    tmp_path: Path, answer: Callable[[], HttpAnswer], detail: str
) -> None:
    """No call is made without a token, and what is no token never becomes a header."""
    fake = FakeSalesforce()
    fake.answer_token = lambda _: answer()
    async with open_fake(fake, fake_settings(tmp_path)) as salesforce:
        with pytest.raises(SalesforceUnavailable, match=detail) as caught:
            await salesforce.upsert(MASTER_OBJECT, records("a"))
    assert not isinstance(caught.value, SalesforceDenied)
    assert (len(fake.forms), fake.calls) == (1, [])
