"""Build an HTTP API: FastAPI for its routes and documents, a dispatcher and an edge of our own around it.

FastAPI's middleware stack is not used. ServerErrorMiddleware would answer text and raise again, ExceptionMiddleware
maps exceptions a second time, and both cost time on each request; `HttpEdge` does their work once. The dispatcher
verifies the token before anything else (a route cannot forget it), knows every method of a path (a whole `Allow`),
and refuses unknown query parameters.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import orjson
from fastapi import APIRouter, FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.middleware.asyncexitstack import AsyncExitStackMiddleware
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from runtime.access_log import WriteLine
from runtime.api_document import complete_document, query_names_of
from runtime.auth import TokenVerifier, unauthorized
from runtime.errors import (
    DependencyUnavailable,
    IdempotencyKeyReusedError,
    PoolExhausted,
    RequestDeadlineExceeded,
    RequestInProgressError,
)
from runtime.http_edge import HttpEdge
from runtime.http_metrics import HttpMetrics
from runtime.pages import query_pairs
from runtime.problem import DomainErrors, FieldError, Problem, ProblemTable, unprocessable
from runtime.route import Endpoint, FastRoute, JsonAnswer
from runtime.settings import HttpSettings

DOCUMENT_PATH: Final = "/openapi.json"
DOCS_PATH: Final = "/docs"

RUNTIME_ERRORS: Final[DomainErrors] = {
    DependencyUnavailable: (503, "dependency-unavailable"),
    PoolExhausted: (503, "overloaded"),
    RequestDeadlineExceeded: (504, "deadline-exceeded"),
    IdempotencyKeyReusedError: (422, "idempotency-key-reused"),
    RequestInProgressError: (409, "request-in-progress"),
}


def build_router(**options: Any) -> APIRouter:  # noqa: ANN401 - APIRouter's own options
    """Make a router for `build_api`; redirects for a slash too many are off, since each resource has one spelling."""
    return APIRouter(redirect_slashes=False, **options)


def build_api(
    *,
    title: str,
    settings: HttpSettings,
    verifier: TokenVerifier,
    routers: Sequence[APIRouter],
    domain_errors: DomainErrors | None = None,
    metrics: HttpMetrics | None = None,
    write_line: WriteLine | None = None,
    version: str = "1",
) -> HttpEdge:
    """Build the ASGI application of a service.

    Args:
        title: of the API's documents.
        settings: limits of a request.
        verifier: says who calls; every path but /docs and /openapi.json needs a token.
        routers: flat ones (no router within a router); plain FastAPI routes and fast ones (`runtime.route`) in any
            mixture.
        domain_errors: class to (status, code); an error of a subclass counts as its nearest ancestor.
        metrics: where answers are counted.
        write_line: takes the fields of each request's log line instead of the process's log.
        version: of the API's documents.

    Raises:
        ValueError: a router holds something else than API routes, or the table has a bad status or code.
    """
    api = FastAPI(title=title, version=version, openapi_url=None, docs_url=None, redoc_url=None)
    for router in routers:
        api.include_router(router)
    dispatcher = _Dispatcher(_routes_of(routers), AsyncExitStackMiddleware(api.router), verifier)
    document = orjson.dumps(complete_document(api.openapi(), dispatcher.routes))
    dispatcher.publish(DOCUMENT_PATH, JsonAnswer(document))
    page = get_swagger_ui_html(openapi_url=DOCUMENT_PATH, title=title)
    dispatcher.publish(DOCS_PATH, HTMLResponse(page.body))
    table = _Table({**RUNTIME_ERRORS, **(domain_errors or {})}, settings.retry_after_seconds)
    return HttpEdge(dispatcher, settings, problems=table, metrics=metrics, write_line=write_line)


def _routes_of(routers: Iterable[APIRouter]) -> list[APIRoute]:
    routes = []
    for router in routers:
        for route in router.routes:
            if not isinstance(route, APIRoute):
                raise ValueError(f"{type(route).__name__} in a router: only API routes can be served")  # noqa: TRY004 - a wrong value in a list
            routes.append(route)
    return routes


class _Table(ProblemTable):
    """Know FastAPI's own errors, too."""

    def find(self, error: Exception) -> Problem | None:
        if isinstance(error, RequestValidationError):
            return unprocessable(FieldError(_place(detail["loc"]), detail["type"]) for detail in error.errors())
        if isinstance(error, HTTPException) and error.status_code >= 400:
            return Problem(error.status_code, "http-error", headers=error.headers)
        return super().find(error)


