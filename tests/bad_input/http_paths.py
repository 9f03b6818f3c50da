"""Paths, methods and queries: one spelling names a thing, and all others name nothing."""

from collections.abc import Iterator, Sequence
from typing import Final

from runtime.pages import encode_cursor
from sandbox.instance import Service
from tests.bad_input.http_routes import CAMPAIGN, COUPON, JSON, MATCH, READS, REDEMPTION, REWARD
from tests.bad_input.http_row import CAMPAIGN_API, CANARY, COUPON_API, REWARD_STORE, Call, Caller, Row

OTHER_SPELLINGS: Final = (
    "/", "//v1/rewards", "/v1", "/v1/", "/v2/rewards", "/V1/rewards", "/v1/rewards/", "/v1//rewards", "/v1/./rewards",
    "/v1/../v1/rewards", "/v1/rewards;k4n4ry", "/v1/rewards.json", "/v1/%72ewards", "/v1%2Frewards",
    "/v1/rewards%00", "/v1/rewards%0d%0ak4n4ry:1", "/v1/rewards%20", "/%2e%2e/etc/passwd", "/../../etc/passwd",
    "/v1/members", "/v1/members/", "/v1/coupons/", "/k4n4ry", "/favicon.ico", "/metrics", "/livez", "/readyz",
    "/openapi.json/", "/docs/", "/redoc", "/v1/rewards\\", "/v1/rewards/%ff", "/v1/rewards/%", "/v1/rewards/%zz",
    "/%1b[31mk4n4ry", "/k4n4ry/" + "a/" * 500,
)  # fmt: skip

_NOBODYS: Final = "K4N4RYK4N4RYK4N4"

REWARD_IDS: Final = (
    "RW-1", "rw-", "rw--1", "rw-1.", "rw-1%0a", "rw-1%00", "1", "rw_1", "rw-%D9%A1", "rw-" + "a" * 40, "%72w-1",
    "rw-1k4n4rY", "rw-k4n4ry",
)  # fmt: skip
MEMBER_IDS: Final = (
    "M-1",
    "m-",
    "m--1",
    "m-1.",
    "m-1%0a",
    "1",
    "m_1",
    "m-" + "a" * 40,
    "%6d-1",
    "m-2",
    "m-k4n4ry",
    "me",
)
CODES: Final = (
    "0", COUPON + "0", COUPON.lower(), "ILOU" * 4, "%30" * 16, COUPON + "%0A", "0123-4567-89AB-CDEF", _NOBODYS,
)  # fmt: skip
REDEMPTIONS: Final = (
    REDEMPTION.upper(), "{" + REDEMPTION + "}", REDEMPTION.replace("-", ""), "1", REDEMPTION + "%0a",
    "urn:uuid:" + REDEMPTION, "00000000-0000-0000-0000-000000000000", "k4n4ry",
)  # fmt: skip

CAMPAIGNS: Final = (
    CAMPAIGN.upper(), "CP" + CAMPAIGN[2:], CAMPAIGN[3:], CAMPAIGN.replace("-", ""), CAMPAIGN + "%0a", CAMPAIGN + "0",
    CAMPAIGN.replace("-7", "-4"), "cp-", "cp-1", "cp-{" + CAMPAIGN[3:] + "}", "k4n4ry", "%63" + CAMPAIGN[1:],
    "cp-00000000-0000-7000-8000-000000000000",
)  # fmt: skip

