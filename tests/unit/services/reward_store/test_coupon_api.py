"""What the client of coupon_api sends, and what it makes of each answer."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import httpx
import orjson
import pytest
from structlog.testing import capture_logs

from loyalty.errors import CouponUsedError
from loyalty.identifier import new_coupon_code, new_id
from loyalty.money import Money
from loyalty.reward import Redemption, begin_cancel
from runtime.errors import DependencyUnavailable
from runtime.telemetry import TraceContext, bind
from services.coupon_api.schema import CancelBody
from services.reward_store.coupon_api import CouponApi
from services.reward_store.errors import CancellationRejected
from services.reward_store.settings import CouponApiSettings

NOW = datetime(2026, 11, 1, tzinfo=UTC)
COUPON = begin_cancel(
    Redemption(
        new_id(), "m-1", "rw-tea", new_coupon_code(), 100, Money(350, "EUR"), NOW, datetime(2026, 12, 1, tzinfo=UTC)
    )
).coupon()

Handler = Callable[[httpx.Request], httpx.Response]


@pytest.fixture
def settings(tmp_path: Path) -> CouponApiSettings:
    """Two addresses and a token."""
    token_file = tmp_path / "token"
    token_file.write_text("the-token\n")
    return CouponApiSettings(urls=("http://first:1/", "http://second:2"), token_file=token_file, timeout_seconds=0.2)


async def ask(settings: CouponApiSettings, handler: Handler) -> list[httpx.Request]:
    """Cancel the coupon at a coupon_api that answers by the handler, and return the requests it got."""
    requests: list[httpx.Request] = []

    def note(request: httpx.Request) -> httpx.Response:
        requests.append(request)
        return handler(request)

    async with httpx.AsyncClient(transport=httpx.MockTransport(note)) as client:
        await CouponApi(client, settings).cancel(COUPON)
    return requests


async def test_the_request_is_one_that_coupon_api_understands(settings: CouponApiSettings) -> None:
    """Path, token, trace, request id and body are as coupon_api's own schema wants them."""
    with bind(TraceContext("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"), "request-1"):
        [request] = await ask(settings, lambda _: httpx.Response(200))
    assert (request.method, str(request.url)) == ("POST", f"http://first:1/v1/coupons/{COUPON.code}/cancel")
    assert request.headers["authorization"] == "Bearer the-token"
    assert request.headers["x-request-id"] == "request-1"
    assert request.headers["traceparent"].startswith("00-0af7651916cd43dd8448eb211c80319c-")
    order = CancelBody.model_validate_json(request.content, strict=True).coupon()
    assert (order.code, order.redemption_id, order.value, order.version) == (
        COUPON.code,
        COUPON.redemption_id,
        COUPON.value,
        2,
    )
    assert (order.issued_at, order.expires_at) == (COUPON.issued_at, COUPON.expires_at)


async def test_a_changed_token_counts_with_the_next_request(settings: CouponApiSettings) -> None:
    """The file is read anew each time, so a new token needs no restart."""
    await ask(settings, lambda _: httpx.Response(200))
    settings.token_file.write_text("the-next-token")
    [request] = await ask(settings, lambda _: httpx.Response(200))
    assert request.headers["authorization"] == "Bearer the-next-token"


async def test_the_next_address_is_tried_when_one_refuses(settings: CouponApiSettings) -> None:
    """A refused connection carried nothing, so the request may go elsewhere."""

    def handler(request: httpx.Request) -> httpx.Response:
        if request.url.host == "first":
            raise httpx.ConnectError("refused")
        return httpx.Response(200)

    assert [request.url.host for request in await ask(settings, handler)] == ["first", "second"]


async def test_all_addresses_refusing_is_unavailable(settings: CouponApiSettings) -> None:
    """Nobody there: to be asked again."""

    def handler(_: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused")

    with pytest.raises(DependencyUnavailable, match="ConnectError"):
        await ask(settings, handler)


async def test_a_connection_that_breaks_later_is_not_repeated_elsewhere(settings: CouponApiSettings) -> None:
    """What was sent may have been done; whoever asks again does so knowingly."""
    hosts = []

    def handler(request: httpx.Request) -> httpx.Response:
        hosts.append(request.url.host)
        raise httpx.ReadError("reset")

    with pytest.raises(DependencyUnavailable, match="ReadError"):
        await ask(settings, handler)
    assert hosts == ["first"]


async def test_a_used_coupon_is_told_apart_from_every_other_refusal(settings: CouponApiSettings) -> None:
    """Only 409 with the code `coupon-used` is final."""
    used = httpx.Response(409, content=orjson.dumps({"code": "coupon-used"}))
    with pytest.raises(CouponUsedError):
        await ask(settings, lambda _: used)


@pytest.mark.parametrize(
    ("status", "content"),
    [
        (500, b""),
        (503, b'{"code": "coupon-used"}'),
        (408, b""),
        (429, b""),
    ],
)
async def test_an_answer_that_asks_for_patience_is_waited_for(
    settings: CouponApiSettings, status: int, content: bytes
) -> None:
    """A coupon_api that cannot now is no reason to call anybody."""
    with capture_logs() as lines, pytest.raises(DependencyUnavailable, match=f"answered {status}") as caught:
        await ask(settings, lambda _: httpx.Response(status, content=content))
    assert not isinstance(caught.value, CancellationRejected)
    assert lines == []


@pytest.mark.parametrize(
    ("status", "content"),
    [
        (409, b'{"code": "coupon-mismatch"}'),
        (409, b"<html>"),
        (409, b"[1]"),
        (409, b'{"code": 7}'),
        (401, b'{"code": "invalid-token"}'),
        (403, b""),
        (404, b""),
        (422, b"{}"),
        (302, b""),
        (204, b""),
    ],
)
async def test_an_answer_that_waiting_does_not_mend_is_rejected_and_logged_once(
    settings: CouponApiSettings, status: int, content: bytes
) -> None:
    """Data, token or address is at fault: nothing is given back, nothing refused, and one error says which and why."""
    with capture_logs() as lines, pytest.raises(CancellationRejected, match=f"answered {status}"):
        await ask(settings, lambda _: httpx.Response(status, content=content))
    [line] = lines
    assert (line["log_level"], line["redemption_id"]) == ("error", str(COUPON.redemption_id))
    assert line["reason"].startswith(f"answered {status}")


@pytest.mark.parametrize("content", [None, b"", b"\xff\xfe", "t\u00f6ken".encode(), b"a\nb"])
async def test_a_token_that_cannot_be_used_is_rejected_before_anything_is_sent(
    settings: CouponApiSettings, content: bytes | None
) -> None:
    """A missing, empty or garbled file is a fault of access like a wrong token, and does not end the finisher."""
    settings.token_file.unlink()
    if content is not None:
        settings.token_file.write_bytes(content)
    sent: list[httpx.Request] = []

    def handler(request: httpx.Request) -> httpx.Response:
        sent.append(request)
        return httpx.Response(200)

    with capture_logs() as lines, pytest.raises(CancellationRejected, match="token_file"):
        await ask(settings, handler)
    assert (len(lines), sent) == (1, [])


async def test_no_answer_in_time_is_unavailable(settings: CouponApiSettings) -> None:
    """All tries together are bounded."""

    async def handler(_: httpx.Request) -> httpx.Response:
        await asyncio.Event().wait()
        raise AssertionError("unreachable")

    async with httpx.AsyncClient(transport=httpx.MockTransport(handler)) as client:
        with pytest.raises(DependencyUnavailable, match=r"no answer within 0\.2 s"):
            await CouponApi(client, settings).cancel(COUPON)
