"""What campaign_api can be told, and what it does when it is told nothing."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from runtime.mongo_settings import MongoSettings
from runtime.settings import AuthSettings
from services.campaign_api.settings import CampaignApiSettings


@pytest.fixture
def auth(tmp_path: Path) -> AuthSettings:
    """How tokens are verified."""
    secret_file = tmp_path / "secret"
    secret_file.write_text("0123456789abcdef" * 2)
    return AuthSettings(secret_file=secret_file)


def test_keys_are_kept_for_seven_days_unless_told_otherwise(auth: AuthSettings) -> None:
    """The promise of the API's documents is the default."""
    settings = CampaignApiSettings(mongo=MongoSettings(database="campaigns"), auth=auth)

    assert settings.keep_keys_seconds == 7 * 24 * 3_600


def test_closing_the_database_counts_among_what_a_stop_may_need(auth: AuthSettings) -> None:
    """A time to close that does not fit into the grace period is refused."""
    mongo = MongoSettings(database="campaigns", close_timeout_seconds=20)
    with pytest.raises(ValidationError, match=r"grace_seconds .* must be greater than .* mongo 20"):
        CampaignApiSettings(mongo=mongo, auth=auth)


def test_settings_come_from_variables_under_the_service_s_prefix(
    auth: AuthSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hosts are one variable, separated by commas; the service's name is the container's."""
    monkeypatch.setenv("CAMPAIGN_API_MONGO__HOSTS", "mongo-1:27017, mongo-2:27018")
    monkeypatch.setenv("CAMPAIGN_API_MONGO__DATABASE", "campaigns")
    settings = CampaignApiSettings(auth=auth)

    assert settings.mongo.hosts == ("mongo-1:27017", "mongo-2:27018")
    assert settings.service == "campaign-api"
