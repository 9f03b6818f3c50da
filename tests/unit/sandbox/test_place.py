"""One demo at a time holds its directory, and a token is given only while one does."""

from pathlib import Path

import pytest

from runtime.auth import TokenVerifier
from runtime.settings import AuthSettings
from sandbox import demo, token
from sandbox.links import NotRunningError
from sandbox.place import DemoRunningError, ForeignPlaceError, hold_place, is_held
from sandbox.system import secret_file

SECRET = "s" * 48


def test_place_is_emptied_and_held(tmp_path: Path) -> None:
    """Whoever holds the directory finds nothing of the run before, and nobody else can hold it."""
    place, elsewhere = tmp_path / "demo", tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "kept").touch()
    with hold_place(place):
        (place / "secrets").mkdir()
        (place / "old.log").touch()
        (place / "link").symlink_to(elsewhere)
    with hold_place(place):
        assert (elsewhere / "kept").exists()
        assert [path.name for path in place.iterdir()] == ["running"]
        assert is_held(place)
        with pytest.raises(DemoRunningError, match="running already"), hold_place(place):
            pass
    assert not is_held(place)


def test_place_of_somebody_else_is_refused_in_one_line_and_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A directory with things in it that no demo left keeps them all, and gets no lock."""
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "thesis.txt").write_text("three years")
    with pytest.raises(ForeignPlaceError, match="not empty"), hold_place(tmp_path):
        pass
    monkeypatch.setattr("sys.argv", ["demo", "--directory", str(tmp_path)])
    assert demo.main() == 1
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["work"]
    assert (tmp_path / "work" / "thesis.txt").read_text() == "three years"


def test_place_that_was_never_used_is_not_held(tmp_path: Path) -> None:
    """Without a directory no demo is running."""
    assert not is_held(tmp_path / "nothing")


def _print_token(monkeypatch: pytest.MonkeyPatch, place: Path, *arguments: str) -> int:
    monkeypatch.setattr("sys.argv", ["token", "--directory", str(place), *arguments])
    return token.main()


def test_token_of_a_running_demo_is_accepted_by_its_services(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is printed is a token of that member and scope, by the rules the services verify tokens with."""
    with hold_place(tmp_path) as place:
        secret_file(place).parent.mkdir()
        secret_file(place).write_text(SECRET)
        assert _print_token(monkeypatch, place, "--member", "m-7", "--scope", "operator") == 0
        printed = capsys.readouterr().out.strip()
        principal = TokenVerifier(AuthSettings(secret_file=secret_file(place))).verify(f"Bearer {printed}".encode())
    assert (principal.subject, principal.scope) == ("m-7", "operator")


def test_token_without_a_demo_is_refused_in_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where neither a demo nor a stack runs, one sentence says so, with compose's own words."""

    def ask_compose(*_: str) -> str:
        raise NotRunningError("no such service")

    monkeypatch.setattr("sandbox.token.ask_compose", ask_compose)
    assert _print_token(monkeypatch, tmp_path) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "No token: `make demo` does not run here, and docker compose says: no such service\n"


def test_token_for_an_impossible_member_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A name that no service would accept gets no token."""
    with hold_place(tmp_path) as place:
        secret_file(place).parent.mkdir()
        secret_file(place).write_text(SECRET)
        assert _print_token(monkeypatch, place, "--member", "m 1\n") == 1
    assert capsys.readouterr().err.startswith("No such member")
