"""What the settings of Salesforce refuse, and how they say so."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from tests.unit.services.consent_consumer.salesforce_fake import SECRET, fake_settings


def problem(tmp_path: Path, **changes: Any) -> str:  # noqa: ANN401 - settings
    """Return what is wrong when these settings are changed."""
    with pytest.raises(ValidationError) as caught:
        fake_settings(tmp_path, **changes)
    return str(caught.value)


@pytest.mark.parametrize(
    "url",
    ["https://salesforce", "https://salesforce:8443/", "http://127.0.0.1:8099", "http://localhost", "http://[::1]:1"],
)
def test_tls_and_loopback_are_taken(tmp_path: Path, url: str) -> None:
    """A slash at the end makes no difference."""
    assert fake_settings(tmp_path, url=url).url == url.rstrip("/")


@pytest.mark.parametrize("url", ["http://salesforce", "http://10.0.0.1:80", "http://127.0.0.1.example"])
def test_plain_http_beyond_loopback_needs_a_word(tmp_path: Path, url: str) -> None:
    """The secret would travel for all to read, so it is refused unless that is allowed in so many words."""
    assert "url must begin with https://" in problem(tmp_path, url=url)
    assert fake_settings(tmp_path, url=url, allow_plain_http=True).url == url


@pytest.mark.parametrize(
    "url",
    [
        "",
        "salesforce",
        "ftp://salesforce",
        "https://",
        "https://:443",
        "https://name:word@salesforce",
        "https://salesforce/services",
        "https://salesforce?a",
        "https://salesforce#a",
        "https://salesforce:0",
        "https://salesforce:99999",
        "https://salesforce:x",
        "https://[::1",
        "https://sales force",
        "https://salesforce\n",
        "https://sälesforce",
    ],
)
def test_what_is_no_base_url_is_refused(tmp_path: Path, url: str) -> None:
    """It would lead nowhere, or somewhere else than it seems."""
    assert "must be https:// and a host" in problem(tmp_path, url=url)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"connect_timeout_seconds": 13}, "connect_timeout_seconds is greater than call_timeout_seconds"),
        ({"call_timeout_seconds": 13}, "call_timeout_seconds is greater than timeout_seconds"),
        ({"backoff_first_seconds": 1}, "backoff_first_seconds is greater than backoff_most_seconds"),
        ({"client_secret_file": "/nowhere"}, "client_secret_file cannot be read"),
        ({"tls_ca_file": "/nowhere"}, "tls_ca_file cannot be used"),
        ({"url": "http://127.0.0.1:1", "tls_ca_file": "/nowhere"}, "tls_ca_file is given but url begins with http"),
        ({"api_version": "60"}, "api_version"),
        ({"unknown": 1}, "unknown"),
    ],
)
def test_contradictions_are_named(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    """Each by the names of its settings."""
    assert said in problem(tmp_path, **changes)


def test_the_secret_is_in_no_text(tmp_path: Path) -> None:
    """The settings hold the file's path, and neither their text nor a dump of them holds more."""
    settings = fake_settings(tmp_path)
    assert SECRET not in f"{settings!r} {settings.model_dump_json()}"
