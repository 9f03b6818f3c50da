"""What the members can be told from outside, and what they refuse."""

import os
from pathlib import Path

import pytest
from pymongo.uri_parser import parse_uri

from runtime.errors import SettingsError
from runtime.settings import load_settings
from sandbox.instance import Service
from sandbox.members.settings import Address, MembersSettings

OPENS = "p@ss/w:rd?"


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    """The least the members must be told."""
    for name in [name for name in os.environ if name.startswith("MEMBERS_")]:
        monkeypatch.delenv(name)
    secret = tmp_path / "secret"
    secret.write_text(f"{OPENS}\n")
    least = {
        "POSTGRES__HOST": "postgres",
        "POSTGRES__PASSWORD_FILE": secret,
        "MONGO__AUDITOR_PASSWORD_FILE": secret,
        "MONGO__WRITER_PASSWORD_FILE": secret,
        "SALESFORCE__URL": "http://salesforce:8099",
        "TOKEN_SECRET_FILE": secret,
        "JOURNAL": tmp_path,
    }
    for name, value in least.items():
        monkeypatch.setenv(f"MEMBERS_{name}", str(value))
    return monkeypatch


def test_urls_of_mongodb_name_the_user_the_set_and_a_password_of_any_characters(
    environment: pytest.MonkeyPatch,
) -> None:
    """The driver reads out of each URL what the settings say, whatever the password is made of."""
    environment.setenv("MEMBERS_MONGO__HOSTS", "mongo-1:27017,mongo-2:27017")
    settings = load_settings(MembersSettings)
    for url, user in ((settings.mongo.auditor_url(), "auditor"), (settings.mongo.writer_url(), "consent_writer")):
        parsed = parse_uri(url)
        assert (parsed["username"], parsed["password"]) == (user, OPENS)
        assert parsed["nodelist"] == [("mongo-1", 27017), ("mongo-2", 27017)]
        assert parsed["options"]["replicaSet"] == "rs0"


def test_instances_are_found_under_the_names_of_their_containers(environment: pytest.MonkeyPatch) -> None:
    """Each service has an address without being told one; where others are told, those are its addresses."""
    environment.setenv("MEMBERS_CAMPAIGN_API", "one:81:91, two")
    addresses = load_settings(MembersSettings).addresses()
    assert addresses.pop(Service.CAMPAIGN_API) == (Address("one", 81, 91), Address("two"))
    assert addresses == {service: (Address(service.value.replace("_", "-")),) for service in addresses}
    assert len(addresses) == len(Service) - 1


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("MONGO__AUDITOR_PASSWORD_FILE", "/nowhere/secret", "auditor_password"),
        ("MONGO__WRITER_PASSWORD_FILE", "/nowhere/secret", "writer_password"),
        ("SALESFORCE__CONTROL_SECRET_FILE", "/nowhere/secret", "control_secret"),
        ("SALESFORCE__URL", "salesforce:8099", "MEMBERS_SALESFORCE__URL"),
        ("SALESFORCE__URL", "http://salesforce:8099/", "MEMBERS_SALESFORCE__URL"),
        ("CAMPAIGN_API", "host:0", "MEMBERS_CAMPAIGN_API"),
        ("DRAIN_SECONDS", "110", "drain_seconds is not less than grace_seconds"),
    ],
)
def test_what_is_wrong_is_named_before_anybody_is_asked(
    environment: pytest.MonkeyPatch, name: str, value: str, problem: str
) -> None:
    """A secret that cannot be read, an address that is none, times that do not fit: the one problem is told."""
    environment.setenv(f"MEMBERS_{name}", value)
    with pytest.raises(SettingsError) as caught:
        load_settings(MembersSettings)
    assert len(caught.value.problems) == 1
    assert problem in caught.value.problems[0]
