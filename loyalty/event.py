"""Say what happened to a coupon, and read what others said: the events of the topic `coupon-events`.

The shape is written down in `loyalty/schemas/coupon-event.v1.json`. A changed shape is a new schema version with a file
of its own, and consumers learn it before producers speak it. Unknown fields are refused, because a field that is
dropped in silence is data lost.

Reading is the hot path of the consumer, so it is written by hand: one search checks all texts of an event, and only an
event that fails is looked at field by field.
"""

import re
from datetime import UTC, datetime
from enum import StrEnum
from operator import itemgetter
from typing import Any, Final, NamedTuple
from uuid import UUID

import orjson

from loyalty.errors import (
    ContradictingKeyError,
    EmptyPayloadError,
    EventError,
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
    r"^2[0-9]{3}-[0-9]{2}-[0-9]{2}T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\.[0-9]{1,6})?"
    r"(Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])$"
)
"""RFC 3339 with an offset, in the years 2000 to 2999 as written; in UTC too, as no pattern can say and `decode` checks.

Every such time fits every clock on the way.
"""
TIMES_BEGIN: Final = datetime(2000, 1, 1, tzinfo=UTC)
TIMES_END: Final = datetime(3000, 1, 1, tzinfo=UTC)


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
    try:
        document = orjson.loads(payload)  # type: ignore[arg-type] # None raises TypeError
        event_id, kind, schema_version, occurred, coupon = _EVENT_VALUES(document)
        code, member_id, reward_id, redemption_id, cents, currency, issued, expires, version = _COUPON_VALUES(coupon)
        redemption = "" if redemption_id is None else redemption_id
        words = (event_id, occurred, code, member_id, reward_id, redemption, currency, issued, expires)
        texts = "\0".join(words)  # raises TypeError for anything but text
        occurred_at, issued_at, expires_at = _time(occurred), _time(issued), _time(expires)
        if (
            _TEXTS.fullmatch(texts) is not None  # so the times have an offset and can be compared
            and TIMES_BEGIN <= issued_at < expires_at < TIMES_END
            and TIMES_BEGIN <= occurred_at < TIMES_END
            and type(cents) is int
            and 0 <= cents <= MAX_CENTS
            and type(version) is int
            and 1 <= version <= MAX_COUPON_VERSION
            and redemption_id != ""
            and kind in _TYPES
            and type(schema_version) is int
            and schema_version == SCHEMA_VERSION
            and len(document) == _EVENT_LENGTH
            and len(coupon) == _COUPON_LENGTH
            and key == code.encode()
            and len(payload) <= MAX_EVENT_BYTES  # type: ignore[arg-type] # as above
        ):
            return _NEW_FLAT(
                FlatEvent,
                (
                    code,
                    member_id,
                    reward_id,
                    redemption_id,
                    cents,
                    currency,
                    issued_at,
                    expires_at,
                    version,
                    kind,
                    event_id,
                    occurred_at,
                ),
            )
    except (TypeError, KeyError, ValueError):
        pass  # the reason is found below, once, for whatever failed
    raise _why_not(payload, key)


def _why_not(payload: bytes | None, key: bytes | None) -> EventError:
    """Find the first rule that a record breaks; for records that are known to break one."""
    try:
        document = _document(payload)
    except EventError as error:
        return error
    coupon = document["coupon"]
    fields = {
        "event_id": document["event_id"],
        "occurred_at": document["occurred_at"],
        **{f"coupon.{name}": coupon[name] for name in CouponSnapshot._fields},
    }
    for name, value in fields.items():
        if not _obeys(name, value):
            return WrongFieldError(f"{name} must be {_RULES[name]}")
    if key is None:
        return MissingKeyError("the key is missing: it must be the coupon's code")
    if key != coupon["code"].encode():
        return ContradictingKeyError("the key must be the coupon's code")
    return WrongFieldError("coupon.expires_at must be after coupon.issued_at")


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
        return TIMES_BEGIN <= datetime.fromisoformat(value) < TIMES_END
    except ValueError:
        return False


_time: Final = datetime.fromisoformat
_NEW_FLAT: Final = tuple.__new__  # past NamedTuple's own constructor, which is a function in Python
_EVENT_VALUES: Final = itemgetter("event_id", "type", "schema_version", "occurred_at", "coupon")
_COUPON_VALUES: Final = itemgetter(*CouponSnapshot._fields)
_EVENT_LENGTH: Final = len(CouponEvent._fields)
_COUPON_LENGTH: Final = len(CouponSnapshot._fields)
_TYPES: Final = frozenset(map(str, EventType))
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
    **dict.fromkeys(
        ("occurred_at", "coupon.issued_at", "coupon.expires_at"), "an RFC 3339 time of 2000 to 2999 in UTC"
    ),
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
