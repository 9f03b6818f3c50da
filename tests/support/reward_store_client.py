"""reward_store without a socket: its whole API on a store, fake or real, and what a client needs to speak to it."""

from collections.abc import Callable
from pathlib import Path
from typing import Final

import httpx
import jsonschema
from prometheus_client import CollectorRegistry
from pydantic import BaseModel

from loyalty.coupon import Coupon
from loyalty.errors import CouponUsedError
from runtime.api import build_api
from runtime.auth import Scope, TokenVerifier, sign_token
from runtime.errors import DependencyUnavailable
from runtime.http_edge import HttpEdge
from runtime.settings import AuthSettings, HttpSettings
from services.reward_store.canceller import Cancellations, Canceller
from services.reward_store.metrics import CancelMetrics
from services.reward_store.routes import DOMAIN_ERRORS, Store, build_routes
from services.reward_store.schema import MemberAnswer, RedemptionAnswer, RewardAnswer, RewardPageAnswer
from services.reward_store.settings import CancelSettings

SECRET: Final = "0123456789abcdef" * 2
KEY: Final = {"idempotency-key": "key-0001"}


class FakeCoupons:
    """A coupon_api in memory: it knows which coupons were used, and may be away."""

    def __init__(self) -> None:
        self.used: set[str] = set()
        self.cancelled: dict[str, Coupon] = {}
        self.is_away = False
        self.before_answer: Callable[[], None] = lambda: None

    async def cancel(self, coupon: Coupon) -> None:
        """See `Coupons`."""
        if self.is_away:
            raise DependencyUnavailable("coupon_api", "away")
        if coupon.code in self.used:
            raise CouponUsedError
        self.cancelled[coupon.code] = coupon
        self.before_answer()


class Api:
    """The API on a store, with a coupon_api beside it and a count of nudges."""

    def __init__(self, store: Store, cancellations: Cancellations, secret_file: Path) -> None:
        secret_file.write_text(SECRET)
        self.coupons = FakeCoupons()
        self.nudges = 0
        self.registry = CollectorRegistry()
        canceller = Canceller(cancellations, self.coupons, CancelSettings(), CancelMetrics(self.registry))
        self.canceller = canceller
        self.edge: HttpEdge = build_api(
            title="reward_store",
            settings=HttpSettings(),
            verifier=TokenVerifier(AuthSettings(secret_file=secret_file)),
            routers=[build_routes(store, canceller, self._nudge)],
            domain_errors=DOMAIN_ERRORS,
        )

    def _nudge(self) -> None:
        self.nudges += 1

    def client(self, subject: str, scope: Scope = "member") -> httpx.AsyncClient:
        """Return a client with a token of its own."""
        return httpx.AsyncClient(
            transport=httpx.ASGITransport(app=self.edge),
            base_url="http://reward-store",
            headers={"authorization": f"Bearer {sign_token(subject, scope, SECRET)}"},
        )


async def check_answers(member: httpx.AsyncClient) -> None:
    """Assert that one success of each route fits its declared schema and the class that schema is made from.

    The caller is m-1, who can afford `rw-coffee`, and there are at least two rewards.
    """
    document = (await member.get("/openapi.json")).json()
    redeemed = await member.post("/v1/redemptions", json={"reward_id": "rw-coffee"}, headers=KEY)
    cancel_path = f"/v1/redemptions/{redeemed.json()['redemption_id']}/cancel"
    answers: list[tuple[str, httpx.Response, type[BaseModel]]] = [
        ("/v1/rewards", await member.get("/v1/rewards?limit=1"), RewardPageAnswer),
        ("/v1/rewards/{reward_id}", await member.get("/v1/rewards/rw-coffee"), RewardAnswer),
        ("/v1/members/{member_id}", await member.get("/v1/members/m-1"), MemberAnswer),
        ("/v1/redemptions", redeemed, RedemptionAnswer),
        ("/v1/redemptions/{redemption_id}/cancel", await member.post(cancel_path), RedemptionAnswer),
    ]
    for template, answer, model in answers:
        operation = document["paths"][template][answer.request.method.lower()]
        schema = operation["responses"][str(answer.status_code)]["content"]["application/json"]["schema"]
        jsonschema.validate(answer.json(), {**schema, "components": document["components"]})
        model.model_validate_json(answer.content)
    assert answers[0][1].json()["next_cursor"]
