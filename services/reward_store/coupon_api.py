"""Ask coupon_api to cancel a coupon."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import httpx
import orjson

from loyalty.coupon import Coupon
from loyalty.errors import CouponUsedError
from runtime.errors import DependencyUnavailable
from runtime.logs import get_logger
from runtime.settings import read_secret
from runtime.telemetry import current_trace, request_id
from services.reward_store.errors import CancellationRejected
from services.reward_store.settings import CouponApiSettings

_DEPENDENCY: Final = "coupon_api"
_ANSWER_BYTES_MAX: Final = 65_536
_COME_BACK: Final = frozenset({httpx.codes.REQUEST_TIMEOUT, httpx.codes.TOO_MANY_REQUESTS})
_MEND_SECONDS: Final = 60.0

_log = get_logger(__name__)


class CouponApi:
    """A client of coupon_api that knows all its addresses.

    The next address is tried only when a connection was refused: then nothing was sent. (Sending twice would do no harm
    here, but a slow coupon_api is not helped by more requests.)
    """

    def __init__(self, client: httpx.AsyncClient, settings: CouponApiSettings) -> None:
        self._client = client
        self._settings = settings

    async def cancel(self, coupon: Coupon) -> None:
        """Make sure that the coupon can never be used again; may be repeated, also after a cancel of this call.

        Raises:
            CouponUsedError: It was used; that is final, too.
            CancellationRejected: The coupon, the token or the address is at fault; logged, once a try.
            DependencyUnavailable: There was no answer in time, or one that says to come back; ask again.
        """
        headers = await self._headers(coupon)
        try:
            async with asyncio.timeout(self._settings.timeout_seconds):
                response = await self._post(f"/v1/coupons/{coupon.code}/cancel", _order(coupon), headers)
        except TimeoutError:
            seconds = self._settings.timeout_seconds
            raise DependencyUnavailable(_DEPENDENCY, f"no answer within {seconds:g} s") from None
        except (httpx.HTTPError, OSError) as error:
            raise DependencyUnavailable(_DEPENDENCY, type(error).__name__) from error
        if response.status_code == httpx.codes.OK:
            return
        code = _problem_code(response)
        if response.status_code == httpx.codes.CONFLICT and code == "coupon-used":
            raise CouponUsedError
        said = f"answered {response.status_code} {code}"
        if response.status_code >= httpx.codes.INTERNAL_SERVER_ERROR or response.status_code in _COME_BACK:
            raise DependencyUnavailable(_DEPENDENCY, said)
        raise self._rejected(coupon, said)

    def _rejected(self, coupon: Coupon, reason: str) -> CancellationRejected:
        """Tell of what waiting does not mend: somebody has to look."""
        _log.error("A cancellation was rejected", redemption_id=str(coupon.redemption_id), reason=reason)
        return CancellationRejected(_DEPENDENCY, reason, retry_after_seconds=_MEND_SECONDS)

    async def _post(self, path: str, body: bytes, headers: dict[str, str]) -> httpx.Response:
        """Send the request to the first address that accepts a connection.

        Raises:
            httpx.HTTPError, OSError: no address accepts, or the one that did failed.
        """
        refused: httpx.ConnectError | None = None
        for url in self._settings.urls:
            try:
                return await self._client.post(url.rstrip("/") + path, content=body, headers=headers)
            except httpx.ConnectError as error:
                refused = error
        assert refused is not None  # noqa: S101 - the settings hold at least one address
        raise refused

    async def _headers(self, coupon: Coupon) -> dict[str, str]:
        try:
            token = await asyncio.to_thread(read_secret, None, self._settings.token_file)
        except (OSError, ValueError) as error:
            raise self._rejected(coupon, f"token_file cannot be read: {type(error).__name__}") from error
        if token is None or not token.isascii() or not token.isprintable():
            raise self._rejected(coupon, "token_file holds no token")
        headers = {"authorization": f"Bearer {token}", "content-type": "application/json"}
        if (trace := current_trace.get()) is not None:
            headers["traceparent"] = trace.child().format()
        if (identity := request_id.get()) is not None:
            headers["x-request-id"] = identity
        return headers


def _order(coupon: Coupon) -> bytes:
    return orjson.dumps(
        {
            "code": coupon.code,
            "member_id": coupon.member_id,
            "reward_id": coupon.reward_id,
            "redemption_id": coupon.redemption_id,
            "value_cents": coupon.value.cents,
            "currency": coupon.value.currency,
            "issued_at": coupon.issued_at,
            "expires_at": coupon.expires_at,
            "version": coupon.version,
        }
    )


def _problem_code(response: httpx.Response) -> str:
    try:
        document: Any = orjson.loads(response.content[:_ANSWER_BYTES_MAX])  # Any: whatever the other side sent
    except orjson.JSONDecodeError:
        return ""
    code = document.get("code") if isinstance(document, dict) else None
    return code if isinstance(code, str) else ""


@asynccontextmanager
async def open_coupon_api(settings: CouponApiSettings) -> AsyncIterator[CouponApi]:
    """Open a client for the length of a block; nothing is connected until it is asked for."""
    # No connection is kept: one may be closed by the other side just as the next request goes out on it.
    limits = httpx.Limits(max_connections=settings.connections_max, max_keepalive_connections=0)
    async with httpx.AsyncClient(limits=limits, timeout=settings.timeout_seconds, trust_env=False) as client:
        yield CouponApi(client, settings)
