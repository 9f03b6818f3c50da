"""How long Salesforce is left alone, and what it may ask for."""

import asyncio
import random
from collections.abc import Coroutine
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from hypothesis import strategies as st

from patterns.bubble import bubble
from services.consent_consumer.errors import SalesforceDenied, SalesforceUnavailable
from services.consent_consumer.salesforce_http import retry_after_seconds
from services.consent_consumer.salesforce_pause import Pause
from services.consent_consumer.salesforce_settings import SalesforceSettings
from tests.support.running_loop import now
from tests.unit.services.consent_consumer.salesforce_fake import fake_settings

NOW = datetime(2026, 11, 29, 10, 0, 0, tzinfo=UTC)


@pytest.fixture
def settings(tmp_path: Path) -> SalesforceSettings:
    """Pauses of 1 to 8 s, of at most 300 s if Salesforce asks for more, of 60 s when it denies its service."""
    return fake_settings(
        tmp_path,
        backoff_first_seconds=1,
        backoff_most_seconds=8,
        retry_after_most_seconds=300,
        denied_pause_seconds=60,
    )


def run(scene: Coroutine[Any, Any, None]) -> None:
    """Run a scene in virtual time."""

    async def main() -> None:
        await scene

    bubble(main)


def test_a_pause_holds_all_calls_until_it_is_over(settings: SalesforceSettings) -> None:
    """Nobody may call before its end, everybody after, and the error says how long it is until then."""

    async def scene() -> None:
        pause = Pause(settings)
        pause.check()
        error = pause.fail("answered 503", began=now())
        assert 0.5 <= error.retry_after_seconds <= 1
        await asyncio.sleep(error.retry_after_seconds - 0.25)
        with pytest.raises(SalesforceUnavailable, match="paused: answered 503") as caught:
            pause.check()
        assert caught.value.retry_after_seconds == pytest.approx(0.25)
        await asyncio.sleep(0.25)
        pause.check()
        assert pause.seconds == 0

    run(scene())


def test_pauses_double_up_to_their_cap_and_begin_anew_after_a_success(settings: SalesforceSettings) -> None:
    """Each is a random half to whole of twice the one before it."""

    async def scene() -> None:
        pause = Pause(settings, rng=random.Random(7))
        seconds = []
        for _ in range(6):
            seconds.append(pause.fail("down", began=now()).retry_after_seconds)
            await asyncio.sleep(seconds[-1])
        for found, whole in zip(seconds, (1, 2, 4, 8, 8, 8), strict=True):
            assert whole / 2 <= found <= whole
        assert seconds[3] != seconds[4] != seconds[5]
        pause.settle(began=now())
        assert pause.fail("down", began=now()).retry_after_seconds <= 1

    run(scene())


def test_calls_that_fail_side_by_side_are_one_failure(settings: SalesforceSettings) -> None:
    """A hundred calls that were under way make the pause no longer than one of them, and a late success no shorter."""

    async def scene() -> None:
        pause = Pause(settings)
        began = now()
        await asyncio.sleep(1)
        for _ in range(100):
            assert pause.fail("down", began=began).retry_after_seconds <= 1
        pause.settle(began=began)
        await asyncio.sleep(1)
        assert 1 <= pause.fail("down", began=now()).retry_after_seconds <= 2

    run(scene())


@pytest.mark.parametrize(
    ("wanted", "least", "most"),
    [(0, 0.5, 1), (0.001, 0.5, 1), (20, 20, 22), (86_400, 300, 300), (float("inf"), 300, 300)],
)
def test_what_salesforce_asks_for_counts_within_bounds(
    settings: SalesforceSettings, wanted: float, least: float, most: float
) -> None:
    """It is waited for as long as asked, and up to a tenth longer; never less than without it, never above the cap."""

    async def scene() -> None:
        error = Pause(settings).fail("answered 503", began=now(), retry_after_seconds=wanted)
        assert least <= error.retry_after_seconds <= most

    run(scene())


def test_a_pause_never_becomes_shorter(settings: SalesforceSettings) -> None:
    """A failure that asks for less, or for nothing, changes nothing; one that asks for more does."""

    async def scene() -> None:
        pause = Pause(settings)
        began = now()
        pause.fail("one", began=began, retry_after_seconds=100)
        assert pause.fail("two", began=began).retry_after_seconds >= 100
        with pytest.raises(SalesforceUnavailable, match="one"):
            pause.check()
        pause.fail("three", began=began, retry_after_seconds=200)
        assert pause.seconds >= 200

    run(scene())


def test_a_denied_service_is_told_as_such_until_its_pause_is_over(settings: SalesforceSettings) -> None:
    """The class stays that of the refusal, whatever else fails meanwhile; a later, plain failure is a plain one."""

    async def scene() -> None:
        pause = Pause(settings)
        assert pause.deny("refused").retry_after_seconds == 60
        pause.fail("down", began=now())
        with pytest.raises(SalesforceDenied, match="paused: refused"):
            pause.check()
        await asyncio.sleep(60)
        pause.check()
        pause.fail("down", began=now())
        with pytest.raises(SalesforceUnavailable) as caught:
            pause.check()
        assert type(caught.value) is SalesforceUnavailable

    run(scene())


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0),
        ("7", 7),
        ("86400", 86_400),
        ("9" * 400, float("inf")),
        ("Sun, 29 Nov 2026 10:00:30 GMT", 30),
        ("Sunday, 29-Nov-26 10:00:30 GMT", 30),
        ("Sun, 29 Nov 2026 09:00:00 GMT", 0),
        ("Sun, 29 Nov 2026 10:00:30 -0000", None),
        ("", None),
        ("soon", None),
        ("-1", None),
        ("1e999", None),
        ("1.5", None),
        ("٣", None),
        ("Sun, 99 Nov 2026 10:00:30 GMT", None),
    ],
)
def test_a_retry_after_is_seconds_or_a_date_or_nonsense(text: str, seconds: float | None) -> None:
    """Both forms of RFC 9110 are read, a time that is past is now, and anything else is as if it were not there."""
    assert retry_after_seconds(text, NOW) == seconds


@hypothesis.given(text=st.text() | st.from_regex(r"[A-Z][a-z]{2}, [0-9]{1,9} [A-Z][a-z]{2} [0-9]{1,9} [0-9:]{1,12}"))
def test_no_retry_after_raises(text: str) -> None:
    """Whatever text it is, it gives no seconds or some that are not negative."""
    seconds = retry_after_seconds(text, NOW)
    assert seconds is None or seconds >= 0


@hypothesis.given(seconds=st.integers(0, 10**6))
def test_a_date_is_as_far_away_as_it_says(seconds: int) -> None:
    """To the second."""
    at = NOW + timedelta(seconds=seconds)
    assert retry_after_seconds(at.strftime("%a, %d %b %Y %H:%M:%S GMT"), NOW) == seconds
