"""The locked requirements: every package pinned and hashed, from no named place, and these versions installed."""

import re
import tomllib
from importlib.metadata import distributions
from pathlib import Path

import pytest
from packaging.markers import Marker

ROOT = Path(__file__).parents[2]
LOCKS = ("services", "etl", "dev")
_PIN = re.compile(r"(?P<name>[a-z0-9][a-z0-9.-]*)==(?P<version>[0-9][0-9a-z.+!]*)( ; (?P<marker>[^\\]+))?")
_HASH = re.compile(r"--hash=sha256:[0-9a-f]{64}")


def _lock(name: str) -> dict[str, tuple[str, int]]:
    """Return each package's version, and how many of its files have a hash; the file holds nothing else.

    Of a package with a version for each of several Pythons it is that for this one.
    """
    text = (ROOT / "requirements" / f"{name}.txt").read_text("utf-8").replace("\\\n", " ")
    pins: dict[str, tuple[str, int]] = {}
    for line in text.splitlines():
        if line.startswith("#") or not line.strip():
            continue
        pin, *hashes = line.split(" --hash=")
        found = _PIN.fullmatch(pin.strip())
        assert found is not None, f"{name}: {line[:80]}"
        assert all(_HASH.fullmatch(f"--hash={one.strip()}") for one in hashes), f"{name}: {pin}"
        if found["name"] not in pins or found["marker"] is None or Marker(found["marker"]).evaluate():
            pins[found["name"]] = (found["version"], len(hashes))
    return pins


def _name(requirement: str) -> str:
    found = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert found is not None, requirement
    return re.sub(r"[-_.]+", "-", found[0]).lower()


@pytest.mark.parametrize("name", LOCKS)
def test_every_package_is_pinned_and_every_file_hashed(name: str) -> None:
    """No line is an address, an option, a range or a package without a hash."""
    pins = _lock(name)
    assert len(pins) > 20
    assert [package for package, (_, hashes) in pins.items() if not hashes] == []


def test_what_is_asked_for_is_locked_and_no_image_has_a_version_of_its_own() -> None:
    """Each dependency is in its lock; the packages of both images have the same version where they are tested."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    services, etl, dev = _lock("services"), _lock("etl"), _lock("dev")
    assert {_name(one) for one in project["project"]["dependencies"]} <= services.keys()
    assert {_name(one) for one in project["dependency-groups"]["etl-image"]} <= etl.keys()
    groups = [*project["dependency-groups"].values(), *project["project"]["optional-dependencies"].values()]
    assert {_name(one) for group in groups for one in group} <= dev.keys()
    assert {package: pin for package, pin in (services | etl).items() if dev.get(package) != pin} == {}


def test_image_of_the_etl_has_the_heavy_libraries_and_the_services_image_has_none_of_them() -> None:
    """The extra `etl` is in the one lock, and nothing of it in the other, but by what a service needs as well."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    heavy = {_name(one) for one in project["project"]["optional-dependencies"]["etl"]}
    assert heavy <= _lock("etl").keys()
    assert not heavy & _lock("services").keys()


def test_installed_packages_have_the_locked_versions() -> None:
    """What the tests run with is what was locked."""
    locked = {package: version for package, (version, _) in _lock("dev").items()}
    installed = {_name(one.metadata["Name"]): one.version for one in distributions()}
    assert {name: installed[name] for name in locked.keys() & installed if installed[name] != locked[name]} == {}
