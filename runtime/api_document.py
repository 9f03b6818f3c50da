"""Complete FastAPI's OpenAPI document, so that it says what the API really does.

Added: the bearer token, the problem answers that every operation can give, bodies read by `JsonBody`, the
Idempotency-Key header. Removed: FastAPI's own validation answer, which nobody gets.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final

from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from pydantic import BaseModel

from runtime.idempotency import IDEMPOTENCY_KEY_PARAMETER, reads_idempotency_key
from runtime.json_body import JsonBody
from runtime.problem import PROBLEM_SCHEMA
from runtime.route import FastRoute, problems

Json = dict[str, Any]

EVERY_OPERATION: Final = (400, 401, 403, 404, 408, 413, 414, 417, 422, 431, 500, 503, 504)
_SCHEMAS: Final = "#/components/schemas/{model}"


def complete_document(document: Json, routes: Iterable[APIRoute]) -> Json:
    """Give the document with what FastAPI cannot know; the argument is changed."""
    components = document.setdefault("components", {})
    schemas = components.setdefault("schemas", {})
    schemas["Problem"] = PROBLEM_SCHEMA
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    components["securitySchemes"] = {"bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}}
    document["security"] = [{"bearer": []}]
    for route in routes:
        for method in route.methods or ():
            _complete_operation(document["paths"][route.path][method.lower()], route, schemas)
    return document


def _complete_operation(operation: Json, route: APIRoute, schemas: Json) -> None:
    responses = operation["responses"]
    responses.update({str(status): answer for status, answer in problems(*EVERY_OPERATION).items()})
    calls = list(_calls_of(route.dependant))
    if any(reads_idempotency_key(call) for call in calls):
        operation.setdefault("parameters", []).append(IDEMPOTENCY_KEY_PARAMETER)
    model = route.body_model if isinstance(route, FastRoute) else None
    for call in calls:
        if isinstance(call, JsonBody):
            model = call.model
    if model is not None:
        responses.update({str(status): answer for status, answer in problems(415).items()})
        operation["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": _schema_of(model, schemas)}},
        }


def _schema_of(model: type[BaseModel], schemas: Json) -> Json:
    schema = model.model_json_schema(ref_template=_SCHEMAS)
    schemas.update(schema.pop("$defs", {}))
    schemas[model.__name__] = schema
    return {"$ref": _SCHEMAS.format(model=model.__name__)}


def _calls_of(dependant: Dependant) -> Iterator[object]:
    yield dependant.call
    for inner in dependant.dependencies:
        yield from _calls_of(inner)


def query_names_of(route: APIRoute) -> frozenset[str]:
    """Name the query parameters that a route declares: in its signature, its dependencies' or its `openapi_extra`."""
    extra = (route.openapi_extra or {}).get("parameters", ())
    declared = (parameter["name"] for parameter in extra if parameter["in"] == "query")
    return frozenset(_query_names(route.dependant)).union(declared)


def _query_names(dependant: Dependant) -> Iterator[str]:
    for parameter in dependant.query_params:
        yield parameter.alias
    for inner in dependant.dependencies:
        yield from _query_names(inner)
