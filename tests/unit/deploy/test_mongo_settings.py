"""What the settings of MongoDB's set-up refuse, all at once and by name, and how they lead to the server."""

import os
from pathlib import Path

import pytest

from deploy import mongo
from deploy.mongo_settings import MongoSetupSettings
from runtime.environment import load_settings
from runtime.errors import SettingsError

ROLES = ("CAMPAIGN_API", "CONSENT_CONSUMER", "CONSENT_WRITER", "AUDITOR")


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """The least the set-up must be told."""
    for name in [name for name in os.environ if name.startswith("MONGO_SETUP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("MONGO_SETUP_HOST", "mongo")
    for role in ROLES:
        monkeypatch.setenv(f"MONGO_SETUP_{role}_PASSWORD__VALUE", "opens")
    return monkeypatch


def problems(environment: pytest.MonkeyPatch, **variables: str) -> tuple[str, ...]:
    """Return what is wrong when these variables are added."""
    for name, value in variables.items():
        environment.setenv(f"MONGO_SETUP_{name}", value)
    with pytest.raises(SettingsError) as caught:
        load_settings(MongoSetupSettings)
    return caught.value.problems


def test_the_least_is_enough(environment: pytest.MonkeyPatch) -> None:
    """A host and four passwords do; nobody logs in as the administrator where no password is given."""
    settings = load_settings(MongoSetupSettings)
    server = settings.server()
    assert settings.user_passwords() == {role.lower(): "opens" for role in ROLES}
    assert (server.hosts, server.replica_set, server.user, server.password) == (("mongo:27017",), None, None, None)
    del environment


def test_variables_of_the_server_s_image_are_none_of_ours(environment: pytest.MonkeyPatch) -> None:
    """`MONGO_INITDB_ROOT_USERNAME` may stand in the same environment: it is not taken for a mistyped setting."""
    environment.setenv("MONGO_INITDB_ROOT_USERNAME", "root")
    assert load_settings(MongoSetupSettings).host == "mongo"


def test_a_changed_file_of_a_password_counts_at_once(environment: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It is read when it is asked for, the administrator's as the users'."""
    (tmp_path / "password").write_text("first\n")
    environment.setenv("MONGO_SETUP_PASSWORD__FILE", str(tmp_path / "password"))
    environment.delenv("MONGO_SETUP_CAMPAIGN_API_PASSWORD__VALUE")
    environment.setenv("MONGO_SETUP_CAMPAIGN_API_PASSWORD__FILE", str(tmp_path / "password"))
    settings = load_settings(MongoSetupSettings)
    (tmp_path / "password").write_text("second\n")
    password = settings.server().password
    assert password is not None
    assert (password.get_secret_value(), settings.user_passwords()["campaign_api"]) == ("second", "second")


@pytest.mark.parametrize(("tls", "driver"), [("off", "disable"), ("required", "require"), ("verified", "verify-full")])
def test_tls_is_what_the_driver_is_told(environment: pytest.MonkeyPatch, tls: str, driver: str) -> None:
    """The words are those of the migrations, and none of them is lost on the way."""
    environment.setenv("MONGO_SETUP_TLS", tls)
    assert load_settings(MongoSetupSettings).server().tls == driver


def test_a_host_of_version_6_is_put_in_brackets(environment: pytest.MonkeyPatch) -> None:
    """Or its port could not be told from it."""
    environment.setenv("MONGO_SETUP_HOST", "::1")
    assert load_settings(MongoSetupSettings).server().hosts == ("[::1]:27017",)


def test_every_unusable_value_is_named_at_once(environment: pytest.MonkeyPatch) -> None:
    """An empty password, a missing file, a member without a port, a database's name that may not be: all at once."""
    said = problems(
        environment,
        CAMPAIGN_API_PASSWORD__VALUE="",
        PASSWORD__FILE="/dev/null/missing",  # noqa: S106 - a path
        MEMBER="mongo",
        CONSENTS_DATABASE="consents.all",
        HOST="mongo/x",
    )
    assert [problem.partition(":")[0] for problem in said] == [
        "MONGO_SETUP_HOST",
        "MONGO_SETUP_PASSWORD",
        "MONGO_SETUP_MEMBER",
        "MONGO_SETUP_CAMPAIGN_API_PASSWORD",
        "MONGO_SETUP_CONSENTS_DATABASE",
    ]


@pytest.mark.parametrize(
    ("variables", "problem"),
    [
        ({"TLS_CA_FILE": "/dev/null"}, "tls_ca_file is given but tls is off"),
        (
            {"CAMPAIGNS_DATABASE": "one", "CONSENTS_DATABASE": "one"},
            "campaigns_database and consents_database must not be the same",
        ),
        (
            {"CAMPAIGNS_DATABASE": "admin"},
            "campaigns_database and consents_database must not be one of the server's own",
        ),
        (
            {"TIMEOUT_SECONDS": "5", "OPERATION_TIMEOUT_SECONDS": "5"},
            "operation_timeout_seconds must be less than timeout_seconds",
        ),
    ],
)
def test_a_contradiction_is_refused(environment: pytest.MonkeyPatch, variables: dict[str, str], problem: str) -> None:
    """Settings that do not fit one another are found before anything is connected."""
    assert problems(environment, **variables) == (problem,)


def test_an_authority_that_cannot_be_used_is_named(environment: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A file that is missing is found before anything is connected."""
    [problem] = problems(environment, TLS="verified", TLS_CA_FILE=str(tmp_path / "ca.pem"))
    assert problem == "tls_ca_file cannot be used: No such file or directory"


def test_the_command_with_an_empty_password_ends_with_78(
    environment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line, the status of bad settings, and no traceback."""
    environment.setenv("MONGO_SETUP_CONSENT_WRITER_PASSWORD__VALUE", "")
    assert mongo.main() == 78
    assert capsys.readouterr().err == (
        "mongo: bad settings:\n"
        "  MONGO_SETUP_CONSENT_WRITER_PASSWORD: a password must be printable ASCII, and not empty\n"
    )
