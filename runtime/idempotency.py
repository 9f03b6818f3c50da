"""Idempotency keys: the part that needs no database.

A client sends `Idempotency-Key` with an unsafe request, and repeats both when it does not know how the first one
ended. The same key with the same body gets the stored answer; with another body it is refused. See
`runtime.stored_answer` for the rest.
"""

from __future__ import annotations

import hashlib
import re
from typing import Annotated, Any, Final

import orjson
from fastapi import Depends
from pydantic import BaseModel
from starlette.requests import Request

from runtime.problem import FieldError, unprocessable

KEY_PATTERN: Final = re.compile(r"[A-Za-z0-9._~-]{8,128}")
_FIELD: Final = "header.idempotency-key"


def idempotency_key_of(request: Request) -> str:
    """Read the one Idempotency-Key of a request: 8 to 128 unreserved characters.

    Raises:
        Problem: 422, when it is missing, given twice, or not of that form.
    """
    values = request.headers.getlist("idempotency-key")
    if not values:
        raise unprocessable([FieldError(_FIELD, "missing")])
    if len(values) > 1:
        raise unprocessable([FieldError(_FIELD, "given more than once")])
    if not KEY_PATTERN.fullmatch(values[0]):
        raise unprocessable([FieldError(_FIELD, "string_pattern_mismatch")])
    return values[0]


def body_hash(body: BaseModel | dict[str, Any] | None) -> bytes:
    """Hash a validated body: SHA-256 over its canonical JSON, so that spacing and field order do not matter."""
    if isinstance(body, BaseModel):
        body = body.model_dump(mode="json")
    return hashlib.sha256(orjson.dumps(body, option=orjson.OPT_SORT_KEYS)).digest()


async def _idempotency_key(request: Request) -> str:
    return idempotency_key_of(request)


IdempotencyKeyHeader = Annotated[str, Depends(_idempotency_key)]

IDEMPOTENCY_KEY_PARAMETER: Final[dict[str, Any]] = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": True,
    "description": "The same key with the same body gets the same answer, by default for seven days.",
    "schema": {"type": "string", "minLength": 8, "maxLength": 128, "pattern": f"^{KEY_PATTERN.pattern}$"},
}
"""What `idempotency_key_of` reads, for a route's documentation (`openapi_extra`)."""


def reads_idempotency_key(dependency: object) -> bool:
    """Say whether a FastAPI dependency is the one that reads the key."""
    return dependency is _idempotency_key
