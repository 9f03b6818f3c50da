"""Idempotency keys: their form, and the hash that tells one body from another."""

from __future__ import annotations

import pytest
from starlette.requests import Request

from runtime.idempotency import body_hash, idempotency_key_of
from runtime.json_body import Body
from runtime.problem import Problem


class Order(Body):
    """A body."""

    reward_id: str
    count: int = 1


def _request(*keys: bytes) -> Request:
    return Request({"type": "http", "headers": [(b"idempotency-key", key) for key in keys]})


def test_key_is_read() -> None:
    """One key of unreserved characters is taken as it is."""
    assert idempotency_key_of(_request(b"018f4b8e-aa~._Z")) == "018f4b8e-aa~._Z"


@pytest.mark.parametrize(
    ("keys", "rule"),
    [
        ((), "missing"),
        ((b"12345678", b"12345678"), "given more than once"),
        ((b"1234567",), "string_pattern_mismatch"),
        ((b"1" * 129,), "string_pattern_mismatch"),
        ((b"with space",), "string_pattern_mismatch"),
        ((b"\xff" * 10,), "string_pattern_mismatch"),
    ],
)
def test_key_of_another_form_is_refused(keys: tuple[bytes, ...], rule: str) -> None:
    """A missing, doubled, short, long or odd key is 422 and the rule says which."""
    with pytest.raises(Problem) as caught:
        idempotency_key_of(_request(*keys))
    assert [(error.field, error.rule) for error in caught.value.errors] == [("header.idempotency-key", rule)]


def test_hash_depends_on_content_alone() -> None:
    """Field order and what was left at its default do not change the hash; any value does."""
    order = Order(reward_id="rw-1")
    assert body_hash(order) == body_hash({"count": 1, "reward_id": "rw-1"})
    assert body_hash(order) != body_hash(Order(reward_id="rw-1", count=2))
    assert body_hash(None) != body_hash({})
    assert len(body_hash(order)) == 32
