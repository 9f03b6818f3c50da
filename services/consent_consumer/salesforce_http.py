"""One request to Salesforce and its whole answer, within bounds of time and size."""

import asyncio
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Final, Protocol

from runtime.http_connection import HttpAnswer, HttpExchangeError
from services.consent_consumer.salesforce_pause import Pause
from services.consent_consumer.salesforce_settings import SalesforceSettings

_COME_BACK: Final = frozenset({HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS})
_HEADERS: Final = {"accept": "application/json", "accept-encoding": "gzip", "user-agent": "consent-consumer"}
_GZIP_BITS = zlib.MAX_WBITS | 16


class _UnreadableError(Exception):
    """The answer's body is not what its headers say, or too long."""


class Client(Protocol):
    """Sends a request once, and bounds the answer; `runtime.http_client.HttpClient` is one."""

    async def send(self, method: str, target: str, *, headers: Mapping[str, str], content: bytes | None) -> HttpAnswer:
        """Return the answer, or raise `HttpExchangeError`."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer.

    Attributes:
        status: below 500, and none that says to come back later.
        body: unpacked, and not yet looked at.
        began: when its request did, by the loop's clock.
    """

    status: int
    body: bytes = field(repr=False)
    began: float = 0.0


class SalesforceHttp:
    """Sends requests while there is no pause, and begins one whenever Salesforce cannot answer.

    Nothing is sent a second time, and no redirect is followed.
    """

    def __init__(self, client: Client, settings: SalesforceSettings, pause: Pause) -> None:
        self._client = client
        self._settings = settings
        self._pause = pause

    async def send(self, method: str, path: str, content: bytes | None, headers: Mapping[str, str]) -> Answer:
        """Send a request; a cancelled one closes its connection, and may have been served.

        Raises:
            SalesforceUnavailable: There is a pause, no whole answer came in time, or one that says to come back later.
        """
        self._pause.check()
        began = asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout(self._settings.call_timeout_seconds):
                answer = await self._client.send(method, path, headers={**_HEADERS, **headers}, content=content)
            body = _unpacked(answer, self._settings.answer_bytes_max)
        except TimeoutError:
            detail = f"no answer within {self._settings.call_timeout_seconds:g} s"
            raise self._pause.fail(detail, began=began) from None
        except _UnreadableError as error:
            raise self._pause.fail(f"gave an answer {error}", began=began) from None
        except HttpExchangeError as error:
            raise self._pause.fail(str(error), began=began) from error
        if answer.status >= HTTPStatus.INTERNAL_SERVER_ERROR or answer.status in _COME_BACK:
            wanted = retry_after_seconds(answer.headers.get("retry-after", ""), datetime.now(UTC))
            detail = f"answered {answer.status}"
            raise self._pause.fail(detail, began=began, retry_after_seconds=wanted)
        return Answer(answer.status, body, began)


def _unpacked(answer: HttpAnswer, bytes_max: int) -> bytes:
    """Return the body, unpacked as far as it may be long."""
    encoding = answer.headers.get("content-encoding", "identity").strip().lower()
    if encoding in ("", "identity"):
        return answer.body
    if encoding != "gzip":
        raise _UnreadableError("in an encoding nobody asked for")
    unpacker = zlib.decompressobj(wbits=_GZIP_BITS)
    try:
        unpacked = unpacker.decompress(answer.body, bytes_max + 1)
    except zlib.error:
        raise _UnreadableError("with what is no gzip") from None
    if len(unpacked) > bytes_max:
        raise _UnreadableError("with too long a body")
    if not unpacker.eof:
        raise _UnreadableError("with half a body")
    return unpacked


def retry_after_seconds(text: str, now: datetime) -> float | None:
    """Return how many seconds a Retry-After asks for (RFC 9110, section 10.2.3), 0 for a time that is past.

    None for nonsense, and for no text at all.
    """
    if text.isascii() and text.isdecimal():
        return float(text)
    try:
        at = parsedate_to_datetime(text)
    except (ValueError, TypeError, OverflowError, IndexError):
        return None
    return None if at.tzinfo is None else max(0.0, (at - now).total_seconds())
