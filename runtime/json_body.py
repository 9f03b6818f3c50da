"""Strict JSON bodies: decided before any write, the same input always gets the same answer.

Refused: another media type or encoding (415), too many bytes (413), text that is no UTF-8 JSON, NaN and infinity,
numbers a double cannot hold, doubled keys, NUL, lone surrogates, deep nesting, objects of more than a hundred members
(400), unknown fields, loose types (422).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Annotated, Any, Final, Generic, NoReturn, TypeVar

from fastapi import Depends
from pydantic import AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic_core import PydanticCustomError
from starlette.requests import Request

from runtime.problem import FieldError, Problem, unprocessable

BODY_BYTES_MAX: Final = 65_536
DEPTH_MAX: Final = 16
MEMBERS_MAX: Final = 100
"""Of one object: a member that no model knows costs far more than its parsing, and 64 KiB of them held the loop."""
_MEDIA_TYPE: Final = re.compile(
    r'application/json[ \t]*(;[ \t]*charset[ \t]*=[ \t]*("utf-8"|utf-8)[ \t]*)?', re.IGNORECASE
)
_TIMES_BEGIN: Final = datetime(2000, 1, 1, tzinfo=UTC)
_TIMES_END: Final = datetime(3000, 1, 1, tzinfo=UTC)
# Hours and minutes are spelt out: the parser takes an offset of 99 minutes, and the hour 24 from Python 3.14 on.
_HOUR_MINUTE: Final = r"([01]\d|2[0-3]):[0-5]\d"
_TIME: Final = re.compile(rf"2\d{{3}}-\d\d-\d\dT{_HOUR_MINUTE}:[0-5]\d(\.\d{{1,6}})?(Z|[+-]{_HOUR_MINUTE})", re.ASCII)

Model = TypeVar("Model", bound=BaseModel)


def _parse_time(value: object) -> object:
    # Parsed here, since a strict datetime behind a validator takes no text; a number stays one, and is refused.
    if isinstance(value, str):
        try:
            time = datetime.fromisoformat(value) if _TIME.fullmatch(value) else _no_time()
        except ValueError:
            _no_time()
        # An offset can carry a year as written past the bounds, and answers are in UTC.
        return time if _TIMES_BEGIN <= time < _TIMES_END else _no_time()
    return value


def _no_time() -> NoReturn:
    raise PydanticCustomError("timestamp", "not RFC 3339 with an offset, from 2000 to 2999")


Timestamp = Annotated[
    AwareDatetime, BeforeValidator(_parse_time), Field(json_schema_extra={"pattern": f"^{_TIME.pattern}$"})
]
"""The one time format: RFC 3339, `T` between date and time, an offset or Z, at most microseconds.

From 2000 to 2999, as it is written and in UTC too.
"""


class Body(BaseModel):
    """Base of every request body: frozen, no unknown fields, no conversions between kinds, no value in its errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, hide_input_in_errors=True)


class JsonBody(Generic[Model]):
    """Read and check a request's body as one model; usable as a FastAPI dependency (see `json_body`) or called plainly.

    Args:
        model: the body's class; must forbid unknown fields.
        bytes_max: how many bytes a body may have; the server's own limit comes first.

    Raises:
        ValueError: the model lets unknown fields through.
    """

    def __init__(self, model: type[Model], *, bytes_max: int = BODY_BYTES_MAX) -> None:
        if model.model_config.get("extra") != "forbid":
            raise ValueError(f"{model.__name__} must forbid unknown fields")
        self.model = model
        self._bytes_max = bytes_max
        self._names = frozenset(_property_names(model.model_json_schema()))

    async def __call__(self, request: Request) -> Model:
        """Give the validated body.

        Raises:
            Problem: 400, 413, 415 or 422.
        """
        _check_media_type(request)
        body = await _read(request, self._bytes_max)
        check_json(body)
        try:
            return self.model.model_validate_json(body, strict=True)
        except ValidationError as error:
            raise unprocessable(self._field_errors(error)) from None

    def _field_errors(self, error: ValidationError) -> Iterator[FieldError]:
        for detail in error.errors(include_url=False, include_context=False, include_input=False):
            # A name that the client made up is its input too, and is not repeated.
            place = [str(part) if isinstance(part, int) or part in self._names else "?" for part in detail["loc"]]
            yield FieldError(".".join(["body", *place]), detail["type"])


def json_body(model: type[Model], *, bytes_max: int = BODY_BYTES_MAX) -> Any:  # noqa: ANN401 - what Depends() gives
    """Make the dependency for a handler's body, which `build_api` also documents.

    It is used as `body: Annotated[Redeem, json_body(Redeem)]`.
    """
    return Depends(JsonBody(model, bytes_max=bytes_max))


def check_json(body: bytes) -> None:
    """Check that bytes are one strict JSON text.

    Raises:
        Problem: 400 with the code `malformed-json`, whatever was wrong.
    """
    try:
        tree = json.loads(
            body.decode("utf-8", "strict"),
            object_pairs_hook=_object,
            parse_constant=_refuse,
            parse_float=_float,
        )
        _check_tree(tree, 1)
    except (ValueError, RecursionError):
        raise Problem(400, "malformed-json") from None


def _check_media_type(request: Request) -> None:
    types = request.headers.getlist("content-type")
    if len(types) != 1 or not _MEDIA_TYPE.fullmatch(types[0].strip()):
        raise Problem(415, "unsupported-media-type", "The body must be application/json.")
    if any(encoding.strip().lower() != "identity" for encoding in request.headers.getlist("content-encoding")):
        raise Problem(
            415, "unsupported-media-type", "The body must not be encoded.", headers={"accept-encoding": "identity"}
        )


async def _read(request: Request, bytes_max: int) -> bytes:
    chunks: list[bytes] = []
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > bytes_max:
            raise Problem(413, "body-too-large", headers={"connection": "close"})
        chunks.append(chunk)
    return b"".join(chunks)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(pairs) > MEMBERS_MAX:
        raise ValueError("too many members")
    content = dict(pairs)
    if len(content) != len(pairs):
        raise ValueError("doubled key")
    return content


def _refuse(_: str) -> NoReturn:
    raise ValueError("not a JSON number")


def _float(text: str) -> float:
    number = float(text)
    if number in (float("inf"), float("-inf")):
        raise ValueError("number out of range")
    return number


def _check_tree(value: object, depth: int) -> None:
    if isinstance(value, str):
        _check_text(value)
    elif isinstance(value, dict | list):
        if depth > DEPTH_MAX:
            raise ValueError("too deep")
        if isinstance(value, dict):
            for key, item in value.items():
                _check_text(key)
                _check_tree(item, depth + 1)
        else:
            for item in value:
                _check_tree(item, depth + 1)


def _check_text(text: str) -> None:
    if "\0" in text:
        raise ValueError("NUL")
    text.encode()  # a lone surrogate has no UTF-8


def _property_names(schema: object) -> Iterator[str]:
    if isinstance(schema, dict):
        properties = schema.get("properties")
        if isinstance(properties, dict):
            yield from properties
        for part in schema.values():
            yield from _property_names(part)
    elif isinstance(schema, list):
        for part in schema:
            yield from _property_names(part)
