"""Settings: read from the environment whole, all problems told at once, secrets never shown."""

import os
import socket
from pathlib import Path
from typing import ClassVar

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from pydantic import SecretStr
from pydantic_settings import SettingsConfigDict

from runtime.errors import SettingsError
from runtime.settings import (
    AuthSettings,
    CommaSeparated,
    HttpSettings,
    KafkaSettings,
    PostgresSettings,
    ProcessSettings,
    load_settings,
    read_secret,
)


class ExampleSettings(ProcessSettings):
    """A service's settings with a section of each kind."""

    model_config = SettingsConfigDict(env_prefix="EXAMPLE_")

    service: ClassVar[str] = "example"

    postgres: PostgresSettings
    kafka: KafkaSettings
    http: HttpSettings = HttpSettings()
    urls: CommaSeparated = ()


GOOD = {
    "EXAMPLE_POSTGRES__DATABASE": "coupons",
    "EXAMPLE_POSTGRES__USER": "coupon_api",
    "EXAMPLE_KAFKA__BOOTSTRAP": "127.0.0.1:9092",
}


def load(monkeypatch: pytest.MonkeyPatch, **variables: str) -> ExampleSettings:
    """Load the settings from an environment of the good ones and these; an empty value takes one away."""
    for name, value in {**GOOD, **variables}.items():
        if value:
            monkeypatch.setenv(name, value)
        else:
            monkeypatch.delenv(name, raising=False)
    return load_settings(ExampleSettings)


def problems(monkeypatch: pytest.MonkeyPatch, **variables: str) -> str:
    """Return the message about an environment that is wrong."""
    with pytest.raises(SettingsError) as caught:
        load(monkeypatch, **variables)
    assert caught.value.__cause__ is None  # the library's own error shows values
    assert caught.value.__suppress_context__
    return str(caught.value)


def test_variables_reach_their_fields_through_sections(monkeypatch: pytest.MonkeyPatch) -> None:
    """Numbers, words, lists and nested fields arrive with their types."""
    settings = load(
        monkeypatch,
        EXAMPLE_POSTGRES__PORT="6543",
        EXAMPLE_URLS="http://a, http://b",
        EXAMPLE_HTTP__DRAIN_LAG_SECONDS="0.5",
    )
    assert settings.postgres.port == 6543
    assert settings.urls == ("http://a", "http://b")
    assert settings.http.drain_lag_seconds == 0.5


def test_all_problems_are_in_one_message_by_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    """A missing, a mistyped, an out-of-range and a malformed variable are told together."""
    message = problems(
        monkeypatch,
        EXAMPLE_POSTGRES__DATABASE="",
        EXAMPLE_POSTGRES__PROT="1",
        EXAMPLE_POSTGRES__POOL_MAX="0",
        EXAMPLE_STARTUP_SECONDS="soon",
    )
    assert "EXAMPLE_POSTGRES__DATABASE: is required" in message
    assert "EXAMPLE_POSTGRES__PROT: no such setting; did you mean EXAMPLE_POSTGRES__PORT?" in message
    assert "EXAMPLE_POSTGRES__POOL_MAX: " in message
    assert "EXAMPLE_STARTUP_SECONDS: " in message


def test_a_section_that_is_missing_names_each_variable_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody has to guess the fields of a section from its name."""
    message = problems(monkeypatch, EXAMPLE_POSTGRES__DATABASE="", EXAMPLE_POSTGRES__USER="")
    assert "EXAMPLE_POSTGRES__DATABASE: is required" in message
    assert "EXAMPLE_POSTGRES__USER: is required" in message


@pytest.mark.parametrize(
    "variable",
    ["EXAMPLE_GRACE_SECOND", "EXAMPLE_POSTGRES__HOST__NAME", "EXAMPLE_NOWHERE__X", "EXAMPLE_POSTGRES", "example_x"],
)
def test_a_variable_under_the_prefix_that_names_no_field_is_an_error(
    monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    """A mistyped variable is never silently ignored, at whatever depth."""
    assert variable.upper() in problems(monkeypatch, **{variable: "1"})


def test_a_value_for_a_section_is_told_under_the_section_s_own_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """The variables below it are good ones, and not called unknown."""
    message = problems(monkeypatch, EXAMPLE_POSTGRES="1")
    assert "EXAMPLE_POSTGRES: no such setting" in message
    assert "EXAMPLE_POSTGRES__DATABASE: " not in message


@pytest.mark.parametrize(
    ("variable", "shown"),
    [("EXAMPLE_\x1b[31m\r\nFORGED", r"EXAMPLE_\x1b[31M\r\nFORGED"), (os.fsdecode(b"EXAMPLE_\xff"), r"EXAMPLE_\UDCFF")],
)
def test_a_name_that_cannot_be_printed_is_escaped(monkeypatch: pytest.MonkeyPatch, variable: str, shown: str) -> None:
    """A variable's name makes no line of its own, and bytes that are no text are told like any mistyped name."""
    message = problems(monkeypatch, **{variable: "1"})
    assert f"{shown}: no such setting" in message
    assert all(line.isprintable() for line in message.splitlines())


