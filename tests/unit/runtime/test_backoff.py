"""Waiting longer after each failure."""

import random

import pytest

from runtime.backoff import Backoff


def test_each_failure_asks_for_a_random_half_to_whole_of_a_doubled_time_within_the_cap() -> None:
    """The n-th wait lies between half and all of first * 2**(n-1), and never above the cap."""
    for seed in range(100):
        backoff = Backoff(0.5, 10.0, rng=random.Random(seed))
        for whole in (0.5, 1, 2, 4, 8, 10, 10, 10):
            assert whole / 2 <= backoff.fail() <= whole


def test_a_success_starts_over() -> None:
    """After a reset the next failure is the first one again."""
    backoff = Backoff(1.0, 60.0)
    for _ in range(5):
        backoff.fail()
    assert backoff.failures == 5
    backoff.reset()
    assert backoff.failures == 0
    assert backoff.fail() <= 1.0


def test_ten_thousand_failures_in_a_row_stay_within_the_cap() -> None:
    """No number of failures overflows."""
    backoff = Backoff(1.0, 60.0)
    assert max(backoff.fail() for _ in range(10_000)) <= 60.0


def test_two_backoffs_do_not_keep_step() -> None:
    """Instances that failed together come back at different times."""
    first, second = Backoff(1.0, 60.0, rng=random.Random(1)), Backoff(1.0, 60.0, rng=random.Random(2))
    assert [first.fail() for _ in range(5)] != [second.fail() for _ in range(5)]


@pytest.mark.parametrize(("first", "most"), [(0.0, 1.0), (-1.0, 1.0), (2.0, 1.0)])
def test_times_out_of_order_are_refused(first: float, most: float) -> None:
    """The constructor names the bound."""
    with pytest.raises(ValueError, match="first_seconds"):
        Backoff(first, most)
