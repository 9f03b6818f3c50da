"""What the images are built from."""

from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[3]
PACKAGES: Final = ("patterns", "runtime", "loyalty", "services", "etl", "deploy", "sandbox")
PAGE: Final = frozenset(f"!sandbox/salesforce/page.{kind}" for kind in ("css", "html", "js"))


def test_every_directory_with_modules_is_let_in_and_one_page_and_nothing_else() -> None:
    """A new directory needs its line, or its modules are missing in the images; what is not named stays outside."""
    lines = (ROOT / ".dockerignore").read_text("utf-8").splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    directories = {path.parent.relative_to(ROOT) for package in PACKAGES for path in (ROOT / package).rglob("*.py")}
    assert rules[0] == "*"
    modules = {f"!{directory}/*.py" for directory in directories}
    assert set(rules[1:]) == {"!requirements/services.txt", "!requirements/etl.txt", *modules, *PAGE}
