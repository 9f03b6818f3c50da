"""Say what happened to a coupon, and read what others said: the events of the topic `coupon-events`.

The shape is written down in `loyalty/schemas/coupon-event.v1.json`. A changed shape is a new schema version with a file
of its own, and consumers learn it before producers speak it. Unknown fields are refused, because a field that is
dropped in silence is data lost.

Reading is the hot path of the consumer, so it is written by hand: one search checks all texts of an event, and only an
event that fails is looked at field by field.
"""

import re
from datetime import datetime
from enum import StrEnum
from typing import Any, Final, NamedTuple
from uuid import UUID

import orjson

from loyalty.errors import (
    ContradictingKeyError,
    EmptyPayloadError,
    MissingKeyError,
    NotJsonError,
    OversizedError,
    TombstoneError,
    UnknownSchemaVersionError,
    UnknownTypeError,
    WrongFieldError,
)
from loyalty.identifier import COUPON_CODE_PATTERN, MEMBER_ID_PATTERN, REWARD_ID_PATTERN
from loyalty.money import CURRENCY_PATTERN, MAX_CENTS

SCHEMA_VERSION: Final = 1
MAX_EVENT_BYTES: Final = 16_384
MAX_COUPON_VERSION: Final = 2**31 - 1
UUID_PATTERN: Final = r"^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$"
TIME_PATTERN: Final = (
    r"^2[0-9]{3}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,6})?(Z|[+-][0-9]{2}:[0-9]{2})$"
)
"""RFC 3339 with an offset, in the years 2000 to 2999: every such time fits every clock on the way."""


class EventType(StrEnum):
    """What happened."""

    ISSUED = "coupon.issued"
    CANCELLED = "coupon.cancelled"


class CouponSnapshot(NamedTuple):
    """The whole coupon as its issuer knows it at one version (1 or more, rising with every change)."""

    code: str
    member_id: str
    reward_id: str
    redemption_id: UUID | None
    value_cents: int
    currency: str
    issued_at: datetime
    expires_at: datetime
    version: int


class CouponEvent(NamedTuple):
    """One thing that happened to one coupon. The record's key is the coupon's code, so its events keep their order."""

    event_id: UUID
    type: EventType
    occurred_at: datetime
    coupon: CouponSnapshot
    schema_version: int = SCHEMA_VERSION


class FlatEvent(NamedTuple):
    """An event that was checked, laid out as one row: ids as lower-case text, times with their offset."""

    code: str
    member_id: str
    reward_id: str
    redemption_id: str | None
    value_cents: int
    currency: str
    issued_at: datetime
    expires_at: datetime
    version: int
    type: str
    event_id: str
    occurred_at: datetime


def encode(event: CouponEvent) -> bytes:
    """Write an event as the JSON that `decode` reads and the schema describes; times keep their offset."""
    document = event._asdict()
    document["coupon"] = event.coupon._asdict()
    return orjson.dumps(document)


def decode(payload: bytes | None, key: bytes | None) -> CouponEvent:
    """Read a record's payload and hold it against the record's key.

    Every input gives an event or an `EventError`, and the same input always gives the same answer. The error's text
    names the field and the rule, never the value.

    Raises:
        EventError: The record cannot be understood; the subclass says why.
    """
    flat = decode_flat(payload, key)
    return CouponEvent(
        UUID(flat.event_id),
        EventType(flat.type),
        flat.occurred_at,
        CouponSnapshot(
            flat.code,
            flat.member_id,
            flat.reward_id,
            None if flat.redemption_id is None else UUID(flat.redemption_id),
            flat.value_cents,
            flat.currency,
            flat.issued_at,
            flat.expires_at,
            flat.version,
        ),
    )


def decode_flat(payload: bytes | None, key: bytes | None) -> FlatEvent:
    """Read and check exactly as `decode`, without building the objects a row does not need (half the time).

    Raises:
        EventError: As in `decode`.
    """
    document = _document(payload)
    coupon = document["coupon"]
    redemption_id = coupon["redemption_id"]
    cents, version = coupon["value_cents"], coupon["version"]
    try:
        texts = "\0".join(
            (
                document["event_id"],
                document["occurred_at"],
                coupon["code"],
                coupon["member_id"],
                coupon["reward_id"],
                "" if redemption_id is None else redemption_id,
                coupon["currency"],
                coupon["issued_at"],
                coupon["expires_at"],
            )
        )
        occurred_at = datetime.fromisoformat(document["occurred_at"])
        issued_at = datetime.fromisoformat(coupon["issued_at"])
        expires_at = datetime.fromisoformat(coupon["expires_at"])
    except (TypeError, ValueError):
        raise _wrong_field(document) from None
    if (
        _TEXTS.fullmatch(texts) is None
        or redemption_id == ""
        or type(cents) is not int
        or not 0 <= cents <= MAX_CENTS
        or type(version) is not int
        or not 1 <= version <= MAX_COUPON_VERSION
        or expires_at <= issued_at
    ):
        raise _wrong_field(document)
    if key is None:
        raise MissingKeyError("the key is missing: it must be the coupon's code")
    if key != coupon["code"].encode():
        raise ContradictingKeyError("the key must be the coupon's code")
    return FlatEvent(
        coupon["code"],
        coupon["member_id"],
        coupon["reward_id"],
        redemption_id,
        cents,
        coupon["currency"],
        issued_at,
        expires_at,
        version,
        document["type"],
        document["event_id"],
        occurred_at,
    )


