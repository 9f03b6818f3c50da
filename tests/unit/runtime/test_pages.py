"""Cursor pages: round trips, and every spelling that we did not make is refused."""

from __future__ import annotations

import base64

import pytest
from starlette.requests import Request

from runtime.pages import LIMIT_DEFAULT, LIMIT_MAX, Page, decode_cursor, encode_cursor, page_of
from runtime.problem import Problem


def _request(query: bytes) -> Request:
    return Request({"type": "http", "query_string": query, "headers": []})


def _text(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


@pytest.mark.parametrize("parts", [("rw-1",), ("2026-11-24T00:00:00Z", "Ü"), (0,), (-5, "x", 2**62)])
def test_cursor_comes_back_as_it_went(parts: tuple[str | int, ...]) -> None:
    """Decoding gives the very parts that were encoded."""
    assert decode_cursor(encode_cursor(parts), [type(part) for part in parts]) == parts


@pytest.mark.parametrize(
    "text",
    [
        "", "!", "a", "====", _text(b"[1]"), _text(b'["a","b"]'), _text(b'{"a":1}'), _text(b"[true]"), _text(b"[null]"),
        _text(b'["a\\u0000"]'), _text(b'[ "a"]'), _text(b'["a"]') + "=", _text(b"\xff\xff"), "A" * 600, "WyJhIl0\n",
    ],
)  # fmt: skip
def test_cursor_of_another_making_is_refused(text: str) -> None:
    """Whatever encode_cursor would not have made for these kinds is 422."""
    with pytest.raises(Problem, match="422"):
        decode_cursor(text, (str,))


def test_cursor_with_a_number_beyond_the_database_is_refused() -> None:
    """A number that fits no bigint cannot reach a query."""
    with pytest.raises(Problem, match="422"):
        decode_cursor(encode_cursor((2**63,)), (int,))


def test_page_without_a_query_is_the_first_of_the_usual_size() -> None:
    """No parameter: from the start, the default limit."""
    assert page_of(_request(b""), (str,)) == Page(LIMIT_DEFAULT, None)


def test_page_reads_limit_and_cursor() -> None:
    """Both parameters are read, in any order."""
    cursor = encode_cursor(("rw-7",)).encode()
    assert page_of(_request(b"cursor=" + cursor + b"&limit=3"), (str,)) == Page(3, ("rw-7",))
    assert page_of(_request(b"limit=%d" % LIMIT_MAX), (str,)).limit == LIMIT_MAX


@pytest.mark.parametrize(
    "query",
    [
        b"limit=0", b"limit=%d" % (LIMIT_MAX + 1), b"limit=", b"limit=1.0", b"limit=+1", b"limit=%201", b"limit=01",
        b"limit=-1", b"limit=\xd9\xa1", b"limit=%D9%A1",
        b"limit=1e1", b"limit", b"cursor=", b"cursor=%00", b"limit=%FF",
        b"&".join([b"limit=1"] * 40),
    ],
)  # fmt: skip
def test_page_outside_the_rules_is_refused(query: bytes) -> None:
    """A limit that is no plain number in range, a broken cursor or a broken query is 422."""
    with pytest.raises(Problem, match="422"):
        page_of(_request(query), (str,))
