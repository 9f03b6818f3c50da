"""Problems over HTTP: stable codes, nothing of the input, and a table from errors to answers."""

import json

import pytest

from runtime.errors import DependencyUnavailable
from runtime.problem import FieldError, Problem, ProblemTable, overloaded, title_of, unprocessable


class _DomainError(Exception):
    """A fault of the business."""


class _NarrowError(_DomainError):
    """A special case of it."""


def test_body_has_what_rfc_9457_asks_and_leaves_out_what_is_empty() -> None:
    """A plain problem says type, title, status and code; the rest appears only where there is something to say."""
    assert json.loads(Problem(404, "not-found").body()) == {
        "type": "about:blank", "title": "Not Found", "status": 404, "code": "not-found",
    }  # fmt: skip
    full = Problem(422, "invalid-request", "A sentence.", errors=[FieldError("body.name", "missing")])
    assert json.loads(full.body("id-1")) == {
        "type": "about:blank", "title": "Unprocessable Content", "status": 422, "code": "invalid-request",
        "detail": "A sentence.", "errors": [{"field": "body.name", "rule": "missing"}], "request_id": "id-1",
    }  # fmt: skip


def test_headers_name_the_media_type_and_the_length() -> None:
    """A problem's headers have its media type, length, and what was given besides."""
    body = b"{}"
    assert overloaded(3).raw_headers(body) == [
        (b"content-type", b"application/problem+json"),
        (b"content-length", b"2"),
        (b"cache-control", b"no-store"),
        (b"retry-after", b"3"),
    ]


@pytest.mark.parametrize(("status", "code"), [(200, "fine"), (600, "x"), (404, "Not-Found"), (404, "a b"), (404, "")])
def test_wrong_status_or_code_is_refused(status: int, code: str) -> None:
    """A problem that is no error, or whose code is not kebab-case, cannot be made."""
    with pytest.raises(ValueError, match="must be"):
        Problem(status, code)


def test_table_finds_the_nearest_ancestor() -> None:
    """The narrowest class that the table knows decides; an unknown error has no answer; a problem is its own."""
    table = ProblemTable({_DomainError: (409, "wide"), _NarrowError: (503, "narrow")}, retry_after_seconds=7)
    narrow, wide = table.find(_NarrowError()), table.find(_DomainError())
    assert narrow is not None
    assert wide is not None
    assert (narrow.code, narrow.headers) == ("narrow", {"retry-after": "7"})
    assert (wide.code, wide.headers) == ("wide", {})
    assert table.find(RuntimeError()) is None
    problem = unprocessable([FieldError("query", "unknown parameter")])
    assert table.find(problem) is problem


@pytest.mark.parametrize(("asked", "told"), [(1.0, "7"), (7.2, "8"), (60.0, "60")])
def test_client_is_told_to_wait_as_long_as_the_dependency_needs(asked: float, told: str) -> None:
    """The setting is the least; an error that asks for more gets whole seconds."""
    table = ProblemTable({DependencyUnavailable: (503, "away")}, retry_after_seconds=7)
    away = table.find(DependencyUnavailable("postgres", "down", retry_after_seconds=asked))
    assert away is not None
    assert away.headers == {"retry-after": told}


def test_table_with_a_bad_code_is_refused_when_it_is_built() -> None:
    """A mistake in the table is found at the start and not at the first error."""
    with pytest.raises(ValueError, match="kebab-case"):
        ProblemTable({_DomainError: (409, "Not Kebab")})


def test_title_of_an_unregistered_status_is_plain() -> None:
    """A status without a phrase is an Error."""
    assert (title_of(503), title_of(599)) == ("Service Unavailable", "Error")
