"""Authorization headers that name nobody, and callers who may not do what they ask for."""

import base64
import hmac
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from sandbox.instance import Service
from tests.bad_input.http_routes import CANCEL, CHANGE, COUPON, CREATE, DELETE, ISSUE, READS, REDEEM, REDEMPTION
from tests.bad_input.http_row import CAMPAIGN_API, CANARY, COUPON_API, REWARD_STORE, Call, Caller, Row
from tests.support.service_process import SECRET

_NOW: Final = int(time.time())
_HOUR: Final = 3_600
_DAY: Final = 86_400
_GOOD: Final[dict[str, Any]] = {"sub": "m-1", "scope": "member", "iat": _NOW, "exp": _NOW + _DAY}

CLAIMS: Final[dict[str, Mapping[str, Any]]] = {
    "expired": {"exp": _NOW - _HOUR},
    "expired at the epoch": {"exp": 0},
    "expires before time began": {"exp": -(10**18)},
    "never expires": {"exp": None},
    "expiry text": {"exp": CANARY},
    "expiry list": {"exp": [_NOW + _DAY]},
    "expiry true": {"exp": True},
    "expiry infinite": {"exp": float("inf")},
    "expiry no number": {"exp": float("nan")},
    "expiry beyond a double": {"exp": 10**400},
    "not yet valid": {"nbf": _NOW + _HOUR},
    "not yet valid, text": {"nbf": CANARY},
    "issued in the future": {"iat": _NOW + _HOUR},
    "issued, text": {"iat": CANARY},
    "without sub": {"sub": None},
    "sub empty": {"sub": ""},
    "sub number": {"sub": 1},
    "sub list": {"sub": ["m-1"]},
    "sub object": {"sub": {CANARY: 1}},
    "sub with a line end": {"sub": "m-1\n"},
    "sub with an escape code": {"sub": f"\x1b[31m{CANARY}"},
    "sub not ASCII": {"sub": f"{CANARY}\u202e"},
    "sub too long": {"sub": "m" * 65},
    "without scope": {"scope": None},
    "scope empty": {"scope": ""},
    "scope in another case": {"scope": "Operator"},
    "scope unknown": {"scope": CANARY},
    "two scopes": {"scope": "member operator"},
    "scope list": {"scope": ["operator"]},
    "scope object": {"scope": {"operator": 1}},
    "scope true": {"scope": True},
    "for another audience": {"aud": CANARY},
}


def _part(content: object) -> str:
    raw = content if isinstance(content, bytes) else json.dumps(content).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def _signed(
    claims: Mapping[str, Any], key: str = SECRET, digest: str = "sha256", *, header: Mapping[str, Any] | None = None
) -> str:
    """Sign as no library would: with any key, any header and any claim, None leaving one out."""
    payload = {name: value for name, value in {**_GOOD, **claims}.items() if value is not None}
    text = f"{_part({'alg': 'HS256', 'typ': 'JWT', **(header or {})})}.{_part(payload)}"
    return f"{text}.{_part(hmac.digest(key.encode(), text.encode(), digest))}"


_OK: Final = _signed({})
_HEAD, _BODY, _SIGNATURE = _OK.split(".")

_DEEP_LISTS: Final = b"[" * 2_500
_DEEP_OBJECTS: Final = b'{"a":' * 500

FORGED: Final[dict[str, str]] = {
    "of another key": _signed({"scope": "operator"}, CANARY * 6),
    "of an empty key": _signed({}, ""),
    "alg none": f"{_part({'alg': 'none', 'typ': 'JWT'})}.{_BODY}.",
    "alg None": f"{_part({'alg': 'None', 'typ': 'JWT'})}.{_BODY}.",
    "alg NONE with a signature": f"{_part({'alg': 'NONE', 'typ': 'JWT'})}.{_BODY}.{_SIGNATURE}",
    "alg empty": f"{_part({'alg': '', 'typ': 'JWT'})}.{_BODY}.{_SIGNATURE}",
    "alg missing": f"{_part({'typ': 'JWT'})}.{_BODY}.{_SIGNATURE}",
    "alg list": f"{_part({'alg': ['HS256'], 'typ': 'JWT'})}.{_BODY}.{_SIGNATURE}",
    "alg object": f"{_part({'alg': {CANARY: 1}, 'typ': 'JWT'})}.{_BODY}.{_SIGNATURE}",
    "alg null": f"{_part({'alg': None, 'typ': 'JWT'})}.{_BODY}.{_SIGNATURE}",
    "alg in lower case": f"{_part({'alg': 'hs256', 'typ': 'JWT'})}.{_BODY}.{_SIGNATURE}",
    "HS384": _signed({}, digest="sha384", header={"alg": "HS384"}),
    "HS512": _signed({}, digest="sha512", header={"alg": "HS512"}),
    "RS256 with an HMAC": f"{_part({'alg': 'RS256', 'typ': 'JWT'})}.{_BODY}.{_SIGNATURE}",
    "unknown critical header": _signed({}, header={"crit": [CANARY], CANARY: 1}),
    "other claims under the signature": f"{_HEAD}.{_part({**_GOOD, 'scope': 'operator'})}.{_SIGNATURE}",
    "other member under the signature": f"{_HEAD}.{_part({**_GOOD, 'sub': 'm-2'})}.{_SIGNATURE}",
    "signature cut": _OK[:-4],
    "signature gone": f"{_HEAD}.{_BODY}.",
    "signature of zeros": f"{_HEAD}.{_BODY}.{'A' * 43}",
    "signature too long": _OK + "AAAA",
    "two parts": f"{_HEAD}.{_BODY}",
    "four parts": f"{_OK}.{_SIGNATURE}",
    "five parts": f"{_OK}.{_BODY}.{_SIGNATURE}",
    "dots": "...",
    "signs in the signature": f"{_HEAD}.{_BODY}.{_SIGNATURE[:20]}!!!!{_SIGNATURE[20:]}",
    "padding": f"{_OK}=",
    "space in the token": f"{_HEAD}. {_BODY}.{_SIGNATURE}",
    "another base 64": f"{_HEAD}.{_BODY}.+/{_SIGNATURE[2:]}",
    "header no JSON": f"{_part(CANARY.encode())}.{_BODY}.{_SIGNATURE}",
    "header list": f"{_part([CANARY])}.{_BODY}.{_SIGNATURE}",
    "header number": f"{_part(7)}.{_BODY}.{_SIGNATURE}",
    "header null": f"{_part(None)}.{_BODY}.{_SIGNATURE}",
    "header not UTF-8": f"{_part(CANARY.encode() + bytes([255, 254]))}.{_BODY}.{_SIGNATURE}",
    "header of deep lists": f"{_part(_DEEP_LISTS)}.{_BODY}.{_SIGNATURE}",
    "header of deep objects": f"{_part(_DEEP_OBJECTS)}.{_BODY}.{_SIGNATURE}",
    "claims of deep lists": f"{_HEAD}.{_part(_DEEP_LISTS)}.{_SIGNATURE}",
    "key id object": f"{_part({'alg': 'HS256', 'kid': {CANARY: 1}})}.{_BODY}.{_SIGNATURE}",
    "detached": f"{_part({'alg': 'HS256', 'b64': False, 'crit': ['b64']})}..{_SIGNATURE}",
    "too long": f"{_HEAD}.{'A' * 4_096}.{_SIGNATURE}",
}