QUERIES: Final[dict[str, tuple[str, tuple[str, str]]]] = {
    "limit 0": ("limit=0", ("query.limit", "integer from 1 to 100")),
    "limit 101": ("limit=101", ("query.limit", "integer from 1 to 100")),
    "limit negative": ("limit=-1", ("query.limit", "integer from 1 to 100")),
    "limit with a plus": ("limit=+1", ("query.limit", "integer from 1 to 100")),
    "limit with a zero before it": ("limit=01", ("query.limit", "integer from 1 to 100")),
    "limit fraction": ("limit=1.0", ("query.limit", "integer from 1 to 100")),
    "limit empty": ("limit=", ("query.limit", "integer from 1 to 100")),
    "limit with a line end": ("limit=1%0a", ("query.limit", "integer from 1 to 100")),
    "limit text": ("limit=k4n4ry", ("query.limit", "integer from 1 to 100")),
    "limit digit of another script": ("limit=%D9%A1", ("query.limit", "integer from 1 to 100")),
    "limit of 4000 digits": ("limit=" + "9" * 4000, ("query.limit", "integer from 1 to 100")),
    "limit in another case": ("LIMIT=1", ("query", "unknown parameter")),
    "limit twice": ("limit=1&limit=1", ("query.limit", "given more than once")),
    "limit twice, once in another spelling": ("limit=1&%6cimit=2", ("query.limit", "given more than once")),
    "unknown name": ("k4n4ry=1", ("query", "unknown parameter")),
    "hostile name": ("%1b[31mk4n4ry%0d%0a=1", ("query", "unknown parameter")),
    "list of names": ("limit[]=1", ("query", "unknown parameter")),
    "no value": ("limit", ("query", "malformed")),
    "two signs": ("limit=1&&cursor=x", ("query", "malformed")),
    "sign at the end": ("limit=1&", ("query", "malformed")),
    "not UTF-8": ("limit=%ff", ("query", "malformed")),
    "forty parts": ("&".join(f"k4n4ry{n}=1" for n in range(40)), ("query", "malformed")),
    "cursor empty": ("cursor=", ("query.cursor", "cursor")),
    "cursor of signs": ("cursor=***", ("query.cursor", "cursor")),
    "cursor text": ("cursor=k4n4ry", ("query.cursor", "cursor")),
    "cursor too long": ("cursor=" + "W" * 600, ("query.cursor", "cursor")),
    "cursor padded": ("cursor=" + encode_cursor(("rw-1",)) + "%3D", ("query.cursor", "cursor")),
    "cursor that is no list": ("cursor=eyJrNG40cnkiOjF9", ("query.cursor", "cursor")),
    "cursor of too many parts": ("cursor=" + encode_cursor((CANARY,) * 3), ("query.cursor", "cursor")),
    "cursor of no parts": ("cursor=W10", ("query.cursor", "cursor")),
    "cursor with NUL": ("cursor=" + encode_cursor(("rw-1\0",)), ("query.cursor", "cursor")),
}
CURSORS: Final[dict[Service, tuple[tuple[str | int, ...], ...]]] = {
    REWARD_STORE: ((7,), (CANARY,), ("rw-1\n",), ("RW-1",), ("'; drop table rewards; --",), ("x" * 300,)),
    COUPON_API: (
        (1, CANARY), ("1", COUPON), (1, COUPON.lower()), (2**62, COUPON), (-(2**62), COUPON), (2**64 - 1, COUPON),
        (COUPON, 1), (1,),
    ),
    CAMPAIGN_API: (
        (1, CANARY), ("1", CAMPAIGN), (1, CAMPAIGN.upper()), (2**62, CAMPAIGN), (-(2**62), CAMPAIGN),
        (2**64 - 1, CAMPAIGN), (CAMPAIGN, 1), (1,),
    ),
}  # fmt: skip

ROUTES: Final[dict[Service, dict[str, str]]] = {
    REWARD_STORE: {
        "/v1/rewards": "GET",
        f"/v1/rewards/{REWARD}": "GET",
        "/v1/members/m-1": "GET",
        "/v1/redemptions": "POST",
        f"/v1/redemptions/{REDEMPTION}/cancel": "POST",
        "/openapi.json": "GET",
        "/docs": "GET",
    },
    COUPON_API: {
        f"/v1/coupons/{COUPON}": "GET",
        "/v1/members/m-1/coupons": "GET",
        "/v1/coupons": "POST",
        f"/v1/coupons/{COUPON}/redeem": "POST",
        f"/v1/coupons/{COUPON}/cancel": "POST",
        "/openapi.json": "GET",
        "/docs": "GET",
    },
    CAMPAIGN_API: {
        "/v1/campaigns": "GET, POST",
        f"/v1/campaigns/{CAMPAIGN}": "DELETE, GET, PATCH",
        "/openapi.json": "GET",
        "/docs": "GET",
    },
}
"""Each resource of each service in its one spelling, with the methods that it has."""
FILTERS: Final[dict[str, tuple[str, str]]] = {
    "status=k4n4ry": ("query.status", "enum"),
    "status=Active": ("query.status", "enum"),
    "status=": ("query.status", "enum"),
    "status=active&status=active": ("query.status", "given more than once"),
    "on=k4n4ry": ("query.on", "date or time"),
    "on=2026-02-30": ("query.on", "date or time"),
    "on=2026-01-01T00:00:00": ("query.on", "date or time"),
    "on=3000-01-01": ("query.on", "date or time"),
    "on=%D9%A2026-01-01": ("query.on", "date or time"),
    "on=2026-01-01&on=2026-01-01": ("query.on", "given more than once"),
    "status[$ne]=active": ("query", "unknown parameter"),
    "on[$gt]=": ("query", "unknown parameter"),
}
"""Of campaigns alone: the filter of a list, and what is wrong with it."""

METHODS: Final = (
    "GET",
    "HEAD",
    "POST",
    "PUT",
    "PATCH",
    "DELETE",
    "OPTIONS",
    "TRACE",
    "PROPFIND",
    "PURGE",
    "SEARCH",
)
NO_METHODS: Final = ("BREW", "CONNECT", "get", "Get", "GETS", "K4N4RY", "")


