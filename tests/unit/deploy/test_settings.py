"""What the settings of the migrations refuse, all at once and by name."""

import os
from pathlib import Path

import pytest

from deploy import migrate
from deploy.settings import MigrateSettings
from runtime.environment import load_settings
from runtime.errors import SettingsError

ROLES = ("LP_OWNER", "REWARD_STORE", "COUPON_API", "COUPON_CONSUMER", "ETL")


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """The least the migrations must be told."""
    for name in [name for name in os.environ if name.startswith("MIGRATE_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("MIGRATE_HOST", "localhost")
    for role in ROLES:
        monkeypatch.setenv(f"MIGRATE_{role}_PASSWORD__VALUE", "opens")
    return monkeypatch


def problems(environment: pytest.MonkeyPatch, **variables: str) -> tuple[str, ...]:
    """Return what is wrong when these variables are added."""
    for name, value in variables.items():
        environment.setenv(f"MIGRATE_{name}", value)
    with pytest.raises(SettingsError) as caught:
        load_settings(MigrateSettings)
    return caught.value.problems


def test_the_least_is_enough(environment: pytest.MonkeyPatch) -> None:
    """A host and five passwords do."""
    assert load_settings(MigrateSettings).role_passwords()["coupon_api"] == "opens"
    del environment


def test_every_unusable_password_is_named_at_once(environment: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Empty, not ASCII, a file that is missing or not UTF-8, both ways at once: one message has them all, no value."""
    (tmp_path / "latin").write_bytes(b"pass\xe9wort")
    environment.delenv("MIGRATE_REWARD_STORE_PASSWORD__VALUE")
    said = problems(
        environment,
        PASSWORD__FILE=str(tmp_path / "latin"),
        LP_OWNER_PASSWORD__VALUE="",
        REWARD_STORE_PASSWORD__FILE=str(tmp_path / "missing"),
        COUPON_API_PASSWORD__VALUE="geh\u00e4im",  # noqa: S106 - opens nothing
        COUPON_CONSUMER_PASSWORD__FILE="/dev/null",  # noqa: S106 - a path
    )
    assert said == (
        "MIGRATE_PASSWORD: a password must be printable ASCII, and not empty",
        "MIGRATE_LP_OWNER_PASSWORD: a password must be printable ASCII, and not empty",
        "MIGRATE_REWARD_STORE_PASSWORD: the file cannot be read: No such file or directory",
        "MIGRATE_COUPON_API_PASSWORD: a password must be printable ASCII, and not empty",
        "MIGRATE_COUPON_CONSUMER_PASSWORD: give either __VALUE or __FILE",
    )


def test_a_password_that_is_not_given_is_asked_for_by_variables_that_exist(environment: pytest.MonkeyPatch) -> None:
    """There is no `MIGRATE_..._PASSWORD` to set: the message names the two ways there are."""
    environment.delenv("MIGRATE_LP_OWNER_PASSWORD__VALUE")
    assert problems(environment) == ("MIGRATE_LP_OWNER_PASSWORD: give either __VALUE or __FILE",)


@pytest.mark.parametrize(
    ("content", "reason"), [(None, "No such file or directory"), ("no certificate", "no certificate or crl found")]
)
def test_an_authority_that_cannot_be_used_is_named(
    environment: pytest.MonkeyPatch, tmp_path: Path, content: str | None, reason: str
) -> None:
    """A file that is missing or holds no certificate is found before anything is connected."""
    authority = tmp_path / "ca.pem"
    if content is not None:
        authority.write_text(content)
    [problem] = problems(environment, TLS="verified", TLS_CA_FILE=str(authority))
    assert problem.startswith("tls_ca_file cannot be used: ")
    assert reason.lower() in problem.lower()


def test_an_authority_without_tls_is_refused(environment: pytest.MonkeyPatch) -> None:
    """Whoever names an authority and leaves TLS off would send passwords' proofs in the clear."""
    assert problems(environment, TLS_CA_FILE="/dev/null") == ("tls_ca_file is given but tls is off",)


def test_the_command_with_an_empty_password_ends_with_78(
    environment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line, the status of bad settings, and no traceback."""
    environment.setenv("MIGRATE_REWARD_STORE_PASSWORD__VALUE", "")
    assert migrate.main() == 78
    assert capsys.readouterr().err == (
        "migrate: bad settings:\n  MIGRATE_REWARD_STORE_PASSWORD: a password must be printable ASCII, and not empty\n"
    )
