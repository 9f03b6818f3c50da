"""A Salesforce that answers as a test tells it, in place of the HTTP client: no socket, no time."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import httpx
import orjson

from runtime.http_connection import HttpAnswer
from services.consent_consumer.salesforce import Salesforce, build_salesforce
from services.consent_consumer.salesforce_settings import SalesforceSettings

SECRET = "the-secret-of-the-app"  # noqa: S105 - of the tests
URL = "https://salesforce"
TOKEN_PATH = "/services/oauth2/token"  # noqa: S105 - a path
STORED = {"id": "a00000000000001AAA", "success": True, "errors": [], "created": True}

Handler = Callable[[httpx.Request], HttpAnswer | Awaitable[HttpAnswer]]


def answered(status: int, content: object = b"", headers: Mapping[str, str] | None = None) -> HttpAnswer:
    """Make an answer; what is no bytes goes as JSON."""
    body = content if isinstance(content, bytes) else orjson.dumps(content)
    return HttpAnswer(status, headers or {}, body)


def error(status: int, code: str) -> HttpAnswer:
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


def stored(request: httpx.Request) -> HttpAnswer:
    """Answer a call as if every record of it were stored."""
    return answered(200, [STORED] * len(sent_records(request)))


class FakeSalesforce:
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

    async def send(self, method: str, target: str, *, headers: Mapping[str, str], content: bytes | None) -> HttpAnswer:
        """Answer one request."""
        request = httpx.Request(method, URL + target, headers=headers, content=content)
        if request.url.path != TOKEN_PATH:
            self.calls.append(request)
            return await _awaited(self.answer(request))
        self.forms.append(dict(parse_qsl(request.content.decode())))
        if self.answer_token is not None:
            return await _awaited(self.answer_token(request))
        return answered(200, {"access_token": f"token-{len(self.forms)}"})

    @property
    def bearers(self) -> list[str]:
        """The tokens of the calls so far."""
        return [call.headers["authorization"].removeprefix("Bearer ") for call in self.calls]


async def _awaited(answer: HttpAnswer | Awaitable[HttpAnswer]) -> HttpAnswer:
    return answer if isinstance(answer, HttpAnswer) else await answer


def fake_settings(directory: Path, **changes: Any) -> SalesforceSettings:  # noqa: ANN401 - settings
    """Return settings whose secret is in this directory; a pause is over at once, unless it is changed."""
    file = directory / "secret"
    if not file.exists():
        file.write_text(f"{SECRET}\n")
    quick = {"backoff_first_seconds": 1e-9, "backoff_most_seconds": 1e-9}
    given = {"url": URL, "client_id": "the-app", "client_secret_file": file}
    return SalesforceSettings.model_validate(given | quick | changes)


@asynccontextmanager
async def open_fake(fake: FakeSalesforce, settings: SalesforceSettings) -> AsyncIterator[Salesforce]:
    """Open a client of the fake."""
    yield build_salesforce(fake, settings)


def records(*external_ids: str) -> list[dict[str, object]]:
    """Return records with these external ids."""
    return [{"ExternalId__c": external_id, "Version__c": 1} for external_id in external_ids]