def _document(payload: bytes | None) -> dict[str, Any]:  # Any: JSON holds anything until it is checked
    """Parse the payload as far as: it is an event of a known version and type, with all fields and no others."""
    if payload is None:
        raise TombstoneError("a record without a payload: coupons are cancelled, never deleted")
    if not payload:
        raise EmptyPayloadError("the payload is empty")
    if len(payload) > MAX_EVENT_BYTES:
        raise OversizedError(f"the payload is longer than {MAX_EVENT_BYTES} bytes")
    try:
        document = orjson.loads(payload)
    except orjson.JSONDecodeError:
        raise NotJsonError("the payload is not JSON in UTF-8") from None
    if type(document) is not dict:
        raise WrongFieldError("the payload must be a JSON object")
    version = document.get("schema_version")
    if type(version) is not int or version != SCHEMA_VERSION:
        raise UnknownSchemaVersionError(f"schema_version must be {SCHEMA_VERSION}")
    kind = document.get("type")
    if type(kind) is not str or kind not in _TYPES:
        raise UnknownTypeError(f"type must be one of {', '.join(sorted(_TYPES))}")
    if document.keys() != _EVENT_FIELDS:
        raise WrongFieldError(f"the event must have exactly the fields {', '.join(sorted(_EVENT_FIELDS))}")
    coupon = document["coupon"]
    if type(coupon) is not dict or coupon.keys() != _COUPON_FIELDS:
        raise WrongFieldError(f"coupon must be an object of exactly the fields {', '.join(sorted(_COUPON_FIELDS))}")
    return document


def _wrong_field(document: dict[str, Any]) -> WrongFieldError:  # Any: as in _document
    """Name the first field that breaks its rule; called only when one does."""
    coupon = document["coupon"]
    fields = {
        "event_id": document["event_id"],
        "occurred_at": document["occurred_at"],
        **{f"coupon.{name}": coupon[name] for name in CouponSnapshot._fields},
    }
    for name, value in fields.items():
        if not _obeys(name, value):
            return WrongFieldError(f"{name} must be {_RULES[name]}")
    return WrongFieldError("coupon.expires_at must be after coupon.issued_at")


def _obeys(name: str, value: object) -> bool:
    if name == "coupon.value_cents":
        return type(value) is int and 0 <= value <= MAX_CENTS
    if name == "coupon.version":
        return type(value) is int and 1 <= value <= MAX_COUPON_VERSION
    if name == "coupon.redemption_id" and value is None:
        return True
    if type(value) is not str or re.fullmatch(_PATTERNS[name], value) is None:
        return False
    if not name.endswith("_at"):
        return True
    try:
        datetime.fromisoformat(value)
    except ValueError:
        return False
    return True


_TYPES: Final = frozenset(EventType)
_EVENT_FIELDS: Final = frozenset(CouponEvent._fields)
_COUPON_FIELDS: Final = frozenset(CouponSnapshot._fields)
_PATTERNS: Final = {
    "event_id": UUID_PATTERN,
    "occurred_at": TIME_PATTERN,
    "coupon.code": COUPON_CODE_PATTERN,
    "coupon.member_id": MEMBER_ID_PATTERN,
    "coupon.reward_id": REWARD_ID_PATTERN,
    "coupon.redemption_id": UUID_PATTERN,
    "coupon.currency": CURRENCY_PATTERN,
    "coupon.issued_at": TIME_PATTERN,
    "coupon.expires_at": TIME_PATTERN,
}
_RULES: Final = {
    **dict.fromkeys(("event_id", "coupon.redemption_id"), "a UUID in lower case"),
    **dict.fromkeys(("occurred_at", "coupon.issued_at", "coupon.expires_at"), "an RFC 3339 time from 2000 to 2999"),
    "coupon.code": "16 characters of Crockford's base 32 in upper case",
    "coupon.member_id": "a member's id",
    "coupon.reward_id": "a reward's id",
    "coupon.currency": "three capital letters",
    "coupon.value_cents": f"an integer from 0 to {MAX_CENTS}",
    "coupon.version": f"an integer from 1 to {MAX_COUPON_VERSION}",
}
# No field may contain a NUL, so the joined texts match exactly when each text matches its own pattern.
_TEXTS: Final = re.compile(
    "\0".join(
        f"(?:{pattern.removeprefix('^').removesuffix('$')}){'?' if name == 'coupon.redemption_id' else ''}"
        for name, pattern in _PATTERNS.items()
    )
)
