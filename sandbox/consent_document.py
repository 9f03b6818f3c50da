"""Consents as the journal and the audit compare them: a name for each document, and its content in JSON's own types.

The names are those that the records in Salesforce must bear. They are made here a second time, for the types of ids
that the members' apps use, so that the audit shares nothing with the service that it judges.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final, TypeAlias
from uuid import UUID

from bson import ObjectId

MASTERS: Final = "consent_master"
DETAILS: Final = "consent_detail"

Content: TypeAlias = dict[str, Any]  # Any: JSON
"""What a document says, without its id; times as RFC 3339 text, the id of a master by its name."""


def name_of(document_id: object) -> str:
    """Return the name of a document: one of another type than the apps use gets one that no record bears."""
    match document_id:
        case str():
            return f"s:{document_id}"
        case ObjectId():
            return f"o:{document_id}"
        case UUID():
            return f"u:{document_id}"
        case int() if not isinstance(document_id, bool):
            return f"i:{document_id}"
    return f"?:{document_id!r}"


def content_of(document: Mapping[str, object]) -> Content:
    """Return the content of a document of either collection."""
    return {name: _plain(name, value) for name, value in document.items() if name != "_id"}


def _plain(name: str, value: object) -> object:
    if name == "master_id":
        return name_of(value)
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat(timespec="milliseconds")
    return value
