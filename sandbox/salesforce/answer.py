"""An answer over HTTP, and the two forms in which Salesforce tells of an error."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

import orjson

JSON: Final = "application/json;charset=UTF-8"
HTML: Final = "text/html;charset=UTF-8"

Header = tuple[bytes, bytes]


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer; `headers` come on top of the media type and the length."""

    status: int
    body: bytes = b""
    media_type: str = JSON
    headers: tuple[Header, ...] = ()

    def raw_headers(self) -> list[Header]:
        """Return the headers as ASGI takes them; 204 has neither a type nor a length."""
        if self.status == HTTPStatus.NO_CONTENT:
            return list(self.headers)
        own = [(b"content-type", self.media_type.encode()), (b"content-length", str(len(self.body)).encode())]
        return [*own, *self.headers]


def as_json(status: int, content: object, *headers: Header) -> Answer:
    """Make an answer out of what JSON can hold."""
    return Answer(status, orjson.dumps(content), headers=headers)


def api_error(status: int, code: str, message: str, fields: Sequence[str] = (), *headers: Header) -> Answer:
    """Make the answer to a failed call of the REST interface: an array of one error."""
    error: dict[str, object] = {"message": message, "errorCode": code}
    if fields:
        error["fields"] = fields
    return as_json(status, [error], *headers)


def oauth_error(status: int, error: str, description: str) -> Answer:
    """Make the answer to a refused request for a token (RFC 6749 section 5.2)."""
    return as_json(status, {"error": error, "error_description": description})
