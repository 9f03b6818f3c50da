"""What a process can be told about MongoDB."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from runtime.mongo_settings import MongoSettings


def test_hosts_come_separated_by_commas() -> None:
    """One variable names all nodes."""
    settings = MongoSettings.model_validate({"database": "consents", "hosts": "a:1, b:2,[::1]:3"})
    assert settings.hosts == ("a:1", "b:2", "[::1]:3")


@pytest.mark.parametrize(("given", "name"), [({}, "rs0"), ({"replica_set": "rs1"}, "rs1"), ({"replica_set": ""}, None)])
def test_an_empty_name_of_a_replica_set_means_one_node_alone(given: dict[str, Any], name: str | None) -> None:
    """A variable can say that there is no set to be found out; without it there is one."""
    assert MongoSettings.model_validate({"database": "consents"} | given).replica_set == name


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"hosts": ""}, "names no host"),
        ({"hosts": "a:b"}, "host or host:port"),
        ({"hosts": "a:99999"}, "host or host:port"),
        ({"hosts": "mongodb://a:1/"}, "host or host:port"),
        ({"database": "a.b"}, "database"),
        ({"database": ""}, "database"),
        ({"user": "u"}, "given together"),
        ({"password": "p"}, "given together"),
        ({"user": "u", "password": "p", "password_file": "/dev/null"}, "both given"),
        ({"user": "u", "password_file": "/nowhere"}, "cannot be read"),
        ({"tls_ca_file": "/nowhere"}, "tls is disable"),
        ({"tls": "require", "tls_ca_file": "/nowhere"}, "cannot be used"),
        ({"driver": "other"}, "driver"),
        ({"pool_max": 0}, "pool_max"),
        ({"operation_timeout_seconds": 0}, "operation_timeout_seconds"),
        ({"operation_timeout_seconds": float("nan")}, "operation_timeout_seconds"),
        ({"hots": "a"}, "hots"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_is_wrong_is_named_and_never_shown(given: dict[str, Any], problem: str) -> None:
    """Each problem names its field."""
    with pytest.raises(ValidationError, match=problem):
        MongoSettings.model_validate({"database": "consents"} | given)


def test_motor_has_to_be_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chosen without its extra it is a problem of the settings, not an error at the first call."""
    assert MongoSettings(database="consents", driver="motor").driver == "motor"
    monkeypatch.setitem(__import__("sys").modules, "motor.motor_asyncio", None)
    with pytest.raises(ValidationError, match="not installed"):
        MongoSettings(database="consents", driver="motor")


def test_a_secret_is_masked(tmp_path: Path) -> None:
    """Printed settings show neither a password nor what its file holds."""
    file = tmp_path / "password"
    file.write_text("canary")
    shown = repr(MongoSettings(database="d", user="u", password_file=file)) + repr(
        MongoSettings.model_validate({"database": "d", "user": "u", "password": "canary"})
    )
    assert "canary" not in shown