def _rows() -> Iterator[Row]:
    for api, path in READS:
        own = (target.replace("/v1/rewards", path) for target in OTHER_SPELLINGS)
        for target in own:
            yield Row(f"GET {_short(target)}", api, Call("GET", target), 404, "not-found")
        for name, (query, error) in QUERIES.items():
            yield Row(name, api, Call("GET", f"{path}?{query}"), 422, "invalid-request", (error,))
        for parts in CURSORS[api]:
            target = f"{path}?cursor={encode_cursor(parts)}"
            yield Row(f"cursor of {_short(str(parts))}", api, Call("GET", target), 422, "invalid-request", (_CURSOR,))
        for target, allowed in ROUTES[api].items():
            for method in METHODS:
                if method not in allowed.split(", "):
                    yield Row(
                        f"{method} {target}", api, Call(method, target), 405, "method-not-allowed",
                        headers={"allow": allowed},
                    )  # fmt: skip
            for method in allowed.split(", "):
                unknown = Call(method, f"{target}?k4n4ry=1", _caller(target), (JSON, MATCH), b"{}")
                errors = (("query", "unknown parameter"),)
                yield Row(f"{method} {target} with a query", api, unknown, 422, "invalid-request", errors)
        for method in NO_METHODS:
            yield Row(f"method {method!r}", api, Call(method, path), 400, "bad-request")
    for query, error in FILTERS.items():
        yield Row(query, CAMPAIGN_API, Call("GET", f"/v1/campaigns?{query}"), 422, "invalid-request", (error,))
    yield from _names()


_OF_OPERATORS: Final = ("/v1/coupons", "/v1/campaigns", f"/v1/campaigns/{CAMPAIGN}")
_CURSOR: Final = ("query.cursor", "cursor")


def _caller(target: str) -> Caller:
    return "operator" if target.endswith("/cancel") or target in _OF_OPERATORS else "member"


def _short(text: str) -> str:
    return text if len(text) < 60 else f"{text[:50]}... ({len(text)})"


def _names() -> Iterator[Row]:
    """Yield names that are misspelt, that name nothing, and that are another member's: all of them are not there."""
    for name in REWARD_IDS:
        yield _missing(REWARD_STORE, "GET", f"/v1/rewards/{name}", "member", "reward-not-found")
    for name in MEMBER_IDS:
        yield _missing(REWARD_STORE, "GET", f"/v1/members/{name}", "member", "member-not-found")
        yield _missing(COUPON_API, "GET", f"/v1/members/{name}/coupons", "member", "member-not-found")
    for name in REDEMPTIONS:
        path = f"/v1/redemptions/{name}/cancel"
        yield _missing(REWARD_STORE, "POST", path, "member", "redemption-not-found")
    yield _missing(REWARD_STORE, "POST", f"/v1/redemptions/{REDEMPTION}/cancel", "stranger", "redemption-not-found")
    for name in CODES:
        for method, rest, caller in _COUPON_CALLS:
            if name == _NOBODYS and rest == "/cancel":
                continue  # its spelling is good, so the body would be read first
            yield _missing(COUPON_API, method, f"/v1/coupons/{name}{rest}", caller, "coupon-not-found")
    for name in CAMPAIGNS:
        for method, caller in _CAMPAIGN_CALLS:
            path = f"/v1/campaigns/{name}"
            yield _missing(CAMPAIGN_API, method, path, caller, "campaign-not-found", (MATCH, JSON), b"{}")
    for method, rest in (("GET", ""), ("POST", "/redeem")):
        yield _missing(COUPON_API, method, f"/v1/coupons/{COUPON}{rest}", "stranger", "coupon-not-found")


_COUPON_CALLS: Final[tuple[tuple[str, str, Caller], ...]] = (
    ("GET", "", "member"), ("POST", "/redeem", "member"), ("POST", "/cancel", "operator"),
)  # fmt: skip


_CAMPAIGN_CALLS: Final[tuple[tuple[str, Caller], ...]] = (
    ("GET", "member"), ("GET", "operator"), ("PATCH", "operator"), ("DELETE", "operator"),
)  # fmt: skip


def _missing(
    api: Service,
    method: str,
    target: str,
    caller: Caller,
    code: str,
    headers: Sequence[tuple[bytes, bytes]] = (),
    body: bytes | None = None,
) -> Row:
    # An escape is a second spelling of the whole path, which is refused before it is known what it would have named.
    code = "not-found" if "%" in target else code
    request = Call(method, target, caller, headers, body)
    return Row(f"{method} {_short(target)} as {caller}", api, request, 404, code)


ROWS: Final = tuple(_rows())
