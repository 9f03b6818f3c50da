"""Idempotency keys fold into locks of their own, and only a success is kept."""

import pytest

from runtime.stored_answer import IdempotencyKey, StoredAnswer


def test_keys_that_differ_anywhere_have_locks_of_their_own() -> None:
    """The parts are told apart by their lengths, so moving a letter from one to the next makes another key."""
    keys = [
        IdempotencyKey(subject, route, key, b"")
        for subject, route, key in [("a", "b", "c"), ("ab", "", "c"), ("a", "bc", ""), ("", "ab", "c"), ("a", "", "bc")]
    ]

    assert len({key.lock_number() for key in keys}) == len(keys)


def test_body_plays_no_part_in_the_lock() -> None:
    """Two requests with one key meet, whatever they ask for: the one that comes second must see the first."""
    first, second = (IdempotencyKey("a", "b", "c", body).lock_number() for body in (b"1", b"2"))

    assert first == second


def test_locks_fit_a_signed_bigint() -> None:
    """Every number is one that Postgres takes, and both signs occur."""
    numbers = [IdempotencyKey("a", "b", str(number), b"").lock_number() for number in range(1_000)]

    assert all(-(2**63) <= number < 2**63 for number in numbers)
    assert min(numbers) < 0 < max(numbers)


@pytest.mark.parametrize("status", [199, 300, 409, 500])
def test_answer_that_is_no_success_cannot_be_stored(status: int) -> None:
    """A refusal is decided anew each time; keeping one is a mistake in the caller, found before the database is."""
    with pytest.raises(ValueError, match="200 to 299"):
        StoredAnswer(status, b"")


@pytest.mark.parametrize("status", [200, 201, 299])
def test_success_can_be_stored(status: int) -> None:
    """Both ends of the range belong to it."""
    assert StoredAnswer(status, b"{}").body == b"{}"
