"""Taking a guard away: what is not there cannot be taken away unnoticed."""

from types import ModuleType

import pytest

from tests.support.unguarded import change, put, run_without


@pytest.fixture
def module() -> ModuleType:
    """A module with one statement."""
    module = ModuleType("store")
    vars(module)["_TAKE"] = "update rewards set stock = stock - 1 where stock > 0"
    return module


def test_part_of_a_statement_is_replaced(module: ModuleType) -> None:
    """The rest of it stays as it was."""
    change(module, "_TAKE", "where stock > 0", "")
    assert vars(module)["_TAKE"] == "update rewards set stock = stock - 1 "


def test_part_that_is_not_there_is_an_error(module: ModuleType) -> None:
    """A statement that was written anew must not leave its guard in place in a test that says it is gone."""
    with pytest.raises(ValueError, match=r"store\._TAKE has no 'and points > 0'"):
        change(module, "_TAKE", "and points > 0", "")
    with pytest.raises(AttributeError):
        put(module, "_GIVE", "")


def test_guard_of_the_command_line_is_gone_before_the_service_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """The named one alone is taken away, and the service's status is returned."""
    steps: list[str] = []
    guards = {name: lambda name=name: steps.append(name) for name in ("lease", "order")}
    monkeypatch.setattr("sys.argv", ["unguarded", "--without", "lease"])

    def main() -> int:
        steps.append("main")
        return 3

    assert run_without(guards, main) == 3
    assert steps == ["lease", "main"]
    monkeypatch.setattr("sys.argv", ["unguarded", "--without", "nothing"])
    with pytest.raises(SystemExit):
        run_without(guards, main)
