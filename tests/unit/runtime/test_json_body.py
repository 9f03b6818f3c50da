"""Strict JSON bodies: what is refused, with which status, and that no value comes back."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from uuid import UUID

import pytest
from pydantic import BaseModel, Field
from starlette.requests import Request
from starlette.types import Message

from runtime.json_body import Body, JsonBody, Timestamp, check_json
from runtime.problem import FieldError, Problem


class Inner(Body):
    """A part."""

    name: str = Field(min_length=1, max_length=5)


class Order(Body):
    """A body with every kind of field."""

    count: int = Field(ge=1, le=1000)
    inner: Inner
    id: UUID | None = None
    at: Timestamp | None = None
    is_gift: bool = False
    tags: tuple[str, ...] = ()


GOOD = {"count": 7, "inner": {"name": "abc"}}


def _request(body: bytes, *headers: tuple[bytes, bytes], pieces: int = 1) -> Request:
    size = max(1, -(-len(body) // pieces))
    parts = [body[start : start + size] for start in range(0, len(body), size)] or [b""]

    async def receive() -> Message:
        return {"type": "http.request", "body": parts.pop(0), "more_body": bool(parts)}

    chosen = headers or ((b"content-type", b"application/json"),)
    return Request({"type": "http", "method": "POST", "headers": list(chosen)}, receive)


async def _problem(body: object, *headers: tuple[bytes, bytes]) -> Problem:
    text = body if isinstance(body, bytes) else json.dumps(body).encode()
    with pytest.raises(Problem) as caught:
        await JsonBody(Order)(_request(text, *headers))
    return caught.value


async def test_good_body_becomes_the_model() -> None:
    """Each field arrives in its own type, however many pieces the body came in."""
    text = json.dumps({**GOOD, "id": "018f4b8e-0000-7000-8000-000000000000", "at": "2026-11-24T10:00:00.5+01:00"})
    order = await JsonBody(Order)(_request(text.encode(), pieces=7))
    assert order.id == UUID("018f4b8e-0000-7000-8000-000000000000")
    assert order.at == datetime(2026, 11, 24, 9, 0, 0, 500_000, UTC)
    assert order.inner.name == "abc"


@pytest.mark.parametrize(
    ("body", "field", "rule"),
    [
        pytest.param({**GOOD, "count": True}, "body.count", "int_type", id="true for 1"),
        pytest.param({**GOOD, "count": "7"}, "body.count", "int_type", id="text for 7"),
        pytest.param({**GOOD, "count": 7.5}, "body.count", "int_type", id="fraction"),
        pytest.param({**GOOD, "count": 10**30}, "body.count", "less_than_equal", id="number too large"),
        pytest.param({**GOOD, "count": 0}, "body.count", "greater_than_equal", id="number too small"),
        pytest.param({"count": 7}, "body.inner", "missing", id="missing"),
        pytest.param({**GOOD, "inner": {"name": ""}}, "body.inner.name", "string_too_short", id="empty text"),
        pytest.param({**GOOD, "inner": {"name": "abcdef"}}, "body.inner.name", "string_too_long", id="long text"),
        pytest.param({**GOOD, "secret-name": 1}, "body.?", "extra_forbidden", id="unknown field"),
        pytest.param({**GOOD, "at": "2026-11-24T10:00:00"}, "body.at", "timestamp", id="time without offset"),
        pytest.param({**GOOD, "at": "2026-11-24 10:00:00Z"}, "body.at", "timestamp", id="time with a space"),
        pytest.param({**GOOD, "at": "0001-01-01T00:00:00+23:59"}, "body.at", "timestamp", id="year 1"),
        pytest.param({**GOOD, "at": "2000-01-01T00:00:00+23:59"}, "body.at", "timestamp", id="1999 in UTC"),
        pytest.param({**GOOD, "at": "2999-12-31T23:59:59-00:01"}, "body.at", "timestamp", id="3000 in UTC"),
        pytest.param({**GOOD, "at": "2026-02-30T10:00:00Z"}, "body.at", "timestamp", id="no such day"),
        pytest.param({**GOOD, "at": "2026-11-24T24:00:00Z"}, "body.at", "timestamp", id="hour 24"),
        pytest.param({**GOOD, "at": "2026-11-24T10:00:00+00:99"}, "body.at", "timestamp", id="offset of 99 minutes"),
        pytest.param({**GOOD, "at": 1764000000}, "body.at", "datetime_type", id="time as a number"),
        pytest.param([1], "body", "model_type", id="an array"),
        pytest.param(None, "body", "model_type", id="null"),
    ],
)
async def test_wrong_field_is_named_with_its_rule_and_never_its_value(body: object, field: str, rule: str) -> None:
    """The answer is 422 and names field and rule; a name the client made up is not repeated either."""
    problem = await _problem(body)
    assert (problem.status, problem.code) == (422, "invalid-request")
    assert FieldError(field, rule) in problem.errors
    assert b"secret" not in problem.body()


async def test_many_unknown_fields_are_one_line_of_the_answer() -> None:
    """The answer to a small body is small, whatever the body makes wrong how often."""
    problem = await _problem({**GOOD, **{str(number): 1 for number in range(100 - len(GOOD))}})
    assert problem.errors == (FieldError("body.?", "extra_forbidden"),)


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"{", id="unfinished"),
        pytest.param(b"{} {}", id="two texts"),
        pytest.param(b"\xff\xfe{\0}\0", id="UTF-16"),
        pytest.param(b"\xef\xbb\xbf{}", id="byte-order mark"),
        pytest.param(b'{"a": NaN}', id="NaN"),
        pytest.param(b'{"a": -Infinity}', id="infinity"),
        pytest.param(b'{"a": 1e999}', id="beyond a double"),
        pytest.param(b'{"a": 1, "a": 1}', id="doubled key"),
        pytest.param(b'{"b": [{"a": 1, "a": 2}]}', id="doubled key inside"),
        pytest.param(b'{"a": "\\u0000"}', id="NUL"),
        pytest.param(b'{"\\u0000": 1}', id="NUL in a key"),
        pytest.param(b'{"a": "\\ud800"}', id="lone surrogate"),
        pytest.param(b'{"a": "\xff"}', id="not UTF-8"),
        pytest.param(b"[" * 17 + b"]" * 17, id="too deep"),
        pytest.param(json.dumps({**GOOD, **dict.fromkeys(map(str, range(100)))}).encode(), id="too many members"),
        pytest.param(json.dumps([dict.fromkeys(map(str, range(101)))]).encode(), id="too many members inside"),
        pytest.param(b"[" * 60_000, id="far too deep"),
        pytest.param(b"1" * 5000, id="number of 5000 digits"),
        pytest.param(b'{"a": \x01}', id="control character"),
    ],
)
async def test_text_that_is_no_strict_json_is_refused(body: bytes) -> None:
    """Whatever is wrong with the text, the answer is 400 and the same."""
    problem = await _problem(body)
    assert (problem.status, problem.code, problem.errors) == (400, "malformed-json", ())


def test_nesting_up_to_the_cap_is_taken() -> None:
    """Sixteen levels are fine."""
    check_json(b"[" * 16 + b"]" * 16)


@pytest.mark.parametrize(
    "headers",
    [
        ((b"x", b"y"),),
        ((b"content-type", b"text/plain"),),
        ((b"content-type", b"application/json; charset=latin-1"),),
        ((b"content-type", b"application/jsonp"),),
        ((b"content-type", b"application/json"), (b"content-type", b"application/json")),
        ((b"content-type", b'application/json; charset="utf-8'),),
        ((b"content-type", b"application/json"), (b"content-encoding", b"gzip")),
        ((b"content-type", b"application/json"), (b"content-encoding", b"identity"), (b"content-encoding", b"gzip")),
    ],
)
async def test_other_media_types_and_encodings_are_refused(headers: tuple[tuple[bytes, bytes], ...]) -> None:
    """Only one content-type, JSON in UTF-8, not compressed."""
    problem = await _problem(GOOD, *headers)
    assert (problem.status, problem.code) == (415, "unsupported-media-type")


@pytest.mark.parametrize("media_type", [b"Application/JSON", b'application/json ; charset="UTF-8"'])
async def test_spellings_of_the_media_type_are_taken(media_type: bytes) -> None:
    """Case and a UTF-8 charset do not matter."""
    order = await JsonBody(Order)(_request(json.dumps(GOOD).encode(), (b"content-type", media_type)))
    assert order.count == 7


async def test_body_beyond_its_limit_is_refused_while_it_is_read() -> None:
    """413 comes as soon as too much was read, whatever the length header said."""
    read = JsonBody(Order, bytes_max=100)
    with pytest.raises(Problem, match="413"):
        await read(_request(b" " * 101, pieces=10))


def test_model_that_lets_unknown_fields_through_is_refused() -> None:
    """A model that ignores what it does not know cannot be a body."""

    class Loose(BaseModel):
        pass

    with pytest.raises(ValueError, match="unknown fields"):
        JsonBody(Loose)
