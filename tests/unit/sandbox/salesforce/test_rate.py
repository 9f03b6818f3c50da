"""The limit on calls a second."""

import pytest

from sandbox.salesforce.rate import CallRate, check_rate


def served(rate: CallRate, *times: float) -> list[bool]:
    """Return which of the calls at these times are served."""
    return [rate.allows(time) for time in times]


def test_without_a_limit_every_call_is_served() -> None:
    """A thousand calls at one moment are served."""
    assert all(served(CallRate(None), *[0.0] * 1_000))


def test_one_seconds_worth_is_served_at_once_and_then_the_rate() -> None:
    """At four a second, four of six calls at once are served, and then one each quarter of a second."""
    rate = CallRate(4)
    assert served(rate, *[10.0] * 6) == [True] * 4 + [False] * 2
    assert served(rate, 10.2, 10.25, 10.3, 10.5) == [False, True, False, True]
    assert served(rate, *[20.0] * 6) == [True] * 4 + [False] * 2


def test_a_rate_below_one_a_second_serves_one_call_and_then_waits() -> None:
    """At one call in two seconds the second one is served after two."""
    assert served(CallRate(0.5), 0.0, 1.9, 2.0, 3.9, 4.0) == [True, False, True, False, True]


def test_the_average_over_a_long_time_is_the_rate() -> None:
    """Of 100 calls a second for 60 seconds, 5 a second are served, and one second's worth more at the beginning."""
    rate = CallRate(5)
    assert sum(served(rate, *(step / 128 for step in range(60 * 128)))) == 60 * 5 + 4


@pytest.mark.parametrize("wrong", [0, -1, 100_001, float("nan"), "5", True, [5]])
def test_a_rate_that_is_none_is_refused(wrong: object) -> None:
    """Only numbers in range and None are rates."""
    with pytest.raises(ValueError, match="calls_per_second"):
        check_rate(wrong)


@pytest.mark.parametrize("right", [None, 0.01, 1, 100_000])
def test_a_rate_in_range_is_taken(right: float | None) -> None:
    """None is no limit; the greatest rate is one."""
    check_rate(right)


@pytest.mark.parametrize("per_second", [0.001, 0.3, 3.0, 7.0, 99.9])
def test_the_limit_is_the_same_at_any_time_of_the_clock(per_second: float) -> None:
    """The first call is always served, and a second's worth at once, however large the clock's numbers are."""
    at_once = max(1, int(per_second))
    for start in range(10_000, 40_000_000, 999_983):
        rate = CallRate(per_second)
        now = start + 0.123456789
        assert [rate.allows(now) for _ in range(at_once + 1)] == [True] * at_once + [False]
