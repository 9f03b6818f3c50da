"""Bodies that no route takes: text that is no strict JSON, and JSON that is no order."""

import json
from collections.abc import Iterator
from typing import Final

from loyalty.event import MAX_COUPON_VERSION
from loyalty.money import MAX_CENTS
from sandbox.instance import Service
from tests.bad_input.http_routes import CANCEL, CANCEL_BODY, CHANGE, COUPON, CREATE, CREATE_BODY, WITH_BODY, with_body
from tests.bad_input.http_row import CAMPAIGN_API, CANARY, COUPON_API, HOSTILE, Call, Row

_RAW: Final = HOSTILE.encode()
_TEXT: Final = CANARY.encode()

NOT_JSON: Final[dict[str, bytes]] = {
    "four thousand members": json.dumps({f"{CANARY}{number}"[-8:]: 1 for number in range(4_000)}).encode(),
    "nothing": b"",
    "only space": b" \t\r\n ",
    "plain text": _RAW,
    "unfinished object": b'{"reward_id": "' + _TEXT,
    "unfinished after a comma": b'{"reward_id": "k4n4ry",',
    "comma at the end": b'{"reward_id": "k4n4ry",}',
    "two texts": b'{"reward_id": "k4n4ry"} {}',
    "single quotes": b"{'reward_id': 'k4n4ry'}",
    "comment": b'{"reward_id": "rw-1"} // k4n4ry',
    "name without quotes": b'{k4n4ry: "rw-1"}',
    "byte-order mark": b'\xef\xbb\xbf{"reward_id": "k4n4ry"}',
    "UTF-16": '{"reward_id": "k4n4ry"}'.encode("utf-16"),
    "UTF-32": '{"reward_id": "k4n4ry"}'.encode("utf-32"),
    "Latin-1": b'{"reward_id": "k4n4ry\xe9"}',
    "overlong UTF-8": b'{"reward_id": "k4n4ry\xc0\xaf"}',
    "surrogate in UTF-8": b'{"reward_id": "k4n4ry\xed\xa0\x80"}',
    "UTF-8 cut off": b'{"reward_id": "k4n4ry\xe2\x82"}',
    "control characters as they are": b'{"reward_id": "' + _RAW.replace(b'"', b"'") + b'"}',
    "NUL as it is": b'{"reward_id": "k4n4ry\0"}',
    "NUL escaped": b'{"reward_id": "k4n4ry\\u0000"}',
    "NUL in a name": b'{"k4n4ry\\u0000": 1}',
    "lone surrogate": b'{"reward_id": "k4n4ry\\ud800"}',
    "surrogates in the wrong order": b'{"reward_id": "k4n4ry\\udc00\\ud800"}',
    "lone surrogate in a name": b'{"k4n4ry\\udfff": 1}',
    "unknown escape": b'{"reward_id": "k4n4ry\\x1b"}',
    "half an escape": b'{"reward_id": "k4n4ry\\u00"}',
    "doubled name": b'{"reward_id": "rw-1", "reward_id": "k4n4ry"}',
    "doubled name in another spelling": b'{"reward_id": "rw-1", "reward\\u005fid": "k4n4ry"}',
    "doubled name inside": b'{"reward_id": {"k4n4ry": 1, "k4n4ry": 1}}',
    "NaN": b'{"k4n4ry": NaN}',
    "infinity": b'{"k4n4ry": Infinity}',
    "minus infinity": b'{"k4n4ry": -Infinity}',
    "beyond a double": b'{"k4n4ry": 1e999}',
    "number of 5000 digits": b'{"k4n4ry": ' + b"9" * 5000 + b"}",
    "leading zero": b'{"k4n4ry": 007}',
    "plus": b'{"k4n4ry": +7}',
    "hexadecimal": b'{"k4n4ry": 0x7}',
    "dot without digits": b'{"k4n4ry": 7.}',
    "True": b'{"k4n4ry": True}',
    "seventeen levels": b'{"k4n4ry": ' + b"[" * 16 + b"]" * 16 + b"}",
    "far too many levels": b'{"k4n4ry": ' + b"[" * 60_000,
    "far too many objects": b'{"k4n4ry":' * 6_000,
}

