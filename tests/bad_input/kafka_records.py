"""Records that are no coupon events, each with the class and the words of its dead letter."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from loyalty.event import MAX_COUPON_VERSION, MAX_EVENT_BYTES
from loyalty.money import MAX_CENTS
from tests.bad_input.http_bodies import NOT_JSON
from tests.bad_input.http_row import CANARY, HOSTILE

CODE: Final = "K4N4RYK4N4RYK4N4"
KEY: Final = CODE.encode()
HEADERS: Final = ((CANARY, b"\x1b[31m\xff\0"), (CANARY, None), (HOSTILE, b""))
COUPON: Final[dict[str, Any]] = {
    "code": CODE,
    "member_id": f"m-{CANARY}",
    "reward_id": f"rw-{CANARY}",
    "redemption_id": "01890a5d-ac96-774b-bcce-b302099a8057",
    "value_cents": 500,
    "currency": "EUR",
    "issued_at": "2026-11-24T10:00:00Z",
    "expires_at": "2999-01-01T00:00:00Z",
    "version": 1,
}
EVENT: Final[dict[str, Any]] = {
    "event_id": "01890a5d-ac96-774b-bcce-b302099a8057",
    "type": "coupon.issued",
    "schema_version": 1,
    "occurred_at": "2026-11-24T10:00:00Z",
    "coupon": COUPON,
}


@dataclass(frozen=True, slots=True)
class PoisonRow:
    """A record, and the dead letter that it becomes."""

    name: str
    value: bytes | None
    error_class: str
    error_detail: str
    key: bytes | None = KEY
    headers: Sequence[tuple[str, bytes | None]] = HEADERS


_NOT_JSON_AT_ALL: Final = "the payload is not JSON in UTF-8"
_NO_OBJECT: Final = "the payload must be a JSON object"
_VERSION: Final = "schema_version must be 1"
_TYPE: Final = "type must be one of coupon.cancelled, coupon.issued"
_FIELDS: Final = "the event must have exactly the fields coupon, event_id, occurred_at, schema_version, type"
_COUPON_FIELDS: Final = (
    "coupon must be an object of exactly the fields code, currency, expires_at, issued_at, member_id, redemption_id,"
    " reward_id, value_cents, version"
)
_UUID: Final = "a UUID in lower case"
_TIME: Final = "an RFC 3339 time of 2000 to 2999 in UTC"
_NOT_KEY: Final = "the key must be the coupon's code"

# JSON for this reader, if no event: what comes twice counts the last time, and NUL is refused where text is looked at.
_IS_JSON: Final = frozenset(
    {
        "doubled name",
        "doubled name in another spelling",
        "doubled name inside",
        "seventeen levels",
        "NUL escaped",
        "NUL in a name",
    }
)

_NO_OBJECTS: Final[dict[str, object]] = {"null": None, "list": [EVENT], "text": HOSTILE, "number": 7, "true": True}
_NO_COUPONS: Final[dict[str, object]] = {"null": None, "list": [COUPON], "text": HOSTILE}
_VERSIONS: Final[dict[str, object]] = {
    "none": None, "0": 0, "2": 2, "true": True, "text": "1", "fraction": 1.0, "list": [1],
}  # fmt: skip
_TYPES: Final[dict[str, object]] = {
    "none": None, "unknown": "coupon.eaten", "upper case": "COUPON.ISSUED", "list": ["coupon.issued"],
    "hostile": HOSTILE,
}  # fmt: skip
_WRONG: Final[dict[str, tuple[str, dict[str, object]]]] = {
    "event_id": (
        _UUID,
        {
            "null": None,
            "number": 7,
            "upper case": EVENT["event_id"].upper(),
            "line end": EVENT["event_id"] + "\n",
            "hostile": HOSTILE,
        },
    ),
    "occurred_at": (
        _TIME,
        {
            "null": None,
            "number": 1_800_000_000,
            "no offset": "2026-11-24T10:00:00",
            "hostile": HOSTILE,
            "no such day": "2026-02-30T10:00:00Z",
            "hour 24": "2026-11-24T24:00:00Z",
            "offset of 99 minutes": "2026-11-24T10:00:00+00:99",
            "1999": "1999-12-31T23:59:59Z",
            "1999 in UTC": "2000-01-01T00:00:00+23:59",
            "leap second": "2016-12-31T23:59:60Z",
        },
    ),
    "coupon.code": (
        "16 characters of Crockford's base 32 in upper case",
        {"null": None, "lower case": CODE.lower(), "too short": CODE[1:], "too long": CODE + "0", "list": [CODE]},
    ),
    "coupon.member_id": (
        "a member's id",
        {
            "null": None,
            "NUL": f"m-{CANARY}\0",
            "too long": "m-" + "a" * 40,
            "hostile": HOSTILE,
            "line end": "m-1\n",
            "other script": "m-\u0661",
        },
    ),
    "coupon.reward_id": ("a reward's id", {"empty": "", "SQL": f"'; drop table {CANARY}", "object": {CANARY: 1}}),
    "coupon.redemption_id": (_UUID, {"empty": "", "number": 7, "false": False}),
    "coupon.value_cents": (
        f"an integer from 0 to {MAX_CENTS}",
        {
            "null": None,
            "true": True,
            "text": "500",
            "fraction": 500.0,
            "negative": -1,
            "too many": MAX_CENTS + 1,
            "beyond 64 bits": 2**64,
            "of 40 digits": 10**40,
        },
    ),
    "coupon.currency": ("three capital letters", {"lower case": "eur", "line end": "EUR\n", "hostile": HOSTILE}),
    "coupon.issued_at": (
        _TIME,
        {"null": None, "space": "2026-11-24 10:00:00Z", "offset of 99 minutes": "2026-11-24T10:00:00+00:99"},
    ),
    "coupon.expires_at": (
        _TIME,
        {"null": None, "3000": "3000-01-01T00:00:00Z", "3000 in UTC": "2999-12-31T23:59:59-00:01"},
    ),
    "coupon.version": (
        f"an integer from 1 to {MAX_COUPON_VERSION}",
        {"zero": 0, "true": True, "text": "1", "too high": MAX_COUPON_VERSION + 1, "null": None},
    ),
}


def changed(field: str, value: object) -> bytes:
    """Return the good event with one field changed, `coupon.` before the name for one of the coupon."""
    section, _, name = field.rpartition(".")
    if section:
        return json.dumps(EVENT | {"coupon": COUPON | {name: value}}).encode()
    return json.dumps(EVENT | {name: value}).encode()


def _without(content: dict[str, Any], name: str) -> dict[str, Any]:
    return {known: value for known, value in content.items() if known != name}


def _rows() -> Iterator[PoisonRow]:
    good = json.dumps(EVENT).encode()
    yield PoisonRow(
        "no payload", None, "TombstoneError", "a record without a payload: coupons are cancelled, never deleted"
    )
    yield PoisonRow(
        "no payload and no key",
        None,
        "TombstoneError",
        "a record without a payload: coupons are cancelled, never deleted",
        None,
    )
    yield PoisonRow("empty", b"", "EmptyPayloadError", "the payload is empty")
    long = f"the payload is longer than {MAX_EVENT_BYTES} bytes"
    yield PoisonRow("one byte too long", good.ljust(MAX_EVENT_BYTES + 1), "OversizedError", long)
    yield PoisonRow("of 900 kB", good.ljust(900_000), "OversizedError", long)
    yield PoisonRow("far too many levels", b"[" * 60_000, "OversizedError", long)
    yield PoisonRow("many levels", b"[" * 16_000, "NotJsonError", _NOT_JSON_AT_ALL)
    yield PoisonRow("zeros", b"\0" * 100, "NotJsonError", _NOT_JSON_AT_ALL)
    for name, text in NOT_JSON.items():
        if not text or len(text) > MAX_EVENT_BYTES:
            continue
        if name in _IS_JSON:
            yield PoisonRow(f"text, {name}", text, "UnknownSchemaVersionError", _VERSION)
        else:
            yield PoisonRow(f"text, {name}", text, "NotJsonError", _NOT_JSON_AT_ALL)
    for name, value in _NO_OBJECTS.items():
        yield PoisonRow(name, json.dumps(value).encode(), "WrongFieldError", _NO_OBJECT)
    for name, value in _VERSIONS.items():
        yield PoisonRow(
            f"schema version {name}", changed("schema_version", value), "UnknownSchemaVersionError", _VERSION
        )
    yield PoisonRow("nothing inside", b"{}", "UnknownSchemaVersionError", _VERSION)
    for name, value in _TYPES.items():
        yield PoisonRow(f"type {name}", changed("type", value), "UnknownTypeError", _TYPE)
    for name in ("event_id", "occurred_at", "coupon"):
        yield PoisonRow(f"no {name}", json.dumps(_without(EVENT, name)).encode(), "WrongFieldError", _FIELDS)
    yield PoisonRow("unknown field", changed(HOSTILE.replace(".", ""), 1), "WrongFieldError", _FIELDS)
    for name in COUPON:
        coupon = EVENT | {"coupon": _without(COUPON, name)}
        yield PoisonRow(f"no coupon.{name}", json.dumps(coupon).encode(), "WrongFieldError", _COUPON_FIELDS)
    yield PoisonRow("unknown field of the coupon", changed(f"coupon.{CANARY}", 1), "WrongFieldError", _COUPON_FIELDS)
    for name, value in _NO_COUPONS.items():
        yield PoisonRow(f"coupon {name}", changed("coupon", value), "WrongFieldError", _COUPON_FIELDS)
    for field, (rule, values) in _WRONG.items():
        for name, value in values.items():
            yield PoisonRow(f"{field} {name}", changed(field, value), "WrongFieldError", f"{field} must be {rule}")
    ends_first = changed("coupon.expires_at", COUPON["issued_at"])
    yield PoisonRow(
        "ends as it begins", ends_first, "WrongFieldError", "coupon.expires_at must be after coupon.issued_at"
    )
    missing = "the key is missing: it must be the coupon's code"
    yield PoisonRow("no key", good, "MissingKeyError", missing, None)
    for name, key in {
        "empty": b"",
        "other": b"0123456789ABCDEF",
        "lower case": KEY.lower(),
        "longer": KEY + b"\n",
        "binary": b"\xff\0",
    }.items():
        yield PoisonRow(f"key {name}", good, "ContradictingKeyError", _NOT_KEY, key)


ROWS: Final = tuple(_rows())
