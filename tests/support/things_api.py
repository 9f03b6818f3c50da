"""A small API with routes of both forms, for tests of what build_api makes of them."""

from __future__ import annotations

import json
from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response

from runtime.api import build_router
from runtime.auth import CurrentMember, CurrentOperator, operator_of, principal_of
from runtime.errors import PoolExhausted
from runtime.idempotency import IdempotencyKeyHeader
from runtime.json_body import Body, JsonBody, json_body
from runtime.pages import PAGE_PARAMETERS, page_of
from runtime.route import JsonAnswer, fast_route, path_parameter, problems

SECRET = "s" * 40


class Thing(BaseModel):
    """What is answered."""

    name: str


class Page(BaseModel):
    """What a list answers: here only how many there could be."""

    limit: int


class NewThing(Body):
    """What is sent."""

    name: str


class SoldOutError(Exception):
    """A fault of the business."""


def build_routes() -> APIRouter:
    """Make the routes anew."""
    router = build_router(tags=["things"])
    read = JsonBody(NewThing)

    @fast_route(router, "GET", "/v1/things", answer=Page, parameters=PAGE_PARAMETERS)
    async def list_things(request: Request) -> Response:
        """List things."""
        return JsonAnswer(b'{"limit":%d}' % page_of(request, (str,)).limit)

    @fast_route(
        router, "GET", "/v1/things/{name}", answer=Thing,
        parameters=(path_parameter("name", "[a-z]+", "Its name."),), can_fail_with=(409,),
    )  # fmt: skip
    async def get_thing(request: Request) -> Response:
        if request.path_params["name"] == "sold":
            raise SoldOutError
        if request.path_params["name"] == "busy":
            raise PoolExhausted("postgres", "no connection came free")
        return JsonAnswer(json.dumps({"name": principal_of(request).subject}).encode(), headers=[(b"x", b"y")])

    @fast_route(router, "PUT", "/v1/things/{name}", answer=Thing, body=NewThing)
    async def put_thing(request: Request) -> Response:
        operator_of(request)
        return JsonAnswer((await read(request)).model_dump_json().encode())

    @router.post("/v1/things", status_code=201, responses=problems(409))
    async def post_thing(
        member: CurrentMember, key: IdempotencyKeyHeader, body: Annotated[NewThing, json_body(NewThing)]
    ) -> Thing:
        return Thing(name=f"{member.subject} {key} {body.name}")

    @router.get("/v1/slow")
    async def slow_form(operator: CurrentOperator, size: Annotated[int, Query(ge=1, le=9)] = 1) -> Thing:
        return Thing(name=operator.subject * size)

    return router
