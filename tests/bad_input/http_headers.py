"""Headers that are refused, and headers that are not taken over though the request is served."""

from collections.abc import Iterator
from typing import Final

from tests.bad_input.http_routes import (
    CANCEL,
    CHANGE,
    CREATE,
    DELETE,
    ISSUE,
    JSON,
    READS,
    REDEEM,
    USED_KEY,
    WITH_BODY,
    key_header,
    with_headers,
)
from tests.bad_input.http_row import CAMPAIGN_API, CANARY, COUPON_API, HOSTILE, REWARD_STORE, Call, Row

_LATIN: Final = HOSTILE.replace("\x1b", "").replace("\x07", "").replace("\r\n", " ").encode("utf-8")

MEDIA_TYPES: Final[dict[str, tuple[bytes, ...]]] = {
    "missing": (),
    "empty": (b"",),
    "plain text": (b"text/plain",),
    "form": (b"application/x-www-form-urlencoded",),
    "multipart": (b"multipart/form-data; boundary=k4n4ry",),
    "JSON of another kind": (b"application/problem+json",),
    "JSON lines": (b"application/jsonl",),
    "JSON in another charset": (b"application/json; charset=latin-1",),
    "JSON in UTF-16": (b"application/json; charset=utf-16",),
    "unknown parameter": (b"application/json; k4n4ry=1",),
    "charset twice": (b"application/json; charset=utf-8; charset=utf-8",),
    "open quote": (b'application/json; charset="utf-8',),
    "list": (b"application/json, text/plain",),
    "any": (b"*/*",),
    "not ASCII": (b"application/json\xc2\xa0",),
    "twice": (b"application/json", b"application/json"),
}

ENCODINGS: Final[dict[str, tuple[bytes, ...]]] = {
    "gzip": (b"gzip",),
    "br": (b"br",),
    "two": (b"gzip, identity",),
    "unknown": (b"k4n4ry",),
    "identity, then gzip": (b"identity", b"gzip"),
}

KEYS: Final[dict[str, tuple[tuple[bytes, ...], str]]] = {
    "missing": ((), "missing"),
    "empty": ((b"",), "string_pattern_mismatch"),
    "too short": ((b"k4n4ry7",), "string_pattern_mismatch"),
    "too long": ((CANARY.encode() * 22,), "string_pattern_mismatch"),
    "with a space": ((b"k4n4ry k4n4ry",), "string_pattern_mismatch"),
    "with quotes": ((b'"k4n4ry-1"',), "string_pattern_mismatch"),
    "not ASCII": ((b"k4n4ry\xc3\xa9\xc3\xa9",), "string_pattern_mismatch"),
    "list": ((b"k4n4ry-1,k4n4ry-2",), "string_pattern_mismatch"),
    "twice": ((b"k4n4ry-1", b"k4n4ry-1"), "given more than once"),
    "two": ((b"k4n4ry-1", b"k4n4ry-2"), "given more than once"),
}

MATCHES: Final[dict[str, tuple[tuple[bytes, ...], int, str]]] = {
    "missing": ((), 428, "precondition-required"),
    "empty": ((b"",), 422, "invalid-request"),
    "without quotes": ((b"7",), 422, "invalid-request"),
    "open quote": ((b'"7',), 422, "invalid-request"),
    "hostile": ((b"k4n4ry\xff",), 422, "invalid-request"),
    "two without a comma": ((b'"7" "7"',), 422, "invalid-request"),
    "any and one": ((b'*, "7"',), 422, "invalid-request"),
    "of an older one": ((b'"6"',), 412, "campaign-changed"),
    "weak": ((b'W/"7"',), 412, "campaign-changed"),
    "with a zero before it": ((b'"07"',), 412, "campaign-changed"),
    "of 4000 digits": ((b'"' + b"7" * 4_000 + b'"',), 412, "campaign-changed"),
    "text": ((b'"k4n4ry"',), 412, "campaign-changed"),
    "many": ((b", ".join([b'"k4n4ry"'] * 300),), 412, "campaign-changed"),
}