_IDS: Final[dict[str, tuple[object, str]]] = {
    "null": (None, "string_type"),
    "number": (7, "string_type"),
    "true": (True, "string_type"),
    "list": ([CANARY], "string_type"),
    "object": ({CANARY: 1}, "string_type"),
    "empty": ("", "string_pattern_mismatch"),
    "hostile": (HOSTILE[:20], "string_pattern_mismatch"),
    "SQL": (f"'; drop table {CANARY}", "string_pattern_mismatch"),
    "path": ("../../etc/passwd", "string_pattern_mismatch"),
    "upper case": ("M-1", "string_pattern_mismatch"),
    "line end": ("m-1\n", "string_pattern_mismatch"),
    "space before": (" m-1", "string_pattern_mismatch"),
    "digit of another script": ("m-\u0661", "string_pattern_mismatch"),
    "look-alike": ("m-\u0430", "string_pattern_mismatch"),
    "too long": ("m-" + "a" * 60_000, "string_too_long"),
}
_CENTS: Final[dict[str, tuple[object, str]]] = {
    "null": (None, "int_type"),
    "true": (True, "int_type"),
    "text": ("500", "int_type"),
    "fraction": (5.5, "int_type"),
    "whole fraction": (500.0, "int_type"),
    "negative": (-1, "greater_than_equal"),
    "too many": (MAX_CENTS + 1, "less_than_equal"),
    "beyond 64 bits": (2**64, "less_than_equal"),
    "of 40 digits": (10**40, "less_than_equal"),
    "of 4000 digits": (10**4000, "less_than_equal"),
    "list": ([500], "int_type"),
}
_CURRENCIES: Final[dict[str, tuple[object, str]]] = {
    "null": (None, "string_type"),
    "lower case": ("eur", "string_pattern_mismatch"),
    "sign": ("\u20ac", "string_pattern_mismatch"),
    "two letters": ("EU", "string_pattern_mismatch"),
    "four letters": ("EURO", "string_pattern_mismatch"),
    "line end": ("EUR\n", "string_pattern_mismatch"),
    "letters of another script": ("\u0395UR", "string_pattern_mismatch"),
}
_TIMES: Final[dict[str, tuple[object, str]]] = {
    "null": (None, "datetime_type"),
    "number": (1_764_000_000, "datetime_type"),
    "true": (True, "datetime_type"),
    "empty": ("", "timestamp"),
    "hostile": (HOSTILE, "timestamp"),
    "day alone": ("2026-11-24", "timestamp"),
    "no offset": ("2026-11-24T10:00:00", "timestamp"),
    "space for T": ("2026-11-24 10:00:00Z", "timestamp"),
    "t": ("2026-11-24t10:00:00Z", "timestamp"),
    "z": ("2026-11-24T10:00:00z", "timestamp"),
    "no seconds": ("2026-11-24T10:00Z", "timestamp"),
    "no such day": ("2026-02-30T10:00:00Z", "timestamp"),
    "no such month": ("2026-13-01T10:00:00Z", "timestamp"),
    "hour 24": ("2026-11-24T24:00:00Z", "timestamp"),
    "minute 60": ("2026-11-24T10:60:00Z", "timestamp"),
    "leap second": ("2016-12-31T23:59:60Z", "timestamp"),
    "nanoseconds": ("2026-11-24T10:00:00.000000001Z", "timestamp"),
    "comma": ("2026-11-24T10:00:00,5Z", "timestamp"),
    "dot without digits": ("2026-11-24T10:00:00.Z", "timestamp"),
    "offset of 24 hours": ("2026-11-24T10:00:00+24:00", "timestamp"),
    "offset of 99 minutes": ("2026-11-24T10:00:00+00:99", "timestamp"),
    "offset with seconds": ("2026-11-24T10:00:00+01:00:30", "timestamp"),
    "offset without a colon": ("2026-11-24T10:00:00+0100", "timestamp"),
    "another minus": ("2026-11-24T10:00:00\u221201:00", "timestamp"),
    "digits of another script": ("\u0662026-11-24T10:00:00Z", "timestamp"),
    "week date": ("2026-W48-2T10:00:00Z", "timestamp"),
    "basic form": ("20261124T100000Z", "timestamp"),
    "line end": ("2026-11-24T10:00:00Z\n", "timestamp"),
    "1999": ("1999-12-31T23:59:59Z", "timestamp"),
    "1999 in UTC": ("2000-01-01T00:00:00+23:59", "timestamp"),
    "3000": ("3000-01-01T00:00:00Z", "timestamp"),
    "3000 in UTC": ("2999-12-31T23:59:59-00:01", "timestamp"),
}
_VERSIONS: Final[dict[str, tuple[object, str]]] = {
    "zero": (0, "greater_than_equal"),
    "too high": (MAX_COUPON_VERSION + 1, "less_than_equal"),
    "true": (True, "int_type"),
    "text": ("1", "int_type"),
}
_UUIDS: Final[dict[str, tuple[object, str]]] = {
    "empty": ("", "string_pattern_mismatch"),
    "upper case": ("01890A5D-AC96-774B-BCCE-B302099A8057", "string_pattern_mismatch"),
    "in braces": ("{01890a5d-ac96-774b-bcce-b302099a8057}", "string_pattern_mismatch"),
    "without dashes": ("01890a5dac96774bbcceb302099a8057", "string_pattern_mismatch"),
    "number": (7, "string_type"),
}
_CODES: Final[dict[str, tuple[object, str]]] = {
    "lower case": (COUPON.lower(), "string_pattern_mismatch"),
    "look-alikes": ("ILOU" * 4, "string_pattern_mismatch"),
    "too short": (COUPON[1:], "string_pattern_mismatch"),
    "too long": (COUPON + "0", "string_too_long"),
    "number": (123456789, "string_type"),
}
_NAMES: Final[dict[str, tuple[object, str]]] = {
    "null": (None, "string_type"),
    "number": (7, "string_type"),
    "empty": ("", "string_too_short"),
    "hostile": (HOSTILE, "string_pattern_mismatch"),
    "space at the end": (f"{CANARY} ", "string_pattern_mismatch"),
    "two lines": (f"{CANARY}\n{CANARY}", "string_pattern_mismatch"),
    "too long": (CANARY * 21, "string_too_long"),
    "too many bytes": ("\U0001f600" * 91, "too_many_bytes"),
}
_STATUSES: Final[dict[str, tuple[object, str]]] = {
    "null": (None, "enum"),
    "unknown": (CANARY, "enum"),
    "upper case": ("PAUSED", "enum"),
    "number": (1, "enum"),
}
_DAYS: Final = _TIMES | {"finer than a millisecond": ("2026-11-24T10:00:00.0001Z", "finer_than_milliseconds")}
_FIELDS: Final = {
    "code": _CODES,
    "member_id": _IDS,
    "reward_id": _IDS,
    "redemption_id": _UUIDS,
    "value_cents": _CENTS,
    "currency": _CURRENCIES,
    "issued_at": _TIMES,
    "expires_at": _TIMES,
    "name": _NAMES,
    "status": _STATUSES,
    "starts_at": _DAYS,
    "ends_at": _DAYS,
    "version": _VERSIONS,
}

