"""A Salesforce that answers as a test tells it, on the transport of the HTTP client: no socket, no time."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import httpx
import orjson

from services.consent_consumer.salesforce import Salesforce, build_salesforce
from services.consent_consumer.salesforce_settings import SalesforceSettings

SECRET = "the-secret-of-the-app"  # noqa: S105 - of the tests
TOKEN_PATH = "/services/oauth2/token"  # noqa: S105 - a path
STORED = {"id": "a00000000000001AAA", "success": True, "errors": [], "created": True}

Handler = Callable[[httpx.Request], httpx.Response | Awaitable[httpx.Response]]


class Body(httpx.AsyncByteStream):
    """A body in pieces, which the client reads as it would from a socket."""

    def __init__(self, *pieces: bytes) -> None:
        self._pieces = pieces

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Yield the pieces."""
        for piece in self._pieces:
            yield piece


def answered(status: int, content: object = b"", headers: Mapping[str, str] | None = None) -> httpx.Response:
    """Make an answer; what is no bytes goes as JSON."""
    body = content if isinstance(content, bytes) else orjson.dumps(content)
    return httpx.Response(status, headers=headers, stream=Body(body))


def error(status: int, code: str) -> httpx.Response:
    """Make the answer to a failed call."""
    return answered(status, [{"message": "m", "errorCode": code}])


def refused(code: str, message: str = "no", *fields: str) -> dict[str, Any]:
    """Make the result of a record that is not stored."""
    errors = [{"statusCode": code, "message": message, "fields": fields}]
    return {"id": None, "success": False, "errors": errors, "created": False}


def sent_records(request: httpx.Request) -> list[dict[str, Any]]:
    """Return the records of a call."""
    records: list[dict[str, Any]] = orjson.loads(request.content)["records"]
    return records


def stored(request: httpx.Request) -> httpx.Response:
    """Answer a call as if every record of it were stored."""
    return answered(200, [STORED] * len(sent_records(request)))


class FakeSalesforce(httpx.AsyncBaseTransport):
    """Gives the tokens `token-1`, `token-2` and so on, and answers every other call by the handler.

    Attributes:
        answer: the handler of calls.
        answer_token: the handler of requests for a token, in place of the tokens above.
        calls: the calls so far.
        forms: of the requests for a token so far.
    """

    def __init__(self, answer: Handler = stored) -> None:
        self.answer = answer
        self.answer_token: Handler | None = None
        self.calls: list[httpx.Request] = []
        self.forms: list[dict[str, str]] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Answer one request."""
        content = await request.aread()
        if request.url.path != TOKEN_PATH:
            self.calls.append(request)
            return await _awaited(self.answer(request))
        self.forms.append(dict(parse_qsl(content.decode())))
        if self.answer_token is not None:
            return await _awaited(self.answer_token(request))
        return answered(200, {"access_token": f"token-{len(self.forms)}"})

    @property
    def bearers(self) -> list[str]:
        """The tokens of the calls so far."""
        return [call.headers["authorization"].removeprefix("Bearer ") for call in self.calls]


async def _awaited(response: httpx.Response | Awaitable[httpx.Response]) -> httpx.Response:
    return response if isinstance(response, httpx.Response) else await response


def fake_settings(directory: Path, **changes: Any) -> SalesforceSettings:  # noqa: ANN401 - settings
    """Return settings whose secret is in this directory; a pause is over at once, unless it is changed."""
    file = directory / "secret"
    if not file.exists():
        file.write_text(f"{SECRET}\n")
    quick = {"backoff_first_seconds": 1e-9, "backoff_most_seconds": 1e-9}
    given = {"url": "https://salesforce", "client_id": "the-app", "client_secret_file": file}
    return SalesforceSettings.model_validate(given | quick | changes)


@asynccontextmanager
async def open_fake(fake: FakeSalesforce, settings: SalesforceSettings) -> AsyncIterator[Salesforce]:
    """Open a client of the fake."""
    async with httpx.AsyncClient(transport=fake) as client:
        yield build_salesforce(client, settings)


def records(*external_ids: str) -> list[dict[str, object]]:
    """Return records with these external ids."""
    return [{"ExternalId__c": external_id, "Version__c": 1} for external_id in external_ids]
