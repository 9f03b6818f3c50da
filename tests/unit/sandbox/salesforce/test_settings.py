"""What the sandbox can be told on its command line, and what it refuses."""

from pathlib import Path
from typing import Any

import pytest

from sandbox.salesforce.settings import SalesforceSettings, read_arguments
from tests.support.salesforce import APP


@pytest.fixture
def required(tmp_path: Path) -> list[str]:
    """Give the arguments that must be there, with their files."""
    (tmp_path / "id").write_text(f"{APP.client_id}\n")
    (tmp_path / "secret").write_text(f"{APP.client_secret}\n")
    files = {"log": "log", "client-id-file": "id", "client-secret-file": "secret"}
    return [f"--{name}={tmp_path / file}" for name, file in files.items()]


def test_secrets_come_from_files(required: list[str], tmp_path: Path) -> None:
    """Id and secret are what the files hold without the line end; the rest has defaults, loopback among them."""
    control = "0123456789abcdef"
    (tmp_path / "control").write_text(f"{control}\n")
    settings = read_arguments([*required, f"--control-secret-file={tmp_path / 'control'}", "--port=0"])
    expected = SalesforceSettings(log=tmp_path / "log", app=APP, control_secret=control)
    assert settings == expected
    assert control not in repr(settings)
    assert settings.host == "127.0.0.1"


def test_the_id_may_be_an_argument(required: list[str]) -> None:
    """An id is no secret: instead of its file's path it may be given itself, but not both."""
    others = [argument for argument in required if not argument.startswith("--client-id")]
    assert read_arguments([*others, f"--client-id={APP.client_id}"]) == read_arguments(required)


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--host=0.0.0.0", "control_secret must be given where host is not loopback"),
        ("--host=::", "control_secret must be given"),
        ("--host=sandbox", "control_secret must be given"),
        ("--port=65536", "port must"),
        ("--token-seconds=0", "token_seconds must"),
        ("--token-seconds=nan", "token_seconds must"),
        ("--calls-per-second=0", "calls_per_second must"),
        ("--records-max=0", "records_max must"),
        ("--body-bytes-max=1", "body_bytes_max must"),
        ("--log-bytes-max=1", "log_bytes_max must"),
        ("--client-secret-file=/nowhere/secret", "No such file"),
        ("--client-secret=words", "unrecognized arguments"),
        ("--client-id=words", "not allowed with"),
    ],
)
def test_what_is_wrong_is_told_and_ends_the_process(
    required: list[str], argument: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The process ends with status 2 and says which argument is wrong; a secret is no argument at all."""
    with pytest.raises(SystemExit) as ended:
        read_arguments([*required, argument])
    assert ended.value.code == 2
    assert message in capsys.readouterr().err


def test_a_control_secret_is_not_a_short_one(tmp_path: Path) -> None:
    """Fifteen characters are too few, and no secret at all is enough on loopback alone."""
    settings: dict[str, Any] = {"log": tmp_path / "log", "app": APP}
    with pytest.raises(ValueError, match="at least 16"):
        SalesforceSettings(**settings, control_secret="x" * 15)
    for host in ("127.0.0.1", "127.1.2.3", "::1", "localhost"):
        SalesforceSettings(**settings, host=host)
    SalesforceSettings(**settings, host="0.0.0.0", control_secret="x" * 16)  # noqa: S104 - what is tested
