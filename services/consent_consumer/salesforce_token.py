"""The token that lets this client in: OAuth 2.0 client credentials (RFC 6749, section 4.4)."""

import asyncio
import re
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import urlencode

import orjson

from runtime.logs import get_logger
from runtime.settings import read_secret
from services.consent_consumer.errors import SalesforceDenied
from services.consent_consumer.salesforce_http import Answer, SalesforceHttp
from services.consent_consumer.salesforce_pause import Pause
from services.consent_consumer.salesforce_settings import SalesforceSettings

_PATH: Final = "/services/oauth2/token"
_HEADERS: Final = {"content-type": "application/x-www-form-urlencoded"}
_TOKEN = re.compile(r"[\x21-\x7e]{1,4096}")
_ERROR = re.compile(r"[a-z_]{1,60}")

_log = get_logger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class AccessToken:
    """A token, and nothing that shows it; one is told from another by being it."""

    value: str = field(repr=False)


class Tokens:
    """Keeps one token for all calls, and gets the next one once, however many find out that it is no longer taken."""

    def __init__(self, http: SalesforceHttp, settings: SalesforceSettings, pause: Pause) -> None:
        self._http = http
        self._settings = settings
        self._pause = pause
        self._lock = asyncio.Lock()
        self._token: AccessToken | None = None

    async def current(self, refused: AccessToken | None = None) -> AccessToken:
        """Return a token that is not the refused one; a cancelled caller leaves the request for it to the next one.

        Raises:
            SalesforceDenied: The credentials are not taken, or the secret cannot be read: no token for a while.
            SalesforceUnavailable: No token came; those who waited for it do not ask for another one.
        """
        while (token := self._token) is None or token is refused:
            async with self._lock:
                if self._token is token:
                    self._pause.check()
                    self._token = await self._request()
        return token

    async def _request(self) -> AccessToken:
        content = {
            "grant_type": "client_credentials",
            "client_id": self._settings.client_id,
            "client_secret": await self._secret(),
        }
        answer = await self._http.send("POST", _PATH, urlencode(content).encode(), _HEADERS)
        if answer.status == HTTPStatus.OK:
            token = _content(answer).get("access_token")
            if isinstance(token, str) and _TOKEN.fullmatch(token) is not None:
                return AccessToken(token)
            raise self._pause.fail("gave a token that cannot be read", began=answer.began)
        if answer.status >= HTTPStatus.BAD_REQUEST:
            error = _content(answer).get("error")
            code = error if isinstance(error, str) and _ERROR.fullmatch(error) is not None else ""
            raise self._denied(f"refused the credentials: {answer.status} {code}".rstrip())
        raise self._pause.fail(f"answered {answer.status} to the request for a token", began=answer.began)

    async def _secret(self) -> str:
        try:
            return await asyncio.to_thread(read_secret, None, self._settings.client_secret_file) or ""
        except (OSError, ValueError) as error:
            # An error in decoding holds the bytes that it could not read.
            raise self._denied(f"client_secret_file cannot be read: {type(error).__name__}") from None

    def _denied(self, detail: str) -> SalesforceDenied:
        """Tell of what waiting does not mend: somebody has to look."""
        _log.error("Salesforce gives no token", reason=detail)
        return self._pause.deny(detail)


def _content(answer: Answer) -> dict[str, Any]:  # Any: whatever the other side sent
    try:
        content = orjson.loads(answer.body)
    except orjson.JSONDecodeError:
        return {}
    return content if isinstance(content, dict) else {}
