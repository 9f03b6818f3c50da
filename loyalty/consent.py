"""What a member allows: a consent, and for each purpose whether it stands, as MongoDB holds them.

Two collections, `consent_master` and `consent_detail`. Who writes them is not this release alone, so a document is read
with care: each field that is needed must be there and be of its type, and what else is in a document belongs to others
and is left alone. Version 1 of a master had `granted`, true or false, in place of `status`, and knew no channel but the
app.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final, TypeVar

from loyalty.errors import MissingConsentFieldError, UnknownConsentVersionError, WrongConsentFieldError
from loyalty.identifier import is_member_id

MASTER_SCHEMA_VERSION: Final = 2
DETAIL_SCHEMA_VERSION: Final = 1
POLICY_VERSION_CHARACTERS_MAX: Final = 40

_MASTER_FIRST_VERSION: Final = 1

Document = Mapping[str, object]
"""A document of MongoDB as its driver gives it."""


class ConsentStatus(StrEnum):
    """Whether a consent stands."""

    GRANTED = "granted"
    WITHDRAWN = "withdrawn"
    EXPIRED = "expired"


class ConsentChannel(StrEnum):
    """Where a member gave it or took it back."""

    APP = "app"
    WEB = "web"
    BRANCH = "branch"
    CALL_CENTRE = "call_centre"


class ConsentPurpose(StrEnum):
    """What a member may be asked to allow."""

    EMAIL = "email"
    SMS = "sms"
    PUSH = "push"
    PHONE = "phone"
    POST = "post"
    PROFILING = "profiling"
    THIRD_PARTY = "third_party"


# To call an enum takes two calls in Python, and each change is read by two of them.
_STATUSES: Final = {choice.value: choice for choice in ConsentStatus}
_CHANNELS: Final = {choice.value: choice for choice in ConsentChannel}
_PURPOSES: Final = {choice.value: choice for choice in ConsentPurpose}


@dataclass(frozen=True, slots=True)
class ConsentMaster:
    """A member's consent to one policy; its `document_id` may be of any type that MongoDB takes for one."""

    document_id: object
    member_id: str
    status: ConsentStatus
    policy_version: str
    channel: ConsentChannel
    changed_at: datetime


@dataclass(frozen=True, slots=True)
class ConsentDetail:
    """Whether a consent holds for one purpose; `master_id` is the `document_id` of its master."""

    document_id: object
    master_id: object
    purpose: ConsentPurpose
    is_granted: bool
    changed_at: datetime


def read_master(document: Document) -> ConsentMaster:
    """Read a document of `consent_master`, of the first or the second schema version.

    Every document gives a consent or a `ConsentError`, whose text names the field and the rule, never the value.

    Raises:
        UnknownConsentVersionError: The document is of another version.
        MissingConsentFieldError: A field is not there, or null.
        WrongConsentFieldError: A field is of the wrong type, or breaks its rule.
    """
    document_id = _document_id(document)
    if _schema_version(document, _MASTER_FIRST_VERSION, MASTER_SCHEMA_VERSION) == _MASTER_FIRST_VERSION:
        status = ConsentStatus.GRANTED if _flag(document, "granted") else ConsentStatus.WITHDRAWN
        channel = ConsentChannel.APP
    else:
        status = _choice(document, "status", _STATUSES)
        channel = _choice(document, "channel", _CHANNELS)
    return ConsentMaster(
        document_id, _member_id(document), status, _policy_version(document), channel, _changed_at(document)
    )


def read_detail(document: Document) -> ConsentDetail:
    """Read a document of `consent_detail`; as `read_master`, with one schema version so far.

    Raises:
        UnknownConsentVersionError, MissingConsentFieldError, WrongConsentFieldError: as there.
    """
    document_id = _document_id(document)
    _schema_version(document, DETAIL_SCHEMA_VERSION)
    return ConsentDetail(
        document_id,
        _needed(document, "master_id"),
        _choice(document, "purpose", _PURPOSES),
        _flag(document, "is_granted"),
        _changed_at(document),
    )


def _document_id(document: Document) -> object:
    """Return the id; null is one, too: MongoDB takes it like any other."""
    try:
        return document["_id"]
    except KeyError:
        raise MissingConsentFieldError("_id is missing") from None


def _needed(document: Document, name: str) -> object:
    value = document.get(name)
    if value is None:
        raise MissingConsentFieldError(f"{name} is {'null' if name in document else 'missing'}")
    return value


def _schema_version(document: Document, *known: int) -> int:
    version = document.get("schema_version")
    if not isinstance(version, int) or isinstance(version, bool) or version not in known:
        raise UnknownConsentVersionError(f"schema_version must be {' or '.join(map(str, known))}")
    return version


def _flag(document: Document, name: str) -> bool:
    value = _needed(document, name)
    if not isinstance(value, bool):
        raise WrongConsentFieldError(f"{name} must be true or false")
    return value


_Choice = TypeVar("_Choice", bound=StrEnum)


def _choice(document: Document, name: str, choices: Mapping[str, _Choice]) -> _Choice:
    value = _needed(document, name)
    choice = choices.get(value) if type(value) is str else None
    if choice is None:
        raise WrongConsentFieldError(f"{name} must be one of {', '.join(choices)}")
    return choice


def _member_id(document: Document) -> str:
    value = _needed(document, "member_id")
    if type(value) is not str or not is_member_id(value):
        raise WrongConsentFieldError("member_id must be a member's id")
    return value


def _policy_version(document: Document) -> str:
    value = _needed(document, "policy_version")
    if type(value) is not str or not 1 <= len(value) <= POLICY_VERSION_CHARACTERS_MAX or not value.isprintable():
        raise WrongConsentFieldError(
            f"policy_version must be text of 1 to {POLICY_VERSION_CHARACTERS_MAX} printable characters"
        )
    return value


def _changed_at(document: Document) -> datetime:
    value = _needed(document, "changed_at")
    if not isinstance(value, datetime) or value.utcoffset() is None:
        raise WrongConsentFieldError("changed_at must be a time with an offset, of the years 1 to 9999")
    return value
