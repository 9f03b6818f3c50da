"""Good requests of every API, which the tables spoil, and what of the databases they are about."""

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

from sandbox.instance import Service
from tests.bad_input.http_row import CAMPAIGN_API, COUPON_API, REWARD_STORE, Call

REWARD: Final = "rw-1"
REDEMPTION: Final = "01890a5d-ac96-774b-bcce-b302099a8057"
COUPON: Final = "0123456789ABCDEF"
CAMPAIGN: Final = "cp-01890a5d-ac96-774b-bcce-b302099a8057"
USED_KEY: Final = "key-was-used-before"
FRESH_KEY: Final = "key-never-used"

JSON: Final = (b"content-type", b"application/json")

REDEEM_BODY: Final[dict[str, Any]] = {"reward_id": REWARD}
ISSUE_BODY: Final[dict[str, Any]] = {
    "member_id": "m-1",
    "reward_id": REWARD,
    "value_cents": 500,
    "currency": "EUR",
    "expires_at": "2999-01-01T00:00:00Z",
}
CANCEL_BODY: Final[dict[str, Any]] = {
    "code": COUPON,
    "member_id": "m-1",
    "reward_id": REWARD,
    "redemption_id": REDEMPTION,
    "value_cents": 500,
    "currency": "EUR",
    "issued_at": "2026-01-01T00:00:00Z",
    "expires_at": "2999-01-01T00:00:00Z",
    "version": 2,
}
CREATE_BODY: Final[dict[str, Any]] = {
    "name": "Summer",
    "starts_at": "2026-01-01T00:00:00Z",
    "ends_at": "2999-01-01T00:00:00Z",
}
CHANGE_BODY: Final[dict[str, Any]] = {"name": "Autumn", "status": "paused", "ends_at": "2998-01-01T00:00:00Z"}


def key_header(key: str = FRESH_KEY) -> tuple[bytes, bytes]:
    """Return the header of an idempotency key."""
    return b"idempotency-key", key.encode()


REDEEM: Final = Call("POST", "/v1/redemptions", headers=(key_header(), JSON), body=json.dumps(REDEEM_BODY).encode())
ISSUE: Final = Call("POST", "/v1/coupons", "operator", (key_header(), JSON), json.dumps(ISSUE_BODY).encode())
CANCEL: Final = Call("POST", f"/v1/coupons/{COUPON}/cancel", "operator", (JSON,), json.dumps(CANCEL_BODY).encode())
CREATE: Final = Call("POST", "/v1/campaigns", "operator", (key_header(), JSON), json.dumps(CREATE_BODY).encode())
MATCH: Final = (b"if-match", b'"7"')
CHANGE: Final = Call("PATCH", f"/v1/campaigns/{CAMPAIGN}", "operator", (MATCH, JSON), json.dumps(CHANGE_BODY).encode())
DELETE: Final = Call("DELETE", f"/v1/campaigns/{CAMPAIGN}", "operator", (MATCH,))

WITH_BODY: Final[Sequence[tuple[str, Service, Call, dict[str, Any]]]] = (
    ("redeem", REWARD_STORE, REDEEM, REDEEM_BODY),
    ("issue", COUPON_API, ISSUE, ISSUE_BODY),
    ("cancel", COUPON_API, CANCEL, CANCEL_BODY),
    ("create", CAMPAIGN_API, CREATE, CREATE_BODY),
    ("change", CAMPAIGN_API, CHANGE, CHANGE_BODY),
)
"""Every route that reads a body: its name, its service, a good request, and that request's body."""

READS: Final[Sequence[tuple[Service, str]]] = (
    (REWARD_STORE, "/v1/rewards"),
    (COUPON_API, "/v1/members/m-1/coupons"),
    (CAMPAIGN_API, "/v1/campaigns"),
)
"""A page of each service that the member may read."""


def with_body(call: Call, body: object) -> Call:
    """Return the request with another body: bytes as they are, anything else as JSON."""
    return replace(call, body=body if isinstance(body, bytes) else json.dumps(body).encode())


def with_headers(call: Call, *headers: tuple[bytes, bytes]) -> Call:
    """Return the request with these headers instead of its own."""
    return replace(call, headers=headers)
