"""What a path of the REST interface names."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote

from sandbox.salesforce.fault import Endpoint

VERSION_MIN: Final = 31
VERSION_MAX: Final = 68
COLLECTION_VERSION_MIN: Final = 46
"""From this version on records are upserted in collections, and an update of a single one is answered with a body."""
_TOKEN: Final = "/services/oauth2/token"  # noqa: S105 - a path
_VERSION = re.compile(r"v([0-9]{2})\.0")


@dataclass(frozen=True, slots=True)
class Target:
    """What a call is for: a token, an object by its field for external ids, or a query.

    Attributes:
        endpoint: which of them.
        version: of the interface.
        object_type: the object's name as it stands there, known or not; None for any other call.
        field: the field's name.
        external_id: the record's, where the path names a single one; None for a collection.
        locator: of a query's later page; None for a query that begins.
    """

    endpoint: Endpoint
    version: int = 0
    object_type: str | None = None
    field: str = ""
    external_id: str | None = None
    locator: str | None = None


def target_of(path: str) -> Target | None:
    """Read a path as it came, still encoded; None for one that leads nowhere."""
    if path == _TOKEN:
        return Target(Endpoint.TOKEN)
    segments = path.split("/")
    if segments[:3] != ["", "services", "data"] or len(segments) < 5:
        return None
    found = _VERSION.fullmatch(segments[3])
    version = int(found[1]) if found else 0
    if not VERSION_MIN <= version <= VERSION_MAX:
        return None
    if segments[4] == "query" and len(segments) <= 6:
        return Target(Endpoint.QUERY, version, locator=unquote("".join(segments[5:])) or None)
    if len(segments) != 8:
        return None
    if segments[4:6] == ["composite", "sobjects"] and version >= COLLECTION_VERSION_MIN:
        return Target(Endpoint.UPSERT, version, unquote(segments[6]), unquote(segments[7]))
    if segments[4] == "sobjects" and segments[7]:
        return Target(Endpoint.UPSERT, version, unquote(segments[5]), unquote(segments[6]), unquote(segments[7]))
    return None