_NO_OBJECT: Final[dict[str, object]] = {"null": None, "text": HOSTILE, "number": 7, "true": True, "list": [CANARY]}


def _rows() -> Iterator[Row]:
    for route, api, call, good in WITH_BODY:
        for name, text in NOT_JSON.items():
            yield Row(f"{route}, {name}", api, with_body(call, text), 400, "malformed-json")
        for name, body in _NO_OBJECT.items():
            request = with_body(call, body)
            yield Row(f"{route}, {name}", api, request, 422, "invalid-request", (("body", "model_type"),))
        for field in good:
            request = with_body(call, {known: value for known, value in good.items() if known != field})
            if call is not CHANGE:  # which may name any part
                yield Row(f"{route}, no {field}", api, request, 422, "invalid-request", ((f"body.{field}", "missing"),))
            for name, (value, rule) in _FIELDS[field].items():
                yield _wrong(f"{route}, {field} {name}", api, with_body(call, good | {field: value}), field, rule)
        for name, extra in _EXTRA.items():
            errors = (("body.?", "extra_forbidden"),)
            yield Row(f"{route}, {name}", api, with_body(call, good | extra), 422, "invalid-request", errors)
    ends_first = CANCEL_BODY | {"expires_at": CANCEL_BODY["issued_at"]}
    yield Row(
        "cancel, ends as it begins",
        COUPON_API,
        with_body(CANCEL, ends_first),
        422,
        "invalid-request",
        (("body", "expires_before_issued"),),
    )
    yield Row(
        "create, ends as it begins",
        CAMPAIGN_API,
        with_body(CREATE, CREATE_BODY | {"ends_at": CREATE_BODY["starts_at"]}),
        422,
        "invalid-request",
        (("body", "ends_before_starts"),),
    )
    for name, change, code in _REFUSED_CHANGES:
        yield Row(f"change, {name}", CAMPAIGN_API, with_body(CHANGE, change), 409, code)
    other = with_body(CANCEL, CANCEL_BODY | {"code": "FEDCBA9876543210"})
    yield _wrong("cancel, another code than the path's", COUPON_API, other, "code", "must be the code in the path")


def _wrong(name: str, api: Service, request: Call, field: str, rule: str) -> Row:
    return Row(name, api, request, 422, "invalid-request", ((f"body.{field}", rule),))


_REFUSED_CHANGES: Final[tuple[tuple[str, dict[str, object], str], ...]] = (
    ("a draft again", {"status": "draft"}, "campaign-transition"),
    ("a start that was", {"starts_at": "2026-02-01T00:00:00Z"}, "campaign-dates-fixed"),
    ("an end before its start", {"ends_at": "2025-01-01T00:00:00Z"}, "campaign-dates-contradict"),
)
"""Of the campaign that is planted, which is active and has begun."""
_EXTRA: Final[dict[str, dict[str, object]]] = {
    "unknown field": {HOSTILE: 1},
    "prototype": {"__proto__": {CANARY: 1}},
    "field in another case": {"Reward_Id": CANARY},
    "ninety unknown fields": {f"{CANARY}{number}"[-8:]: 1 for number in range(90)},
}

ROWS: Final = tuple(_rows())
