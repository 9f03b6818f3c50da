"""The fast form of a route: one plain coroutine from request to response, documented like any other.

FastAPI's own form of a route costs 40 to 50 us a request (exit stacks, dependency solving, exception wrapping); the
fast form is called straight from the API's dispatcher. What it reads is declared beside it, for OpenAPI and for the
check that refuses unknown query parameters; a test of the service holds declaration and answers together.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, TypeVar, cast

from fastapi import APIRouter
from fastapi.routing import APIRoute
from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from runtime.problem import PROBLEM_MEDIA_TYPE

Endpoint = Callable[[Request], Awaitable[Response]]
EndpointT = TypeVar("EndpointT", bound=Endpoint)

PROBLEM_CONTENT: Final[dict[str, Any]] = {
    PROBLEM_MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}},
}

_JSON: Final = (b"content-type", b"application/json")


class JsonAnswer(Response):
    """Answer bytes that are JSON already; a third of the cost of starlette's Response.

    Args:
        body: the encoded JSON.
        status: the HTTP status.
        headers: more headers, lower-case names.
    """

    media_type = "application/json"

    def __init__(self, body: bytes, status: int = 200, headers: Sequence[tuple[bytes, bytes]] = ()) -> None:
        self.status_code = status
        self.body = body
        self.background = None
        self.raw_headers = [_JSON, (b"content-length", b"%d" % len(body)), *headers]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - ASGI's signature
        """Send the answer."""
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        await send({"type": "http.response.body", "body": self.body})


class FastRoute(APIRoute):
    """A route whose endpoint is called by the dispatcher itself; FastAPI only documents it."""

    @property
    def fast_endpoint(self) -> Endpoint:
        """The coroutine to call."""
        return cast("_Documented", self.endpoint).fast_endpoint

    @property
    def body_model(self) -> type[BaseModel] | None:
        """The class of the body that its endpoint reads."""
        return cast("_Documented", self.endpoint).body_model


class _Documented:
    """Stand for a fast endpoint before FastAPI, which would look for parameters in its signature."""

    def __init__(self, endpoint: Endpoint, body_model: type[BaseModel] | None) -> None:
        self.fast_endpoint = endpoint
        self.body_model = body_model
        self.__name__ = getattr(endpoint, "__name__", type(endpoint).__name__)
        self.__doc__ = endpoint.__doc__

    async def __call__(self) -> Response:
        """Refuse: a fast route is reached through the dispatcher alone."""
        raise RuntimeError(f"{self.__name__} is a fast route; serve it through build_api")


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Declare problem answers of a route, for `responses=`; those that any route can give need no mention."""
    return {status: {"description": "Problem", "content": PROBLEM_CONTENT} for status in statuses}


def path_parameter(name: str, pattern: str, description: str = "") -> dict[str, Any]:
    """Declare a part of the path, for a fast route's `parameters`.

    Args:
        name: as in the path's braces.
        pattern: a whole-match pattern, without anchors; the endpoint checks it.
        description: for the reader of the API's documents.
    """
    schema = {"type": "string", "pattern": f"^{pattern}$"}
    return {"name": name, "in": "path", "required": True, "description": description, "schema": schema}


def fast_route(
    router: APIRouter,
    method: str,
    path: str,
    *,
    answer: type[BaseModel],
    status: int = 200,
    parameters: Sequence[dict[str, Any]] = (),
    body: type[BaseModel] | None = None,
    can_fail_with: Sequence[int] = (),
) -> Callable[[EndpointT], EndpointT]:
    """Register a fast route: `@fast_route(router, "GET", "/v1/coupons/{code}", answer=CouponView, ...)`.

    The endpoint checks the caller (`runtime.auth.member_of` and the like), its path and its query itself, and raises
    `Problem` or a domain error for what it refuses. Nothing validates its answer.

    Args:
        router: from `build_router`.
        method: GET, POST, ...
        path: the template.
        answer: documents the answer's body.
        status: the status of a success.
        parameters: OpenAPI parameter objects; query parameters that are not among them are refused.
        body: documents the request's body, which the endpoint reads with `JsonBody`.
        can_fail_with: statuses of problem answers that this route gives beyond those of every route.
    """

    def register(endpoint: EndpointT) -> EndpointT:
        router.add_api_route(
            path,
            _Documented(endpoint, body),
            methods=[method],
            response_model=answer,
            status_code=status,
            responses=problems(*can_fail_with),
            openapi_extra={"parameters": list(parameters)} if parameters else None,
            route_class_override=FastRoute,
        )
        return endpoint

    return register