def test_an_empty_host_or_password_is_one_that_was_left_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither is every address served nor nobody's password sent because a variable expanded to nothing."""
    for section in ("POSTGRES", "HTTP", "ADMIN"):
        with monkeypatch.context() as patch:
            patch.setenv(f"EXAMPLE_{section}__HOST", "")
            assert f"EXAMPLE_{section}__HOST: String should have at least 1 character" in problems(monkeypatch)
    monkeypatch.setenv("EXAMPLE_POSTGRES__PASSWORD", "")
    assert "EXAMPLE_POSTGRES: password is empty" in problems(monkeypatch)


@pytest.mark.parametrize("host", ["a..b", "x" * 64, ".", "h\u00f6st..de"])
def test_a_host_that_no_resolver_takes_is_told_at_once(monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    """A label that is empty or longer than 63 characters would be an error of no known kind when it is looked up."""
    assert "EXAMPLE_HTTP__HOST: is no host's name" in problems(monkeypatch, EXAMPLE_HTTP__HOST=host)
    for good in ("127.0.0.1", "::1", "localhost", "db.example.org.", "/run/postgresql", "h\u00f6st.de"):
        assert load(monkeypatch, EXAMPLE_HTTP__HOST=good).http.host == good


def test_two_spellings_of_one_variable_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Case does not count, so one of two would win in silence; it is told beside whatever else is wrong."""
    message = problems(
        monkeypatch, EXAMPLE_LOG_LEVEL="INFO", example_log_level="ERROR", EXAMPLE_HTTP__port="1", EXAMPLE_NOWHERE="1"
    )
    assert "EXAMPLE_LOG_LEVEL: is given twice, also as example_log_level" in message
    assert "EXAMPLE_NOWHERE: no such setting" in message
    assert message.count("twice") == 1


LINKS = {
    "EXAMPLE_SERVICE_HOST": "10.0.0.7",
    "EXAMPLE_SERVICE_PORT": "80",
    "EXAMPLE_SERVICE_PORT_HTTP": "80",
    "EXAMPLE_PORT": "tcp://10.0.0.7:80",
    "EXAMPLE_PORT_80_TCP": "tcp://10.0.0.7:80",
    "EXAMPLE_PORT_80_TCP_PROTO": "tcp",
    "EXAMPLE_PORT_80_TCP_PORT": "80",
    "EXAMPLE_PORT_80_TCP_ADDR": "10.0.0.7",
}


def test_what_kubernetes_says_of_a_service_of_our_name_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pod gets these variables for each Service; without the two that every Service has they are mistakes of ours."""
    assert load(monkeypatch, **LINKS).http.port == 8080
    assert "EXAMPLE_PORT_80: no such" in problems(monkeypatch, **LINKS, EXAMPLE_PORT_80="1")
    message = problems(monkeypatch, **{**LINKS, "EXAMPLE_SERVICE_HOST": "", "EXAMPLE_PORT_80": ""})
    assert "EXAMPLE_PORT: no such setting" in message


def test_variables_of_others_are_none_of_our_business(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that only resembles the prefix is ignored."""
    load(monkeypatch, EXAMPLES_GRACE_SECOND="1", PG_EXAMPLE_X="1")


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"EXAMPLE_GRACE_SECONDS": "15"}, "must be greater than what an orderly stop may need"),
        ({"EXAMPLE_POSTGRES__POOL_MIN": "11"}, "pool_min is greater than pool_max"),
        ({"EXAMPLE_POSTGRES__LOCK_TIMEOUT_SECONDS": "6"}, "lock_timeout_seconds is greater than statement_timeout"),
        ({"EXAMPLE_HTTP__REQUEST_TIMEOUT_SECONDS": "11"}, "a stop would cut off requests"),
        ({"EXAMPLE_KAFKA__RECORD_BYTES": "50000000"}, "the largest record would never fit the queue"),
        ({"EXAMPLE_KAFKA__LINGER_MS": "10000"}, "linger_ms is not less than delivery_timeout_seconds"),
        ({"EXAMPLE_KAFKA__SECURITY_PROTOCOL": "SASL_SSL"}, "sasl_mechanism is to be given"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], said: str
) -> None:
    """Times must fit the grace period, queues their contents, bounds each other."""
    assert said in problems(monkeypatch, **variables)


@pytest.mark.parametrize("seconds", ["0", "-1", "nan", "inf", "1e9", ""])
def test_a_time_is_a_positive_finite_number_of_seconds(monkeypatch: pytest.MonkeyPatch, seconds: str) -> None:
    """Zero, negative, endless and absurd times are refused; an absent one takes the default."""
    if seconds:
        assert "EXAMPLE_GRACE_SECONDS" in problems(monkeypatch, EXAMPLE_GRACE_SECONDS=seconds)
    else:
        assert load(monkeypatch, EXAMPLE_GRACE_SECONDS=seconds).grace_seconds == 30


def test_a_secret_is_shown_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the settings' text nor a message about other mistakes has the password."""
    settings = load(monkeypatch, EXAMPLE_POSTGRES__PASSWORD="very-secret")  # noqa: S106 - a test's own
    assert "very-secret" not in repr(settings)
    assert "very-secret" not in str(settings.model_dump())
    message = problems(monkeypatch, EXAMPLE_POSTGRES__PASSWORD="very-secret", EXAMPLE_POSTGRES__PORT="x")  # noqa: S106 - no secret
    assert "very-secret" not in message


def test_a_secret_comes_as_value_or_as_file_and_not_as_both(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Two sources are one too many, and a file must be readable and not empty at the start already."""
    file = tmp_path / "password"
    file.write_text("hush\n")
    settings = load(monkeypatch, EXAMPLE_POSTGRES__PASSWORD_FILE=str(file))
    assert settings.postgres.password is None
    assert "give one" in problems(monkeypatch, EXAMPLE_POSTGRES__PASSWORD="x")  # noqa: S106 - a test's own
    monkeypatch.delenv("EXAMPLE_POSTGRES__PASSWORD")
    file.write_text("\n")
    assert "password_file is empty" in problems(monkeypatch)
    file.unlink()
    assert "password_file cannot be read: No such file" in problems(monkeypatch)


def test_a_secrets_file_is_read_anew_each_time(tmp_path: Path) -> None:
    """A rotated file counts from the next reading on, and only the line end is taken off."""
    file = tmp_path / "secret"
    file.write_text(" first \n")
    assert read_secret(None, file) == " first "
    file.write_text("second\r\n")
    assert read_secret(None, file) == "second"
    assert read_secret(SecretStr("value"), None) == "value"
    assert read_secret(None, None) is None


def test_settings_are_frozen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a field nor a section's field can be set after the start."""
    settings = load(monkeypatch)
    with pytest.raises(ValueError, match="frozen"):
        settings.grace_seconds = 1  # type: ignore[misc] # the mistake under test
    with pytest.raises(ValueError, match="frozen"):
        settings.postgres.port = 1  # type: ignore[misc] # the mistake under test


def _public_key(bits: int) -> bytes:
    private = rsa.generate_private_key(public_exponent=65537, key_size=bits)
    return private.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )


@pytest.mark.parametrize("section", ["POSTGRES", "KAFKA"])
def test_a_file_of_certificates_must_hold_some(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, section: str) -> None:
    """A file that is not there, or holds no certificate, is a setting that is wrong, not a failed connection later."""
    file = tmp_path / "ca.pem"
    variables = {"EXAMPLE_POSTGRES__TLS": "verify-full", f"EXAMPLE_{section}__TLS_CA_FILE": str(file)}
    said = f"EXAMPLE_{section}: tls_ca_file cannot be used: "
    assert f"{said}No such file" in problems(monkeypatch, **variables)
    file.write_text("nonsense")
    assert said in problems(monkeypatch, **variables)


@pytest.mark.parametrize("section", ["HTTP", "ADMIN"])
def test_an_inherited_number_must_be_a_sockets(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, section: str) -> None:
    """A number that is closed, or a file's, is a setting that is wrong; a socket's is taken."""
    variable = f"EXAMPLE_{section}__LISTEN_FD"
    with (tmp_path / "file").open("w") as file, socket.socket() as inherited:
        for number in (file.fileno(), 1_000_000):
            assert f"EXAMPLE_{section}: listen_fd is the number of no" in problems(
                monkeypatch, **{variable: str(number)}
            )
        assert f"{variable}: " in problems(monkeypatch, **{variable: "9999999999"})  # no descriptor is that large
        load(monkeypatch, **{variable: str(inherited.fileno())})


def test_a_token_key_must_fit_its_algorithm(tmp_path: Path) -> None:
    """HS256 asks for a secret's file, RS256 for a public key's, and the other one is a mistake."""
    key = tmp_path / "key"
    key.write_text("k" * 32)
    AuthSettings(algorithm="HS256", secret_file=key)
    with pytest.raises(ValueError, match="public_key_file cannot be used: RS256 needs an RSA public key"):
        AuthSettings(algorithm="RS256", public_key_file=key)
    key.write_bytes(_public_key(2048))
    AuthSettings(algorithm="RS256", public_key_file=key)
    key.write_bytes(_public_key(1024))
    with pytest.raises(ValueError, match="at least 2048 bits"):
        AuthSettings(algorithm="RS256", public_key_file=key)
    key.write_text("k" * 31)
    with pytest.raises(ValueError, match="secret_file cannot be used: an HS256 secret needs at least 32 bytes"):
        AuthSettings(algorithm="HS256", secret_file=key)
    key.write_text("k" * 32)
    for wrong in ({}, {"public_key_file": key}, {"secret_file": key, "public_key_file": key}):
        with pytest.raises(ValueError, match="_file"):
            AuthSettings(algorithm="HS256", **wrong)
