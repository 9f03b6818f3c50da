"""A flood of poison opens the breaker; a healthy batch closes it."""

from services.coupon_consumer.breaker import PoisonBreaker
from services.coupon_consumer.settings import BreakerSettings

SETTINGS = BreakerSettings(window_records=100, records_min=20, poison_share=0.5)


def breaker_after(*batches: tuple[int, int]) -> PoisonBreaker:
    """Return a breaker that has seen these batches of (records, poison)."""
    breaker = PoisonBreaker(SETTINGS)
    for records, poison in batches:
        breaker.observe(records, poison)
    return breaker


def test_some_poison_does_not_open_it() -> None:
    """One in a hundred, or just below the share, is no flood, for however long."""
    assert not breaker_after(*[(100, 1)] * 50).is_open
    assert not breaker_after(*[(100, 49)] * 50).is_open


def test_few_records_do_not_open_it() -> None:
    """Before enough records were seen there is no verdict; with them there is."""
    assert not breaker_after((19, 19)).is_open
    assert breaker_after((19, 19), (1, 1)).is_open


def test_share_of_the_window_opens_it() -> None:
    """Old batches leave the window, so a flood after a long healthy time is seen."""
    healthy = [(10, 0)] * 1_000
    assert not breaker_after(*healthy, *[(10, 10)] * 4).is_open
    assert breaker_after(*healthy, *[(10, 10)] * 5).is_open


def test_it_stays_open_while_the_flood_lasts_and_closes_with_a_healthy_batch() -> None:
    """Only a batch below the share closes it, and then it starts anew."""
    flood = [(100, 100), (10, 5)]
    assert breaker_after(*flood).is_open
    assert not breaker_after(*flood, (10, 4)).is_open
    assert not breaker_after(*flood, (10, 4), (19, 19)).is_open
    assert breaker_after(*flood, (10, 4), (20, 20)).is_open
