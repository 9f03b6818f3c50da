"""Settings are checked against each other, all problems at once; how a stream first starts has to be said."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from runtime.errors import SettingsError
from runtime.settings import load_settings
from services.consent_consumer.settings import (
    ConsentConsumerSettings,
    DeadLetterSettings,
    LeaseSettings,
    RetrySettings,
)


@pytest.fixture
def good(tmp_path: Path) -> dict[str, str]:
    """The variables that have no default."""
    secret_file = tmp_path / "secret"
    secret_file.write_text("a secret")
    return {
        "MONGO__DATABASE": "consents",
        "SALESFORCE__URL": "https://example.my.salesforce.com",
        "SALESFORCE__CLIENT_ID": "consents",
        "SALESFORCE__CLIENT_SECRET_FILE": str(secret_file),
        "START": "resync",
    }


def load(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]) -> ConsentConsumerSettings:
    """Load the settings from these variables."""
    for name, value in variables.items():
        monkeypatch.setenv(f"CONSENT_CONSUMER_{name}", value)
    return load_settings(ConsentConsumerSettings)


def test_five_variables_are_enough(monkeypatch: pytest.MonkeyPatch, good: dict[str, str]) -> None:
    """Everything else has a default, the defaults agree with each other, and a lost token ends the process."""
    settings = load(monkeypatch, good)

    assert (settings.start, settings.on_lost_token, settings.batch_events) == ("resync", "fail", 200)
    assert settings.lease.renew_seconds == settings.lease.seconds / 3
    assert settings.crash.point is None
    assert settings.service == "consent-consumer"


def test_first_start_has_to_be_said(monkeypatch: pytest.MonkeyPatch, good: dict[str, str]) -> None:
    """There is no default that would be right: one leaves out what is there, the other sends all of it."""
    del good["START"]
    with pytest.raises(SettingsError, match="CONSENT_CONSUMER_START"):
        load(monkeypatch, good)


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("START", "earliest"),
        ("ON_LOST_TOKEN", "skip"),
        ("BATCH_EVENTS", "201"),
        ("BATCH_EVENTS", "0"),
        ("IN_FLIGHT_MAX", "0"),
        ("LEASE__SECONDS", "0"),
        ("RETRY__LATER_TRIES", "0"),
        ("DEAD_LETTERS__KEEP_SECONDS", "1"),
    ],
)
def test_value_outside_its_bounds_is_refused(
    monkeypatch: pytest.MonkeyPatch, good: dict[str, str], variable: str, value: str
) -> None:
    """Salesforce takes 200 records at most, and to skip is an operator's command, no policy."""
    with pytest.raises(SettingsError, match=f"CONSENT_CONSUMER_{variable}"):
        load(monkeypatch, good | {variable: value})


def test_all_problems_are_named_at_once(monkeypatch: pytest.MonkeyPatch, good: dict[str, str]) -> None:
    """Contradictions, a mistyped name and an armed crash point outside a test are told in one message."""
    with pytest.raises(SettingsError) as raised:
        load(
            monkeypatch,
            good
            | {
                "LEASE__RENEW_SECONDS": "20",
                "RETRY__FIRST_SECONDS": "60",
                "CRASH__POINT": "after-save",
                "STRAT": "now",
            },
        )
    for part in ("half of seconds", "first_seconds is greater", "for tests only", "mean CONSENT_CONSUMER_START"):
        assert part in str(raised.value)


@pytest.mark.parametrize(
    ("section", "fields"),
    [
        (LeaseSettings, {"seconds": 10, "renew_seconds": 6}),
        (RetrySettings, {"first_seconds": 9, "most_seconds": 4}),
        (DeadLetterSettings, {"rows_per_run": 10}),
    ],
)
def test_contradiction_within_a_section_is_refused(section: type, fields: dict[str, float]) -> None:
    """Times and bounds that cannot both hold are an error."""
    with pytest.raises(ValidationError):
        section(**fields)


@pytest.mark.parametrize(
    ("variables", "told"),
    [
        ({"IN_FLIGHT_MAX": "199"}, "in_flight_max is less than batch_events"),
        ({"LEASE__SECONDS": "15"}, "lease seconds must be greater"),
        ({"MONGO__OPERATION_TIMEOUT_SECONDS": "10", "GRACE_SECONDS": "60"}, "lease seconds must be greater"),
        ({"GRACE_SECONDS": "29"}, "grace_seconds is not greater than 29"),
        ({"SALESFORCE__TIMEOUT_SECONDS": "13"}, "grace_seconds is not greater than 30"),
        ({"MONGO__CLOSE_TIMEOUT_SECONDS": "20"}, "grace_seconds is not greater than 47"),
    ],
)
def test_times_that_do_not_fit_together_are_refused(
    monkeypatch: pytest.MonkeyPatch, good: dict[str, str], variables: dict[str, str], told: str
) -> None:
    """A full call fits what may be in flight, a second renewal the lease, and an orderly stop the grace period."""
    with pytest.raises(SettingsError, match=told):
        load(monkeypatch, good | variables)


def test_times_that_just_fit_are_taken(monkeypatch: pytest.MonkeyPatch, good: dict[str, str]) -> None:
    """The bounds themselves are no more than what is needed."""
    settings = load(monkeypatch, good | {"IN_FLIGHT_MAX": "200", "LEASE__SECONDS": "15.1", "GRACE_SECONDS": "29.1"})

    assert settings.in_flight_max == settings.batch_events
