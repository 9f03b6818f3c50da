"""The HTTP routes: who may do what, in which words; what happens then is the store's.

All are in the fast form. Answers are bytes made from the row, and a request's spans come back as `Server-Timing`.
"""

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from functools import wraps
from typing import Final

from fastapi import APIRouter
from starlette.requests import Request

from loyalty.errors import (
    CouponCancelledError,
    CouponExpiredError,
    CouponMismatchError,
    CouponNotFoundError,
    CouponUsedError,
    ExpiryInPastError,
)
from loyalty.identifier import COUPON_CODE_PATTERN, MEMBER_ID_PATTERN, is_coupon_code, is_member_id, new_coupon_code
from loyalty.money import Money
from runtime.api import build_router
from runtime.auth import Principal, member_of, operator_of, principal_of
from runtime.idempotency import IDEMPOTENCY_KEY_PARAMETER, body_hash, idempotency_key_of
from runtime.json_body import JsonBody
from runtime.pages import PAGE_PARAMETERS, encode_cursor, page_of
from runtime.problem import DomainErrors, FieldError, Problem, unprocessable
from runtime.route import Endpoint, JsonAnswer, fast_route, path_parameter
from runtime.stored_answer import IdempotencyKey
from services.coupon_api.coupon_view import CouponView, encode, encode_page
from services.coupon_api.schema import CancelBody, CouponAnswer, CouponPageAnswer, IssueBody
from services.coupon_api.store import CouponStore, IssueOrder, PagePosition
from services.coupon_api.trace import gather, server_timing

DOMAIN_ERRORS: Final[DomainErrors] = {
    CouponNotFoundError: (404, "coupon-not-found"),
    CouponCancelledError: (409, "coupon-cancelled"),
    CouponExpiredError: (409, "coupon-expired"),
    CouponUsedError: (409, "coupon-used"),
    CouponMismatchError: (409, "coupon-mismatch"),
    ExpiryInPastError: (409, "expiry-in-past"),
}

_CODE: Final = path_parameter("code", COUPON_CODE_PATTERN.strip("^$"), "The coupon's code.")
_MEMBER: Final = path_parameter("member_id", MEMBER_ID_PATTERN.strip("^$"), "Whose coupons.")
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_ISSUE_ROUTE: Final = "POST /v1/coupons"

Handler = Callable[[Request], Awaitable[JsonAnswer]]


def build_coupon_router(store: CouponStore) -> APIRouter:
    """Build the routes on a store."""
    router = build_router(tags=["coupons"])
    read_issue_body = JsonBody(IssueBody)
    read_cancel_body = JsonBody(CancelBody)

    @fast_route(router, "GET", "/v1/coupons/{code}", answer=CouponAnswer, parameters=[_CODE])
    @traced
    async def get_coupon(request: Request) -> JsonAnswer:
        """Read a coupon: a member their own, an operator any."""
        code = request.path_params["code"]
        view = await store.find_coupon(code) if is_coupon_code(code) else None
        if view is None or not _may_see(principal_of(request), view["member_id"]):
            raise CouponNotFoundError
        return JsonAnswer(encode(view))

    @fast_route(
        router,
        "GET",
        "/v1/members/{member_id}/coupons",
        answer=CouponPageAnswer,
        parameters=[_MEMBER, *PAGE_PARAMETERS],
    )
    @traced
    async def list_coupons(request: Request) -> JsonAnswer:
        """List a member's coupons, newest first: a member their own, an operator anyone's."""
        member_id = request.path_params["member_id"]
        if not is_member_id(member_id) or not _may_see(principal_of(request), member_id):
            raise Problem(404, "member-not-found")
        page = page_of(request, (int, str))
        # One more than asked for tells whether there is a next page.
        views = await store.list_coupons(member_id, page.limit + 1, _position(page.after))
        has_more = len(views) > page.limit
        views = views[: page.limit]
        return JsonAnswer(encode_page(views, _cursor(views[-1]) if has_more else None))

    @fast_route(
        router,
        "POST",
        "/v1/coupons",
        answer=CouponAnswer,
        status=201,
        parameters=[IDEMPOTENCY_KEY_PARAMETER],
        body=IssueBody,
        can_fail_with=[409],
    )
    @traced
    async def issue_coupon(request: Request) -> JsonAnswer:
        """Issue a coupon (operators): the same key with the same body gets the first answer again."""
        principal = operator_of(request)
        key = idempotency_key_of(request)
        body = await read_issue_body(request)
        order = IssueOrder(
            code=new_coupon_code(),
            member_id=body.member_id,
            reward_id=body.reward_id,
            value=Money(body.value_cents, body.currency),
            expires_at=body.expires_at,
        )
        answer = await store.issue_coupon(order, IdempotencyKey(principal.subject, _ISSUE_ROUTE, key, body_hash(body)))
        return JsonAnswer(answer.body, answer.status)

    @fast_route(
        router, "POST", "/v1/coupons/{code}/redeem", answer=CouponAnswer, parameters=[_CODE], can_fail_with=[409]
    )
    @traced
    async def redeem_coupon(request: Request) -> JsonAnswer:
        """Spend one's own coupon (members): once only; a repeated call gets the first one's answer."""
        principal = member_of(request)
        code = request.path_params["code"]
        if not is_coupon_code(code):
            raise CouponNotFoundError
        return JsonAnswer(encode(await store.redeem_coupon(code, principal.subject)))

    @fast_route(
        router,
        "POST",
        "/v1/coupons/{code}/cancel",
        answer=CouponAnswer,
        parameters=[_CODE],
        body=CancelBody,
        can_fail_with=[409],
    )
    @traced
    async def cancel_coupon(request: Request) -> JsonAnswer:
        """Cancel a coupon as its issuer describes it (operators), also one that has not arrived yet."""
        operator_of(request)
        code = request.path_params["code"]
        if not is_coupon_code(code):
            raise CouponNotFoundError
        body = await read_cancel_body(request)
        if body.code != code:
            raise unprocessable([FieldError("body.code", "must be the code in the path")])
        return JsonAnswer(encode(await store.cancel_coupon(body.coupon())))

    return router


def traced(handler: Handler) -> Endpoint:
    """Give a handler's spans back: in its answer's `Server-Timing` header, and in its log line, also when it fails."""

    @wraps(handler)
    async def endpoint(request: Request) -> JsonAnswer:
        spans = gather()
        try:
            answer = await handler(request)
        except BaseException:
            if spans:
                request.scope["log_fields"] = {"server_timing": server_timing(spans)}
            raise
        timing = server_timing(spans)
        request.scope["log_fields"] = {"server_timing": timing}
        answer.raw_headers.append((b"server-timing", timing.encode("ascii")))
        return answer

    return endpoint


def _may_see(principal: Principal, member_id: str) -> bool:
    return principal.subject == member_id if principal.scope == "member" else True


def _cursor(view: CouponView) -> str:
    return encode_cursor(((view["issued_at"] - _EPOCH) // _MICROSECOND, view["code"]))


def _position(after: tuple[int | str, ...] | None) -> PagePosition | None:
    """Read what `_cursor` wrote; whoever makes a cursor up gets a refusal, or a page of what they may see anyway."""
    match after:
        case None:
            return None
        case (int(microseconds), str(code)) if is_coupon_code(code):
            try:
                return PagePosition(_EPOCH + timedelta(microseconds=microseconds), code)
            except OverflowError:
                pass
    raise unprocessable([FieldError("query.cursor", "cursor")])
