"""Entity tags (RFC 9110, section 8.8.3): a campaign's version between quotes, and the preconditions made of them.

`If-Match` compares strongly, so a weak tag (`W/"3"`) never matches; `If-None-Match` compares weakly, so it does. A tag
that is none of ours matches nothing, and `*` matches whatever is there.
"""

import re
from typing import Any, Final

from starlette.requests import Request

from runtime.problem import FieldError, Problem, unprocessable

_ITEM: Final = re.compile(r'[ \t]*(?:(W/)?"([\x21\x23-\x7e\x80-\xff]*)"[ \t]*)?(?:,|\Z)')
_VERSION: Final = re.compile(r"[1-9][0-9]{0,17}")


def etag_of(version: int) -> tuple[bytes, bytes]:
    """Give the header that names this version."""
    return b"etag", b'"%d"' % version


def required_match_of(request: Request) -> frozenset[int] | None:
    """Read `If-Match`: the versions that it accepts, None for any.

    Raises:
        Problem: 428, when it is missing; 422, when it is neither `*` nor a list of entity tags.
    """
    values = request.headers.getlist("if-match")
    if not values:
        raise Problem(428, "precondition-required", "Send the campaign's ETag as If-Match.")
    return _versions("if-match", values, takes_weak=False)


def is_known(request: Request, version: int) -> bool:
    """Say whether the client has this version already, by its `If-None-Match`.

    Raises:
        Problem: 422, when it is neither `*` nor a list of entity tags.
    """
    values = request.headers.getlist("if-none-match")
    if not values:
        return False
    versions = _versions("if-none-match", values, takes_weak=True)
    return versions is None or version in versions


def _versions(name: str, values: list[str], *, takes_weak: bool) -> frozenset[int] | None:
    text = ", ".join(values)
    if text.strip(" \t") == "*":
        return None
    versions, place, tags = set(), 0, 0
    while place < len(text):
        item = _ITEM.match(text, place)
        if item is None:
            raise unprocessable([FieldError(f"header.{name}", "entity tags")])
        place = item.end()
        weak, tag = item.groups()
        tags += tag is not None
        if tag is not None and _VERSION.fullmatch(tag) and (takes_weak or weak is None):
            versions.add(int(tag))
    if not tags:
        raise unprocessable([FieldError(f"header.{name}", "entity tags")])
    return frozenset(versions)


def _parameter(name: str, description: str, *, required: bool) -> dict[str, Any]:  # Any: an OpenAPI object
    schema = {"type": "string", "pattern": r'^(\*|(W/)?"[!#-~]*"( *, *(W/)?"[!#-~]*")*)$'}
    return {"name": name, "in": "header", "required": required, "description": description, "schema": schema}


IF_MATCH_PARAMETER: Final = _parameter(
    "If-Match", "The ETag of the campaign as the caller has seen it; `*` for whatever it is by now.", required=True
)
IF_NONE_MATCH_PARAMETER: Final = _parameter(
    "If-None-Match", "The ETag of the campaign as the caller has it; 304 if it is the same still.", required=False
)
