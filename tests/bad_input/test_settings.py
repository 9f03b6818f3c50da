"""Environments that are wrong: one message with every problem in it, no value, and status 78."""

import os
from pathlib import Path

import pytest

from runtime.errors import SettingsError
from runtime.settings import ProcessSettings, load_settings
from sandbox.instance import Service
from services.campaign_api.settings import CampaignApiSettings
from services.consent_consumer.settings import ConsentConsumerSettings
from services.coupon_api.settings import CouponApiSettings
from services.coupon_consumer.settings import CouponConsumerSettings
from services.reward_store.settings import RewardStoreSettings
from tests.bad_input.http_row import CAMPAIGN_API, CANARY, COUPON_API, REWARD_STORE
from tests.bad_input.settings_mongo_values import ROWS as MONGO_ROWS
from tests.bad_input.settings_row import CONSENT_CONSUMER, COUPON_CONSUMER, FILES, GOOD, SettingsRow
from tests.bad_input.settings_values import ROWS as OTHER_ROWS
from tests.support.service_process import ServiceProcess, open_service

TYPES: dict[Service, type[ProcessSettings]] = {
    COUPON_API: CouponApiSettings,
    REWARD_STORE: RewardStoreSettings,
    COUPON_CONSUMER: CouponConsumerSettings,
    CAMPAIGN_API: CampaignApiSettings,
    CONSENT_CONSUMER: ConsentConsumerSettings,
}
ROWS = (*OTHER_ROWS, *MONGO_ROWS)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the files that rows name."""
    directory = tmp_path_factory.mktemp("settings")
    (directory / "directory").mkdir()
    for word, content in FILES.items():
        (directory / word.removeprefix("$")).write_bytes(content)
    return directory


def _variables(service: Service, changes: "dict[str, str | None]", files: Path) -> dict[str, str]:
    """Return the good environment with the changes, without the prefix; words for files become their paths."""
    given = {name: value for name, value in {**GOOD[service], **changes}.items() if value is not None}
    return {name: str(files / value[1:]) if value.startswith("$") else value for name, value in given.items()}


def _lines(row: SettingsRow) -> tuple[str, ...]:
    return tuple(line.replace("~", f"{row.service.upper()}_") for line in row.lines)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_wrong_environment_gets_one_message_with_every_problem(
    row: SettingsRow, files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lines are the row's, twice the same; without the row's changes the same environment is good."""
    prefix = f"{row.service.upper()}_"
    with monkeypatch.context() as patch:
        for name, value in _variables(row.service, {}, files).items():
            patch.setenv(prefix + name, value)
        load_settings(TYPES[row.service])
    for name, value in _variables(row.service, dict(row.changes), files).items():
        monkeypatch.setenv(prefix + name, value)
    for _ in range(2):
        with pytest.raises(SettingsError) as raised:
            load_settings(TYPES[row.service])
        assert raised.value.problems == _lines(row)
        told = str(raised.value)
        assert CANARY not in told.replace(CANARY.upper(), "")  # the name of a variable may be told, a value never
        assert all(line.isprintable() for line in told.splitlines())


@pytest.mark.parametrize("service", TYPES, ids=str)
async def test_process_ends_with_78_and_the_one_message(service: Service, files: Path, tmp_path: Path) -> None:
    """The rows of the service that can stand together are told in one message, and nothing else is said."""
    row = max((row for row in ROWS if row.service is service), key=lambda row: len(row.lines))
    variables = {"ADMIN__PORT": "0", **_variables(service, dict(row.changes), files)}
    async with open_service(ServiceProcess, service, tmp_path, variables) as process:
        assert await process.process.wait(30) == 78
        said = process.process.log.read_text()
    lines = "\n".join(f"  {line}" for line in _lines(row))
    assert said == f"{TYPES[service].service}: bad settings:\n{lines}\n"
    assert not [name for name in os.environ if name.startswith(f"{service.upper()}_")]
