"""The HTTP routes of reward_store.

Each reads its request, calls the store or the canceller, and writes the answer; what they raise becomes a problem
document by `DOMAIN_ERRORS`. A member sees only what is theirs; another member's things do not exist for them (404). An
operator may look at any member, and redeems nothing.
"""

import re
from collections.abc import Callable
from typing import Final, Protocol
from uuid import UUID

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from loyalty.errors import (
    CouponUsedError,
    InsufficientPointsError,
    MemberNotFoundError,
    RedemptionNotFoundError,
    RewardNotFoundError,
    SoldOutError,
)
from loyalty.event import UUID_PATTERN
from loyalty.identifier import MEMBER_ID_PATTERN, REWARD_ID_PATTERN, is_member_id, is_reward_id
from loyalty.reward import Member, Redemption, Reward
from runtime.api import build_router
from runtime.auth import member_of, principal_of
from runtime.idempotency import IDEMPOTENCY_KEY_PARAMETER, body_hash, idempotency_key_of
from runtime.json_body import JsonBody
from runtime.pages import PAGE_PARAMETERS, page_of
from runtime.problem import DomainErrors, FieldError, unprocessable
from runtime.route import JsonAnswer, fast_route, path_parameter
from runtime.stored_answer import IdempotencyKey, StoredAnswer
from services.reward_store.outbox import event_headers
from services.reward_store.representation import member_body, redemption_body, reward_body, rewards_body
from services.reward_store.schema import MemberAnswer, RedeemBody, RedemptionAnswer, RewardAnswer, RewardPageAnswer
from services.reward_store.store import Order

DOMAIN_ERRORS: Final[DomainErrors] = {
    RewardNotFoundError: (404, "reward-not-found"),
    MemberNotFoundError: (404, "member-not-found"),
    RedemptionNotFoundError: (404, "redemption-not-found"),
    SoldOutError: (409, "sold-out"),
    InsufficientPointsError: (409, "insufficient-points"),
    CouponUsedError: (409, "coupon-used"),
}

_REDEEM_ROUTE: Final = "POST /v1/redemptions"
_UUID: Final = re.compile(UUID_PATTERN)


class Store(Protocol):
    """What the routes need of a store."""

    async def rewards(self, limit: int, after: str | None) -> list[Reward]:
        """Return at most `limit` rewards in the order of their ids, from behind `after` on."""

    async def reward(self, reward_id: str) -> Reward:
        """Return one reward, or raise RewardNotFoundError."""

    async def member(self, member_id: str) -> Member:
        """Return a member, or raise MemberNotFoundError."""

    async def redeem(self, order: Order) -> StoredAnswer:
        """Redeem once a key, and return the answer, the same one for every repetition."""


class Canceller(Protocol):
    """What the routes need to cancel."""

    async def cancel(self, redemption_id: UUID, member_id: str) -> Redemption:
        """Cancel a member's redemption."""


def _pattern(anchored: str) -> str:
    return anchored.removeprefix("^").removesuffix("$")


def build_routes(store: Store, canceller: Canceller, nudge: Callable[[], None]) -> APIRouter:
    """Build the router.

    Args:
        store: where everything is kept.
        canceller: who cancels.
        nudge: called after an event was committed, so that the relay need not wait for its next poll.
    """
    router = build_router()
    _add_reading(router, store)
    _add_redeeming(router, store, nudge)
    _add_cancelling(router, canceller, nudge)
    return router


def _add_reading(router: APIRouter, store: Store) -> None:
    @fast_route(router, "GET", "/v1/rewards", answer=RewardPageAnswer, parameters=PAGE_PARAMETERS)
    async def list_rewards(request: Request) -> Response:
        """Look through the rewards."""
        page = page_of(request, (str,))
        after = str(page.after[0]) if page.after else None
        if after is not None and not is_reward_id(after):  # whoever makes a cursor up
            raise unprocessable([FieldError("query.cursor", "cursor")])
        rewards = await store.rewards(page.limit + 1, after)
        return JsonAnswer(rewards_body(rewards[: page.limit], has_more=len(rewards) > page.limit))

    @fast_route(
        router,
        "GET",
        "/v1/rewards/{reward_id}",
        answer=RewardAnswer,
        parameters=[path_parameter("reward_id", _pattern(REWARD_ID_PATTERN))],
    )
    async def get_reward(request: Request) -> Response:
        """Look at one reward."""
        reward_id = request.path_params["reward_id"]
        if not is_reward_id(reward_id):
            raise RewardNotFoundError
        return JsonAnswer(reward_body(await store.reward(reward_id)))

    @fast_route(
        router,
        "GET",
        "/v1/members/{member_id}",
        answer=MemberAnswer,
        parameters=[path_parameter("member_id", _pattern(MEMBER_ID_PATTERN))],
    )
    async def get_member(request: Request) -> Response:
        """See how many points a member has: a member their own, an operator anybody's."""
        principal = principal_of(request)
        member_id = request.path_params["member_id"]
        is_theirs = principal.scope == "operator" or principal.subject == member_id
        if not is_theirs or not is_member_id(member_id):
            raise MemberNotFoundError
        return JsonAnswer(member_body(await store.member(member_id)))


def _add_redeeming(router: APIRouter, store: Store, nudge: Callable[[], None]) -> None:
    read_body = JsonBody(RedeemBody)

    @fast_route(
        router,
        "POST",
        "/v1/redemptions",
        answer=RedemptionAnswer,
        status=201,
        body=RedeemBody,
        parameters=[IDEMPOTENCY_KEY_PARAMETER],
        can_fail_with=[409],
    )
    async def redeem(request: Request) -> Response:
        """Take a reward for points; the answer holds the coupon's code.

        A repetition with the same Idempotency-Key and body gets the same answer and takes nothing. The key with another
        body is refused (422 `idempotency-key-reused`), so is one whose first request still runs (409
        `request-in-progress`). 409 also says `sold-out`, or `insufficient-points` for the price.
        """
        member_id = member_of(request).subject
        key = idempotency_key_of(request)
        body = await read_body(request)
        order = Order(
            member_id=member_id,
            reward_id=body.reward_id,
            key=IdempotencyKey(member_id, _REDEEM_ROUTE, key, body_hash(body)),
            headers=event_headers(),
        )
        answer = await store.redeem(order)
        nudge()
        return JsonAnswer(answer.body, answer.status)


def _add_cancelling(router: APIRouter, canceller: Canceller, nudge: Callable[[], None]) -> None:
    @fast_route(
        router,
        "POST",
        "/v1/redemptions/{redemption_id}/cancel",
        answer=RedemptionAnswer,
        parameters=[path_parameter("redemption_id", _pattern(UUID_PATTERN))],
        can_fail_with=[409],
    )
    async def cancel_redemption(request: Request) -> Response:
        """Give a redemption back for its points, as long as its coupon is unused (409 `coupon-used`).

        May be repeated: it is cancelled once, and every repetition gets the same answer. After a 503 the cancellation
        goes on by itself; asking again joins in.
        """
        member_id = member_of(request).subject
        redemption_id = request.path_params["redemption_id"]
        if not _UUID.fullmatch(redemption_id):
            raise RedemptionNotFoundError
        redemption = await canceller.cancel(UUID(redemption_id), member_id)
        nudge()
        return JsonAnswer(redemption_body(redemption))