NOT_TAKEN_OVER: Final[dict[str, tuple[bytes, bytes]]] = {
    "empty request id": (b"x-request-id", b""),
    "request id with a space": (b"x-request-id", b"k4n4ry k4n4ry"),
    "request id with quotes": (b"x-request-id", b'k4n4ry","level":"error'),
    "request id too long": (b"x-request-id", CANARY.encode() * 11),
    "request id not ASCII": (b"x-request-id", _LATIN[:40]),
    "request id that begins with a dash": (b"x-request-id", b"-k4n4ry"),
    "request id like a coupon code": (b"x-request-id", b"K4N4RYK4N4RYK4N4"),
    "request id like a token": (b"x-request-id", b"eyJk4n4ry.k4n4ry.k4n4ry"),
    "trace of another form": (b"traceparent", b"k4n4ry-00-00-00"),
    "trace of zeros": (b"traceparent", b"00-" + b"0" * 32 + b"-" + b"0" * 16 + b"-01"),
    "trace in upper case": (b"traceparent", b"00-" + b"AB" * 16 + b"-" + b"AB" * 8 + b"-01"),
    "trace not ASCII": (b"traceparent", _LATIN[:55]),
    "forwarded address": (b"x-forwarded-for", b'k4n4ry"; drop table'),
    "forwarded scheme": (b"x-forwarded-proto", b"k4n4ry"),
    "method in a header": (b"x-http-method-override", b"DELETE"),
    "path in a header": (b"x-original-url", b"/k4n4ry"),
    "range": (b"range", b"bytes=k4n4ry"),
    "conditions": (b"if-none-match", b"*"),
    "cookie": (b"cookie", b"session=k4n4ry"),
    "language": (b"accept-language", b"k4n4ry" * 500),
    "media type that we do not have": (b"accept", b"text/k4n4ry"),
}


def _rows() -> Iterator[Row]:
    for route, api, call, _ in WITH_BODY:
        others = tuple(header for header in call.headers if header != JSON)
        for name, values in MEDIA_TYPES.items():
            request = with_headers(call, *others, *((b"content-type", value) for value in values))
            yield Row(f"{route}, media type {name}", api, request, 415, "unsupported-media-type")
        for name, values in ENCODINGS.items():
            request = with_headers(call, *call.headers, *((b"content-encoding", value) for value in values))
            accepts = {"accept-encoding": "identity"}
            yield Row(f"{route}, encoding {name}", api, request, 415, "unsupported-media-type", headers=accepts)
    for route, api, call in (
        ("redeem", REWARD_STORE, REDEEM), ("issue", COUPON_API, ISSUE), ("create", CAMPAIGN_API, CREATE),
    ):  # fmt: skip
        for name, (keys, rule) in KEYS.items():
            request = with_headers(call, JSON, *((b"idempotency-key", value) for value in keys))
            errors = (("header.idempotency-key", rule),)
            yield Row(f"{route}, key {name}", api, request, 422, "invalid-request", errors)
        reused = with_headers(call, JSON, key_header(USED_KEY))
        yield Row(f"{route}, key of another body", api, reused, 422, "idempotency-key-reused")
    for route, call in (("change", CHANGE), ("delete", DELETE)):
        others = tuple(header for header in call.headers if header[0] != b"if-match")
        for name, (values, status, code) in MATCHES.items():
            request = with_headers(call, *others, *((b"if-match", value) for value in values))
            wrong = ((("header.if-match", "entity tags"),)) if status == 422 else ()
            yield Row(f"{route}, match {name}", CAMPAIGN_API, request, status, code, wrong)
    yield Row("delete, while it is active", CAMPAIGN_API, DELETE, 409, "campaign-in-use")
    for api, path in READS:
        for name, header in NOT_TAKEN_OVER.items():
            yield Row(name, api, Call("GET", path, headers=(header,)), 200, None)
        crowd = tuple((b"x-k4n4ry-%d" % number, b"1") for number in range(70))
        yield Row("too many headers", api, Call("GET", path, headers=crowd), 431, "headers-too-large")
        large = ((b"x-k4n4ry", b"x" * 17_000),)
        yield Row("header too large", api, Call("GET", path, headers=large), 431, "headers-too-large")
        tea = ((b"expect", b"k4n4ry"),)
        yield Row("unknown expectation", api, Call("GET", path, headers=tea), 417, "expectation-failed")
    yield Row(
        "cancel, a key that is not asked for", COUPON_API, with_headers(CANCEL, key_header("x")), 415,
        "unsupported-media-type",
    )  # fmt: skip


ROWS: Final = tuple(_rows())