def _place(loc: Sequence[str | int]) -> str:
    return ".".join(str(part) for part in loc).lower()


@dataclass(frozen=True, slots=True)
class _Operation:
    """What one method of one path does: a fast endpoint, a public document, or None for FastAPI's own way."""

    query_names: frozenset[str]
    endpoint: Endpoint | None


@dataclass(slots=True)
class _Resource:
    template: str
    pattern: re.Pattern[str]
    operations: dict[str, _Operation] = field(default_factory=dict)

    def not_allowed(self) -> Problem:
        allow = ", ".join(sorted(self.operations))
        return Problem(405, "method-not-allowed", headers={"allow": allow})


class _Dispatcher:
    """Find the resource by its path, then the operation by the method, then let it run."""

    def __init__(self, routes: Sequence[APIRoute], fastapi: ASGIApp, verifier: TokenVerifier) -> None:
        self.routes = routes
        self._fastapi = fastapi
        self._verify = verifier.verify
        self._public: dict[str, Response] = {}
        resources: dict[str, _Resource] = {}
        for route in routes:
            resource = resources.setdefault(route.path, _Resource(route.path, route.path_regex))
            endpoint = route.fast_endpoint if isinstance(route, FastRoute) else None
            for method in route.methods or ():
                if method in resource.operations:
                    raise ValueError(f"{method} {route.path} is registered twice")
                resource.operations[method] = _Operation(query_names_of(route), endpoint)
        self._static = {path: resource for path, resource in resources.items() if "{" not in path}
        self._dynamic = [resource for path, resource in resources.items() if "{" in path]

    def publish(self, path: str, response: Response) -> None:
        """Serve a fixed document to everyone."""
        self._public[path] = response

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request.

        Raises:
            Problem: 401, 404, 405, 422, and whatever the operation raises.
        """
        if scope["type"] != "http":
            raise RuntimeError(f"this API serves no {scope['type']}")
        path = scope["path"]
        if path in self._public:
            await self._serve_public(scope, receive, send)
            return
        authorization = scope["authorization"]
        if authorization is None:
            raise unauthorized("missing-token")
        scope["principal"] = self._verify(authorization)
        resource = self._find(scope, path)
        scope["route_template"] = resource.template
        operation = resource.operations.get(scope["method"])
        if operation is None:
            raise resource.not_allowed()
        if scope["query_string"]:
            _check_query(scope["query_string"], operation.query_names)
        if operation.endpoint is None:
            await self._fastapi(scope, receive, send)
            return
        response = await operation.endpoint(Request(scope, receive, send))
        await response(scope, receive, send)

    def _find(self, scope: Scope, path: str) -> _Resource:
        # No name of ours needs percent-encoding, so an encoded path is a second spelling and names nothing.
        if b"%" not in scope["raw_path"]:
            resource = self._static.get(path)
            if resource is not None:
                scope["path_params"] = {}
                return resource
            for resource in self._dynamic:
                match = resource.pattern.fullmatch(path)
                if match is not None:
                    scope["path_params"] = match.groupdict()
                    return resource
        raise Problem(404, "not-found")

    async def _serve_public(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["route_template"] = scope["path"]
        if scope["method"] != "GET":
            raise Problem(405, "method-not-allowed", headers={"allow": "GET"})
        if scope["query_string"]:
            _check_query(scope["query_string"], frozenset())
        await self._public[scope["path"]](scope, receive, send)


def _check_query(query: bytes, known: frozenset[str]) -> None:
    """Refuse names nobody declared, and names given twice; neither is repeated in the answer."""
    names = [name for name, _ in query_pairs(query)]
    errors = []
    if not known.issuperset(names):
        errors.append(FieldError("query", "unknown parameter"))
    doubled = (name for name in sorted(known) if names.count(name) > 1)
    errors.extend(FieldError(f"query.{name}", "given more than once") for name in doubled)
    if errors:
        raise unprocessable(errors)