HEADERS: Final[dict[str, tuple[bytes, ...]]] = {
    "empty": (b"",),
    "scheme alone": (b"Bearer",),
    "scheme and a space": (b"Bearer ",),
    "token alone": (_OK.encode(),),
    "two spaces": (b"Bearer  " + _OK.encode(),),
    "tab": (b"Bearer\t" + _OK.encode(),),
    "basic": (b"Basic bS0xOms0bjRyeQ==",),
    "token of another scheme": (b"Token " + _OK.encode(),),
    "two tokens in one header": (b"Bearer " + _OK.encode() + b", Bearer " + _OK.encode(),),
    "something behind": (b"Bearer " + _OK.encode() + b" k4n4ry",),
    "not ASCII": (b"Bearer k4n4ry\xff\xfe",),
    "text": (b"Bearer k4n4ry",),
    "hostile": (b'Bearer {"k4n4ry":"\\u001b[31m"}',),
    "two headers": (b"Bearer " + _OK.encode(), b"Bearer " + _OK.encode()),
    "good after bad": (b"Bearer k4n4ry", b"Bearer " + _OK.encode()),
    "bad after good": (b"Bearer " + _OK.encode(), b"Bearer k4n4ry"),
}

FORBIDDEN: Final[Sequence[tuple[Service, str, Call, Caller]]] = (
    (REWARD_STORE, "operator redeems", REDEEM, "operator"),
    (REWARD_STORE, "operator cancels", Call("POST", f"/v1/redemptions/{REDEMPTION}/cancel"), "operator"),
    (COUPON_API, "member issues", ISSUE, "member"),
    (COUPON_API, "member cancels", CANCEL, "member"),
    (CAMPAIGN_API, "member creates", CREATE, "member"),
    (CAMPAIGN_API, "member changes", CHANGE, "member"),
    (CAMPAIGN_API, "member deletes", DELETE, "member"),
    (COUPON_API, "operator redeems", Call("POST", f"/v1/coupons/{COUPON}/redeem"), "operator"),
)  # fmt: skip


def _rows() -> Iterator[Row]:
    asks = {"www-authenticate": "Bearer"}
    for api, path in READS:
        yield Row("no token", api, Call("GET", path, None), 401, "missing-token", headers=asks)
        yield Row("no token on a path that is none", api, Call("GET", "/k4n4ry", None), 401, "missing-token")
        in_query = Call("GET", f"{path}?access_token={_OK}", None)
        yield Row("token in the query", api, in_query, 401, "missing-token", headers=asks)
        in_cookie = Call("GET", path, None, ((b"cookie", b"authorization=" + _OK.encode()),))
        yield Row("token in a cookie", api, in_cookie, 401, "missing-token", headers=asks)
        tokens = {name: (b"Bearer " + token.encode(),) for name, token in _tokens().items()}
        for name, values in {**tokens, **HEADERS}.items():
            request = Call("GET", path, None, tuple((b"authorization", value) for value in values))
            yield Row(f"token {name}", api, request, 401, "invalid-token", headers=asks)
    for api, name, call, caller in FORBIDDEN:
        request = Call(call.method, call.target, caller, call.headers, call.body)
        yield Row(name, api, request, 403, "wrong-scope")


def _tokens() -> dict[str, str]:
    return {**{name: _signed(claims) for name, claims in CLAIMS.items()}, **FORGED}


ROWS: Final = tuple(_rows())
