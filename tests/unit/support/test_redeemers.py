"""What the members of a shop take for an answer that they may be given."""

import httpx
import pytest

from tests.support.redeemers import KNOWN, outcome


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (httpx.Response(201, json={}), "201"),
        (httpx.Response(503, json={"code": "overloaded"}, headers={"retry-after": "1"}), "503 overloaded"),
        (httpx.Response(504, json={"code": "deadline-exceeded"}), "504 deadline-exceeded"),
    ],
)
def test_order_and_being_told_to_come_again_are_known(answer: httpx.Response, text: str) -> None:
    """A status with the problem's code."""
    assert outcome(answer) == text
    assert text in KNOWN


@pytest.mark.parametrize(
    "answer", [httpx.Response(500, json={"code": "internal"}), httpx.Response(503, json={"code": "overloaded"})]
)
def test_internal_error_and_a_503_that_does_not_say_when_to_come_again_are_not(answer: httpx.Response) -> None:
    """Neither may ever be given for the database's sake."""
    assert outcome(answer) not in KNOWN
