"""The same facts, as a table on a terminal and as plain lines elsewhere."""

from dataclasses import replace
from io import StringIO

import pytest
from rich.console import Console

from sandbox.consent_progress import ConsentProgress
from sandbox.observation import Observation
from sandbox.screen import open_screen
from sandbox.traffic import TrafficStatistics

TRAFFIC = TrafficStatistics(
    requests=120,
    answers={"2xx": 100, "4xx": 20},
    failed=3,
    excused=0,
    repeated=0,
    dropped=0,
    in_flight=2,
    redemptions=40,
    on_the_way=5,
    p50_seconds=0.004,
    p99_seconds=None,
)
SEEN = Observation(
    seconds=12.0,
    rate=41.2,
    traffic=TRAFFIC,
    backlog=7,
    redemptions=41,
    cancelling=0,
    lag=None,
    coupons=34,
    loaded=0,
    dead_letters=1,
    consents_written=30,
    consents=ConsentProgress(arrived=11, waiting=0, dead_letters=2),
    instances={"reward_store-1": True, "coupon_consumer-2": False},
)


def test_off_a_terminal_one_plain_line_has_every_fact() -> None:
    """A pipe gets one line a look, without control characters."""
    out = StringIO()
    with open_screen(Console(file=out)) as screen:
        screen.show(SEEN)
        screen.say("something happened")
    state, said = out.getvalue().splitlines()
    assert said == "something happened"
    assert state.isprintable()
    for fact in (
        "time 12 s",
        "requests 120 (41/s; 2xx 100, 4xx 20; 3 failed)",
        "p50 4.0 ms, p99 unknown",
        "redemptions 40",
        "outbox backlog 7",
        "lag unknown",
        "coupons 34",
        "dead letters 1",
        "consents 30 writes; 11 as in Salesforce, 0 waiting, 2 dead",
    ):
        assert fact in state


@pytest.mark.parametrize(
    ("seen", "shown", "hidden"),
    [
        (replace(SEEN, consents_written=None, consents=None), "dead letters 1", "consents"),
        (replace(SEEN, consents=None), "consents 30 writes; how far they have come is unknown", "waiting"),
        (replace(SEEN, traffic=replace(TRAFFIC, excused=4)), "3 failed, 4 excused", "from files"),
        (replace(SEEN, loaded=5), "coupons 34, and 5 from files", "excused"),
    ],
    ids=["no consents", "one of the two does not answer", "excused answers", "a loaded file"],
)
def test_what_is_not_there_is_not_shown_as_nothing(seen: Observation, shown: str, hidden: str) -> None:
    """Unknown is said to be unknown, and a platform without consents has no line for them."""
    out = StringIO()
    with open_screen(Console(file=out)) as screen:
        screen.show(seen)
    assert shown in out.getvalue()
    assert hidden not in out.getvalue()


def test_on_a_terminal_the_table_shows_every_fact_and_instance() -> None:
    """A terminal gets the table, with each instance and whether it is ready."""
    out = StringIO()
    with open_screen(Console(file=out, force_terminal=True, width=160)) as screen:
        screen.show(SEEN)
        screen.say("something happened")
        screen.show(replace(SEEN, lag=9))
    shown = out.getvalue()
    for fact in (
        "120 (41/s",
        "4.0 ms",
        "outbox backlog",
        "● reward_store-1",
        "○ coupon_consumer-2",
        "something happened",
    ):
        assert fact in shown


@pytest.mark.parametrize(
    ("seen", "is_drained"),
    [
        (replace(SEEN, backlog=0, coupons=40), True),
        (replace(SEEN, backlog=1, coupons=41), False),
        (replace(SEEN, backlog=0, coupons=39), False),
        (replace(SEEN, backlog=0, coupons=41, cancelling=1), False),
        (replace(SEEN, backlog=0, coupons=41, consents=ConsentProgress(11, 1, 0)), False),
        (replace(SEEN, backlog=0, coupons=41, consents=None), False),
        (replace(SEEN, backlog=0, coupons=41, consents=None, consents_written=None), True),
    ],
)
def test_drained_means_that_nothing_is_on_its_way(seen: Observation, *, is_drained: bool) -> None:
    """Nothing waits in the outbox, no cancellation is open, every redemption and every consent has arrived."""
    assert seen.is_drained is is_drained
