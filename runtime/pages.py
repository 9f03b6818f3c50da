"""Cursor pages: an opaque place to go on from, and a bounded size."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qsl

import orjson
from starlette.requests import Request

from runtime.problem import FieldError, unprocessable

LIMIT_DEFAULT: Final = 50
LIMIT_MAX: Final = 100
CURSOR_CHARACTERS_MAX: Final = 512
_LIMIT: Final = re.compile(r"[1-9][0-9]{0,5}")
_CURSOR: Final = re.compile(r"[A-Za-z0-9_-]+")

CursorPart = str | int


@dataclass(frozen=True, slots=True)
class Page:
    """Say which page a client wants: at most `limit` items after the place `after` (None: from the start)."""

    limit: int
    after: tuple[CursorPart, ...] | None


def encode_cursor(parts: Sequence[CursorPart]) -> str:
    """Make the opaque text for a place; the parts are the sort key of the last item that was given out.

    It is opaque by agreement, not a secret: whoever reads a decoded part must check it as any input.
    """
    return base64.urlsafe_b64encode(orjson.dumps(list(parts))).rstrip(b"=").decode()


def decode_cursor(text: str, kinds: Sequence[type[CursorPart]]) -> tuple[CursorPart, ...]:
    """Give the parts of a cursor whose parts have exactly these kinds.

    Raises:
        Problem: 422, for anything that `encode_cursor` would not have made.
    """
    problem = unprocessable([FieldError("query.cursor", "cursor")])
    if not 0 < len(text) <= CURSOR_CHARACTERS_MAX or not _CURSOR.fullmatch(text):
        raise problem
    try:
        parts = orjson.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    except (binascii.Error, ValueError):
        raise problem from None
    if not isinstance(parts, list) or [type(part) for part in parts] != list(kinds) or encode_cursor(parts) != text:
        raise problem
    if not all(_is_storable(part) for part in parts):
        raise problem
    return tuple(parts)


def _is_storable(part: CursorPart) -> bool:
    return "\0" not in part if isinstance(part, str) else abs(part) < 2**63


def page_of(request: Request, kinds: Sequence[type[CursorPart]]) -> Page:
    """Read `limit` and `cursor` of a request, each at most once; other names are refused by the API before this.

    Args:
        request: whose query is read.
        kinds: the kinds of the cursor's parts, in order.

    Raises:
        Problem: 422, naming the parameter and the rule.
    """
    query = request.scope["query_string"]
    if not query:
        return Page(LIMIT_DEFAULT, None)
    limit, after = LIMIT_DEFAULT, None
    for name, value in query_pairs(query):
        if name == "limit":
            if not _LIMIT.fullmatch(value) or not 1 <= int(value) <= LIMIT_MAX:
                raise unprocessable([FieldError("query.limit", f"integer from 1 to {LIMIT_MAX}")])
            limit = int(value)
        elif name == "cursor":
            after = decode_cursor(value, kinds)
    return Page(limit, after)


def query_pairs(query: bytes) -> list[tuple[str, str]]:
    """Split a query into its pairs.

    Raises:
        Problem: 422, for a query that is not UTF-8 once decoded, or has more than 32 parts.
    """
    try:
        return parse_qsl(
            query.decode("ascii"), keep_blank_values=True, strict_parsing=True, errors="strict", max_num_fields=32
        )
    except ValueError:
        raise unprocessable([FieldError("query", "malformed")]) from None


PAGE_PARAMETERS: Final = (
    {
        "name": "limit",
        "in": "query",
        "required": False,
        "description": "How many items at most.",
        "schema": {"type": "integer", "minimum": 1, "maximum": LIMIT_MAX, "default": LIMIT_DEFAULT},
    },
    {
        "name": "cursor",
        "in": "query",
        "required": False,
        "description": "Where to go on: `next_cursor` of the page before.",
        "schema": {
            "type": "string",
            "minLength": 1,
            "maxLength": CURSOR_CHARACTERS_MAX,
            "pattern": f"^{_CURSOR.pattern}$",
        },
    },
)
"""What `page_of` reads, for a route's documentation."""
