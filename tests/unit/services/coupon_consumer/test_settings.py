"""Settings are checked against each other, all problems at once; the command line is strict."""

import argparse

import pytest
from pydantic import ValidationError

from runtime.consumer_settings import ConsumerSettings
from runtime.errors import SettingsError
from runtime.settings import load_settings
from services.coupon_consumer.commands import build_parser
from services.coupon_consumer.settings import BreakerSettings, CouponConsumerSettings, DeadLetterSettings, RetrySettings

GOOD = {
    "COUPON_CONSUMER_POSTGRES__DATABASE": "coupons",
    "COUPON_CONSUMER_POSTGRES__USER": "coupon_consumer",
    "COUPON_CONSUMER_KAFKA__BOOTSTRAP": "127.0.0.1:9092",
}


def load(monkeypatch: pytest.MonkeyPatch, **variables: str) -> CouponConsumerSettings:
    """Load the settings from the good ones and these."""
    for name, value in {**GOOD, **{f"COUPON_CONSUMER_{name}": value for name, value in variables.items()}}.items():
        monkeypatch.setenv(name, value)
    return load_settings(CouponConsumerSettings)


def test_three_variables_are_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything else has a default, and the defaults agree with each other."""
    settings = load(monkeypatch)
    assert (settings.start, settings.consumer.group, settings.crash.point) == ("earliest", "coupon-consumer", None)


def test_all_problems_are_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Contradictions, a mistyped name and an armed crash point outside a test are told in one message."""
    with pytest.raises(SettingsError) as raised:
        load(
            monkeypatch,
            CONSUMER__REVOKE_WAIT_SECONDS="70",
            BREAKER__RECORDS_MIN="5000",
            RETRY__FIRST_SECONDS="0.1",
            CRASH__POINT="after-poll",
            STRAT="latest",
        )
    text = str(raised.value)
    for part in (
        "20% of max_poll_interval",
        "records_min",
        "FIRST_SECONDS",
        "for tests only",
        "mean COUPON_CONSUMER_START",
    ):
        assert part in text


@pytest.mark.parametrize(
    ("section", "fields"),
    [
        (ConsumerSettings, {"session_timeout_seconds": 400}),
        (ConsumerSettings, {"revoke_wait_seconds": 10, "close_timeout_seconds": 10}),
        (RetrySettings, {"first_seconds": 9, "most_seconds": 4}),
        (BreakerSettings, {"pause_first_seconds": 600}),
        (DeadLetterSettings, {"rows_per_run": 10}),
    ],
)
def test_contradiction_within_a_section_is_refused(section: type, fields: dict[str, float]) -> None:
    """Times and bounds that cannot both hold are an error."""
    with pytest.raises(ValidationError):
        section(**fields)


def test_chunk_larger_than_a_batch_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is read at once must fit what is stored at once; the looks must be more frequent than the alarm."""
    with pytest.raises(SettingsError, match=r"chunk_records[\s\S]*check_seconds"):
        load(monkeypatch, BATCH_RECORDS="500", CHECK_SECONDS="60")


def test_tries_and_closing_must_fit_the_grace_period(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stop may have to wait for a whole try before it leaves the group."""
    with pytest.raises(SettingsError, match="try_timeout_seconds and closing"):
        load(monkeypatch, TRY_TIMEOUT_SECONDS="20", GRACE_SECONDS="30")
    with pytest.raises(SettingsError, match="less than the postgres statement_timeout"):
        load(monkeypatch, TRY_TIMEOUT_SECONDS="2")


@pytest.mark.parametrize(
    "line",
    [
        "reset-offsets",
        "reset-offsets --to yesterday",
        "reset-offsets --to 2026-01-01T00:00:00",
        "reset-offsets --to -5",
        "dead-letters",
        "dead-letters replay",
        "dead-letters show 7",
        "dead-letters list --limit 0",
        "dead-letters replay --all --class X",
    ],
)
def test_command_line_that_means_nothing_is_refused(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The status is 2 and the usage is told; nothing is guessed."""
    with pytest.raises(SystemExit) as raised:
        build_parser().parse_args(line.split())
    assert raised.value.code == 2
    assert "usage" in capsys.readouterr().err


def test_targets_of_a_reset_are_told_apart() -> None:
    """A word, an offset and a time each mean what they say."""

    def target(text: str) -> argparse.Namespace:
        return build_parser().parse_args(["reset-offsets", "--to", text]).to  # type: ignore[no-any-return] # argparse's

    assert target("earliest") == "earliest"
    assert target("42") == 42
    assert str(target("2026-01-01T00:00:00Z")) == "2026-01-01 00:00:00+00:00"
