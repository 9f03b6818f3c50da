"""Errors over HTTP: `application/problem+json` (RFC 9457) with a stable `code`, never an echo of the input.

Domain errors know no HTTP status; a `ProblemTable` maps their classes to (status, code) in one place. Whatever is not
in the table is "internal": its detail goes to the log with the request id, and only that id to the client.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final

import orjson

from runtime.errors import DependencyUnavailable

PROBLEM_MEDIA_TYPE: Final = "application/problem+json"
CODE_PATTERN: Final = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")

TYPE: Final = "about:blank"

DomainErrors = Mapping[type[Exception], tuple[int, str]]


@dataclass(frozen=True, slots=True)
class FieldError:
    """Name a field of the request and the rule it broke; the value itself is never kept.

    Args:
        field: where it is, e.g. `body.reward_id`, `query.limit`, `header.idempotency-key`.
        rule: the rule's stable name, e.g. `missing`, `string_pattern_mismatch`, `unknown`.
    """

    field: str
    rule: str


class Problem(Exception):  # noqa: N818 - RFC 9457's own noun; it is an answer rather than a fault
    """End a request with this answer; raised by a handler, a dependency or a guard.

    Args:
        status: an HTTP status from 400 to 599.
        code: stable, kebab-case, documented; what a client may branch on.
        detail: a fixed sentence for people; must not contain anything the client sent.
        errors: the fields at fault.
        headers: more response headers, lower-case names.

    Raises:
        ValueError: status or code is out of its range.
    """

    def __init__(
        self,
        status: int,
        code: str,
        detail: str | None = None,
        *,
        errors: Sequence[FieldError] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        if not 400 <= status <= 599:
            raise ValueError(f"status must be from 400 to 599, not {status}")
        if not CODE_PATTERN.fullmatch(code):
            raise ValueError(f"code must be kebab-case, not {code!r}")
        super().__init__(status, code)
        self.status = status
        self.code = code
        self.detail = detail
        self.errors = tuple(errors)
        self.headers = dict(headers or {})

    def body(self, request_id: str | None = None) -> bytes:
        """Encode the problem document; fields without content are left out."""
        document: dict[str, Any] = {
            "type": TYPE,
            "title": title_of(self.status),
            "status": self.status,
            "code": self.code,
        }
        if self.detail:
            document["detail"] = self.detail
        if self.errors:
            document["errors"] = [{"field": error.field, "rule": error.rule} for error in self.errors]
        if request_id:
            document["request_id"] = request_id
        return orjson.dumps(document)

    def raw_headers(self, body: bytes) -> list[tuple[bytes, bytes]]:
        """Give the response headers for that body, in the form ASGI wants."""
        headers = [
            (b"content-type", PROBLEM_MEDIA_TYPE.encode()),
            (b"content-length", str(len(body)).encode()),
            (b"cache-control", b"no-store"),
        ]
        headers.extend((name.encode("ascii"), value.encode("ascii")) for name, value in self.headers.items())
        return headers


# RFC 9110 renamed these; Python learned it in 3.13, and a title must not depend on the interpreter.
_RENAMED: Final = {
    413: "Content Too Large",
    414: "URI Too Long",
    416: "Range Not Satisfiable",
    422: "Unprocessable Content",
}


def title_of(status: int) -> str:
    """Give the phrase of a status as RFC 9110 registers it, or "Error" for one that has none."""
    if status in _RENAMED:
        return _RENAMED[status]
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Error"


def overloaded(retry_after_seconds: int, code: str = "overloaded") -> Problem:
    """Build the 503 that tells a client when to come again."""
    return Problem(503, code, headers={"retry-after": str(retry_after_seconds)})


def unprocessable(errors: Iterable[FieldError]) -> Problem:
    """Build the 422 that names each field and the rule it broke, once: thousands of unknown fields are one line."""
    return Problem(422, "invalid-request", errors=tuple(dict.fromkeys(errors)))


class ProblemTable:
    """Turn any exception of a handler into a `Problem`, by the nearest class in its ancestry.

    Args:
        domain_errors: class to (status, code). A 503 also says Retry-After.
        retry_after_seconds: what a 503 says, unless the error asks for more.

    Raises:
        ValueError: a status or code of the table is not one (found when the table is built, not at the first error).
    """

    def __init__(self, domain_errors: DomainErrors, retry_after_seconds: int = 1) -> None:
        self._retry_after_seconds = retry_after_seconds
        self._table = dict(domain_errors)
        for status, code in self._table.values():
            Problem(status, code)

    def find(self, error: Exception) -> Problem | None:
        """Give the answer for a known error, or None when it is an internal one."""
        if isinstance(error, Problem):
            return error
        for ancestor in type(error).__mro__:
            known = self._table.get(ancestor)
            if known is not None:
                status, code = known
                return Problem(status, code, headers=self._retry_after(error) if status == 503 else None)
        return None

    def _retry_after(self, error: Exception) -> dict[str, str]:
        asked = error.retry_after_seconds if isinstance(error, DependencyUnavailable) else 0
        return {"retry-after": str(max(self._retry_after_seconds, math.ceil(asked)))}


PROBLEM_SCHEMA: Final[dict[str, Any]] = {
    "title": "Problem",
    "description": "RFC 9457 problem details with a stable code.",
    "type": "object",
    "required": ["type", "title", "status", "code"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer", "minimum": 400, "maximum": 599},
        "code": {"type": "string", "pattern": f"^{CODE_PATTERN.pattern}$"},
        "detail": {"type": "string"},
        "request_id": {"type": "string"},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["field", "rule"],
                "properties": {"field": {"type": "string"}, "rule": {"type": "string"}},
                "additionalProperties": False,
            },
        },
    },
    "additionalProperties": False,
}
