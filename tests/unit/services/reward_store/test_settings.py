"""What the settings of reward_store refuse, and how they say so."""

from pathlib import Path

import pytest

from runtime.environment import load_settings
from runtime.errors import SettingsError
from services.reward_store.settings import RewardStoreSettings


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    """The least a process must be told."""
    secret, token = tmp_path / "secret", tmp_path / "token"
    secret.write_text("0123456789abcdef" * 2)
    token.write_text("token")
    for name, value in {
        "POSTGRES__DATABASE": "rewards",
        "POSTGRES__USER": "reward_store",
        "KAFKA__BOOTSTRAP": "localhost:9092",
        "AUTH__SECRET_FILE": str(secret),
        "COUPON_API__URLS": "http://one:8080, http://two:8080",
        "COUPON_API__TOKEN_FILE": str(token),
    }.items():
        monkeypatch.setenv(f"REWARD_STORE_{name}", value)
    return monkeypatch


def problems(environment: pytest.MonkeyPatch, **variables: str) -> tuple[str, ...]:
    """Return what is wrong when these variables are added."""
    for name, value in variables.items():
        environment.setenv(f"REWARD_STORE_{name}", value)
    with pytest.raises(SettingsError) as caught:
        load_settings(RewardStoreSettings)
    return caught.value.problems


def test_the_least_is_enough(environment: pytest.MonkeyPatch) -> None:
    """Every bound and time has a default, and the defaults agree with one another."""
    settings = load_settings(RewardStoreSettings)
    assert settings.coupon_api.urls == ("http://one:8080", "http://two:8080")
    assert settings.relay.topic == "coupon-events"
    assert settings.clean_up.keep_keys_seconds == 7 * 86_400
    del environment


def test_nothing_at_all_names_every_missing_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    """One message is enough to mend the lot."""
    said = "\n".join(problems(monkeypatch))
    for name in ("POSTGRES__DATABASE", "KAFKA__BOOTSTRAP", "COUPON_API__URLS", "COUPON_API__TOKEN_FILE"):
        assert f"REWARD_STORE_{name}: is required" in said
    assert "REWARD_STORE_AUTH: secret_file is required for HS256" in said


@pytest.mark.parametrize(
    ("variables", "part"),
    [
        ({"RELAY__BATCH_ROW": "5"}, "did you mean REWARD_STORE_RELAY__BATCH_ROWS?"),
        ({"RELAY__BATCH_ROWS": "0"}, "RELAY__BATCH_ROWS"),
        ({"KAFKA__QUEUE_RECORDS": "499"}, "relay.batch_rows is greater than kafka.queue_records"),
        ({"RELAY__TOPIC": "no spaces"}, "RELAY__TOPIC"),
        ({"RELAY__LEASE_SECONDS": "10"}, "a lease has to outlive the broker's word"),
        ({"RELAY__BACKOFF_FIRST_SECONDS": "60"}, "backoff_first_seconds is greater than backoff_most_seconds"),
        ({"RELAY__FINISH_SECONDS": "29"}, "grace_seconds (30) must be greater than"),
        ({"RELAY__REFUSED_MOST_SECONDS": "20"}, "lease_seconds is greater than refused_most_seconds"),
        ({"CANCEL__REJECTED_MOST_SECONDS": "10"}, "lease_seconds is greater than rejected_most_seconds"),
        ({"CANCEL__LEASE_SECONDS": "5"}, "a cancellation in progress would be taken over"),
        ({"COUPON_API__URLS": "coupon-api:8080"}, "http:// or https://"),
        ({"COUPON_API__URLS": " , "}, "COUPON_API__URLS"),
        ({"COUPON_API__TOKEN_FILE": "/nowhere/at/all"}, "token_file cannot be read"),
        ({"CLEAN_UP__ROWS_PER_RUN": "1"}, "rows_per_statement is greater than rows_per_run"),
        ({"CLEAN_UP__KEEP_KEYS_SECONDS": "1"}, "CLEAN_UP__KEEP_KEYS_SECONDS"),
        ({"CRASH__POINT": "after-claim"}, "a crash point is for tests only"),
    ],
)
def test_each_contradiction_is_refused_in_words(
    environment: pytest.MonkeyPatch, variables: dict[str, str], part: str
) -> None:
    """A mistyped name, a value out of range and settings at odds are all errors, never silence."""
    assert part in "\n".join(problems(environment, **variables))
