"""The HTTP routes: who may do what, in which words; what happens then is the store's.

Operators may do everything. Members read, and know nothing of drafts: they are left out of lists, and are not found.
Whatever writes names the version that it has seen (`If-Match`) or its key, so every request can be repeated when its
answer was lost: a repeated POST gets the first answer, a repeated PATCH the campaign as the first one left it (412 once
somebody changed it further), and a repeated DELETE finds nothing (404), which is what it wanted.
"""

import re
from datetime import UTC, datetime, timedelta
from typing import Final

from fastapi import APIRouter
from pydantic import TypeAdapter
from starlette.requests import Request
from starlette.responses import Response

from loyalty.campaign import FIRST_VERSION, PUBLIC_STATUSES, CampaignStatus
from loyalty.errors import (
    CampaignDatesContradictError,
    CampaignDatesFixedError,
    CampaignInUseError,
    CampaignNotFoundError,
    CampaignTransitionError,
    StaleCampaignError,
)
from loyalty.identifier import CAMPAIGN_ID_PATTERN, is_campaign_id, new_campaign_id
from runtime.api import build_router
from runtime.auth import operator_of, principal_of
from runtime.idempotency import IDEMPOTENCY_KEY_PARAMETER, body_hash, idempotency_key_of
from runtime.json_body import JsonBody, Timestamp
from runtime.pages import PAGE_PARAMETERS, encode_cursor, page_of, query_pairs
from runtime.problem import DomainErrors, FieldError, unprocessable
from runtime.route import JsonAnswer, fast_route, path_parameter, problems
from runtime.stored_answer import IdempotencyKey
from services.campaign_api.campaign_view import CampaignView, encode, encode_page, location_of
from services.campaign_api.etag import (
    IF_MATCH_PARAMETER,
    IF_NONE_MATCH_PARAMETER,
    etag_of,
    is_known,
    required_match_of,
)
from services.campaign_api.schema import CampaignAnswer, CampaignBody, CampaignPageAnswer, ChangeBody
from services.campaign_api.store import CampaignFilter, CampaignOrder, CampaignStore, PagePosition, TimeSpan

DOMAIN_ERRORS: Final[DomainErrors] = {
    CampaignNotFoundError: (404, "campaign-not-found"),
    CampaignTransitionError: (409, "campaign-transition"),
    CampaignDatesFixedError: (409, "campaign-dates-fixed"),
    CampaignDatesContradictError: (409, "campaign-dates-contradict"),
    CampaignInUseError: (409, "campaign-in-use"),
    StaleCampaignError: (412, "campaign-changed"),
}

_ID: Final = path_parameter("campaign_id", CAMPAIGN_ID_PATTERN.strip("^$"), "The campaign's id.")
_STATUS: Final = {
    "name": "status",
    "in": "query",
    "required": False,
    "description": "Only campaigns of this status.",
    "schema": {"type": "string", "enum": [status.value for status in CampaignStatus]},
}
_ON: Final = {
    "name": "on",
    "in": "query",
    "required": False,
    "description": (
        "Only campaigns whose dates include this time, or any time of this day in UTC, whatever their status is."
    ),
    "schema": {"anyOf": [{"type": "string", "format": "date"}, {"type": "string", "format": "date-time"}]},
}
_ALL_STATUSES: Final = frozenset(CampaignStatus)
_CREATE_ROUTE: Final = "POST /v1/campaigns"
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND: Final = timedelta(milliseconds=1)
_DAY: Final = timedelta(days=1)
_DATE: Final = re.compile(r"2\d{3}-\d\d-\d\d", re.ASCII)
_TIME: Final = TypeAdapter[datetime](Timestamp)


def build_campaign_routers(store: CampaignStore) -> list[APIRouter]:
    """Build the routes on a store."""
    tags = ["campaigns"]
    # A router of its own for the one route whose answer may be neither a success nor a problem.
    conditional = build_router(tags=tags, responses={304: {"description": "The campaign is the same still."}})
    router = build_router(tags=tags)
    _add_reading(conditional, store)
    _add_listing(router, store)
    _add_creating(router, store)
    _add_changing(router, store)
    _add_deleting(router, store)
    return [conditional, router]


def _add_reading(router: APIRouter, store: CampaignStore) -> None:
    @fast_route(
        router,
        "GET",
        "/v1/campaigns/{campaign_id}",
        answer=CampaignAnswer,
        parameters=[_ID, IF_NONE_MATCH_PARAMETER],
    )
    async def get_campaign(request: Request) -> Response:
        """Read a campaign: its ETag is what a change of it has to name."""
        view = await store.find_campaign(_id_of(request))
        if view is None or view["status"] not in _visible_to(request):
            raise CampaignNotFoundError
        etag = etag_of(view["version"])
        if is_known(request, view["version"]):
            unchanged = Response(status_code=304)
            unchanged.raw_headers.append(etag)
            return unchanged
        return JsonAnswer(encode(view), headers=[etag])


def _add_listing(router: APIRouter, store: CampaignStore) -> None:
    @fast_route(
        router,
        "GET",
        "/v1/campaigns",
        answer=CampaignPageAnswer,
        parameters=[_STATUS, _ON, *PAGE_PARAMETERS],
    )
    async def list_campaigns(request: Request) -> JsonAnswer:
        """List campaigns, the one that starts last first."""
        wanted = _filter_of(request)
        page = page_of(request, (int, str))
        after = _position(page.after)
        # One more than asked for tells whether there is a next page.
        views = await store.list_campaigns(wanted, page.limit + 1, after) if wanted.statuses else []
        has_more = len(views) > page.limit
        views = views[: page.limit]
        return JsonAnswer(encode_page(views, _cursor(views[-1]) if has_more else None))


