"""coupon_api without a socket: its whole API on a store, fake or real, and what a client needs to speak to it."""

from collections.abc import MutableMapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import jsonschema

from loyalty.coupon import Coupon
from runtime.api import build_api
from runtime.auth import Scope, TokenVerifier, sign_token
from runtime.http_edge import HttpEdge
from runtime.settings import AuthSettings, HttpSettings
from services.coupon_api.routes import DOMAIN_ERRORS, build_coupon_router
from services.coupon_api.schema import CouponAnswer, CouponPageAnswer
from services.coupon_api.store import CouponStore
from tests.support.coupon_store_contract import DAY
from tests.support.fake_coupon_api_store import FakeCouponStore

Json = dict[str, Any]  # Any: a JSON document
KEY = {"idempotency-key": "key-00001"}

SECRET = "0123456789abcdef" * 2


class Api:
    """The API, its fake store, and the lines of its access log."""

    def __init__(self, store: CouponStore, secret_file: Path) -> None:
        self.lines: list[MutableMapping[str, Any]] = []  # Any: a log field may be anything
        self.edge: HttpEdge = build_api(
            title="coupon_api",
            settings=HttpSettings(),
            verifier=TokenVerifier(AuthSettings(secret_file=secret_file)),
            routers=[build_coupon_router(store)],
            domain_errors=DOMAIN_ERRORS,
            write_line=self.lines.append,
        )

    def client(self, subject: str, scope: Scope) -> httpx.AsyncClient:
        """Return a client with a token of its own."""
        token = sign_token(subject, scope, SECRET)
        transport = httpx.ASGITransport(app=self.edge)
        headers = {"authorization": f"Bearer {token}"}
        return httpx.AsyncClient(transport=transport, base_url="http://coupon-api", headers=headers)


def put(store: FakeCouponStore, coupon: Coupon) -> Coupon:
    """Let a coupon be there."""
    store.coupons[coupon.code] = coupon
    return coupon


def assert_problem(response: httpx.Response, status: int, code: str) -> None:
    """Assert that an answer is this problem."""
    assert (response.status_code, response.json().get("code")) == (status, code)
    assert response.headers["content-type"] == "application/problem+json"


def issue_body(**changes: object) -> Json:
    """Return the body of an order, changed as a test needs it."""
    expires_at = (datetime.now(UTC) + DAY).isoformat()
    body = {"member_id": "m-1", "reward_id": "rw-1", "value_cents": 500, "currency": "EUR", "expires_at": expires_at}
    return {name: value for name, value in {**body, **changes}.items() if value is not ...}


def cancel_body(coupon: Coupon, **changes: object) -> Json:
    """Return the body of a cancellation, changed as a test needs it."""
    body = {
        "code": coupon.code,
        "member_id": coupon.member_id,
        "reward_id": coupon.reward_id,
        "redemption_id": None if coupon.redemption_id is None else str(coupon.redemption_id),
        "value_cents": coupon.value.cents,
        "currency": coupon.value.currency,
        "issued_at": coupon.issued_at.isoformat(),
        "expires_at": coupon.expires_at.isoformat(),
        "version": coupon.version + 1,
    }
    return {name: value for name, value in {**body, **changes}.items() if value is not ...}


async def check_answers(member: httpx.AsyncClient, operator: httpx.AsyncClient, first: Coupon, second: Coupon) -> None:
    """Assert that one success of each route fits its declared schema and the class that schema is made from.

    The member has these two coupons, which can be redeemed and cancelled, and at least one more.
    """
    document = (await member.get("/openapi.json")).json()
    key = {"idempotency-key": "key-of-the-check"}
    code, path = "/v1/coupons/{code}", "/v1/members/{member_id}/coupons"
    answers = [
        (code, await member.get(f"/v1/coupons/{first.code}")),
        ("/v1/coupons", await operator.post("/v1/coupons", json=issue_body(), headers=key)),
        (f"{code}/redeem", await member.post(f"/v1/coupons/{first.code}/redeem")),
        (f"{code}/cancel", await operator.post(f"/v1/coupons/{second.code}/cancel", json=cancel_body(second))),
        (path, await member.get("/v1/members/m-1/coupons?limit=3")),
    ]
    for template, answer in answers:
        operation = document["paths"][template][answer.request.method.lower()]
        schema = operation["responses"][str(answer.status_code)]["content"]["application/json"]["schema"]
        jsonschema.validate(answer.json(), {**schema, "components": document["components"]})
        model = CouponPageAnswer if template == path else CouponAnswer
        model.model_validate_json(answer.content, strict=True)
    assert len(answers[-1][1].json()["items"]) == 3
    assert answers[-1][1].json()["next_cursor"]