def _add_creating(router: APIRouter, store: CampaignStore) -> None:
    read_body = JsonBody(CampaignBody)

    @fast_route(
        router,
        "POST",
        "/v1/campaigns",
        answer=CampaignAnswer,
        status=201,
        parameters=[IDEMPOTENCY_KEY_PARAMETER],
        body=CampaignBody,
        can_fail_with=[409],
    )
    async def create_campaign(request: Request) -> JsonAnswer:
        """Create a draft (operators): the same key with the same body gets the first answer again.

        The key with another body is refused (422 `idempotency-key-reused`), so is one whose first request still runs
        (409 `request-in-progress`). Times are kept to the millisecond; a finer one is refused.
        """
        principal = operator_of(request)
        key = idempotency_key_of(request)
        body = await read_body(request)
        order = CampaignOrder(new_campaign_id(), body.name, body.description, body.starts_at, body.ends_at)
        answer = await store.create_campaign(
            order, IdempotencyKey(principal.subject, _CREATE_ROUTE, key, body_hash(body))
        )
        location = (b"location", location_of(answer.body).encode("ascii"))
        return JsonAnswer(answer.body, answer.status, [location, etag_of(FIRST_VERSION)])


def _add_changing(router: APIRouter, store: CampaignStore) -> None:
    read_body = JsonBody(ChangeBody)

    @fast_route(
        router,
        "PATCH",
        "/v1/campaigns/{campaign_id}",
        answer=CampaignAnswer,
        parameters=[_ID, IF_MATCH_PARAMETER],
        body=ChangeBody,
        can_fail_with=[409, 412, 428],
    )
    async def change_campaign(request: Request) -> JsonAnswer:
        """Change what the body names (operators), if the campaign is the one that If-Match names.

        428 without If-Match, 412 `campaign-changed` when it is another one by now. To repeat the change as long as it
        is the last one gets the campaign as it left it. 409 says `campaign-transition` for a status that cannot follow,
        `campaign-dates-fixed` for a date that does not change any more, `campaign-dates-contradict` for an end that is
        not after the start.
        """
        operator_of(request)
        campaign_id = _id_of(request)
        versions = required_match_of(request)
        body = await read_body(request)
        view = await store.change_campaign(campaign_id, versions, body.changes())
        return JsonAnswer(encode(view), headers=[etag_of(view["version"])])


def _add_deleting(router: APIRouter, store: CampaignStore) -> None:
    # FastAPI's own form of a route: the fast form has no way to declare an answer without a body.
    @router.delete(
        "/v1/campaigns/{campaign_id}",
        status_code=204,
        response_class=Response,
        responses=problems(409, 412, 428),
        openapi_extra={"parameters": [_ID, IF_MATCH_PARAMETER]},
    )
    async def delete_campaign(request: Request) -> Response:
        """Delete a draft or an ended campaign (operators), if it is the one that If-Match names.

        428 without If-Match, 412 `campaign-changed` when it is another one by now, 409 `campaign-in-use` when it is
        active or paused.
        """
        operator_of(request)
        campaign_id = _id_of(request)
        await store.delete_campaign(campaign_id, required_match_of(request))
        return Response(status_code=204)


def _id_of(request: Request) -> str:
    campaign_id: str = request.path_params["campaign_id"]
    if not is_campaign_id(campaign_id):
        raise CampaignNotFoundError
    return campaign_id


def _visible_to(request: Request) -> frozenset[CampaignStatus]:
    return _ALL_STATUSES if principal_of(request).scope == "operator" else PUBLIC_STATUSES


def _filter_of(request: Request) -> CampaignFilter:
    statuses, on = _visible_to(request), None
    for name, value in query_pairs(request.scope["query_string"]) if request.scope["query_string"] else ():
        if name == "status":
            if value not in _ALL_STATUSES:
                raise unprocessable([FieldError("query.status", "enum")])
            statuses &= {CampaignStatus(value)}
        elif name == "on":
            on = _span_of(value)
    return CampaignFilter(statuses, on)


def _span_of(text: str) -> TimeSpan:
    """Read a day in UTC, or a time: cut to its millisecond, it meets the same dates, since those have no finer ones."""
    try:
        if _DATE.fullmatch(text):
            begin = datetime.fromisoformat(text).replace(tzinfo=UTC)
            return TimeSpan(begin, begin + _DAY)
        time = _TIME.validate_python(text)
    except ValueError:
        raise unprocessable([FieldError("query.on", "date or time")]) from None
    begin = time.replace(microsecond=time.microsecond // 1_000 * 1_000)
    return TimeSpan(begin, begin + _MILLISECOND)


def _cursor(view: CampaignView) -> str:
    return encode_cursor(((view["starts_at"] - _EPOCH) // _MILLISECOND, view["campaign_id"]))


def _position(after: tuple[int | str, ...] | None) -> PagePosition | None:
    """Read what `_cursor` wrote; whoever makes a cursor up gets a refusal, or a page of what they may see anyway."""
    match after:
        case None:
            return None
        case (int(milliseconds), str(campaign_id)) if is_campaign_id(campaign_id):
            try:
                return PagePosition(_EPOCH + timedelta(milliseconds=milliseconds), campaign_id)
            except OverflowError:
                pass
    raise unprocessable([FieldError("query.cursor", "cursor")])
