"""`make etl`: which load it becomes, and what it says where there is nothing to load into."""

import json
import sys
from pathlib import Path

import pytest

from sandbox.etl import ENVIRONMENT, find_load, main
from sandbox.links import NotRunningError
from sandbox.place import hold_place


def _stack(monkeypatch: pytest.MonkeyPatch, answer: str | None) -> None:
    """Let compose list the containers, or fail."""

    def ask_compose(*_: str) -> str:
        if answer is None:
            raise NotRunningError("no such service")
        return answer

    monkeypatch.setattr("sandbox.etl.ask_compose", ask_compose)


def test_demo_that_runs_is_loaded_into_by_a_process_with_its_variables(tmp_path: Path) -> None:
    """The command is the ETL's own, the options stand before the files, and the rejects go to the demo's directory."""
    with hold_place(tmp_path) as place:
        (place / ENVIRONMENT).write_text(json.dumps({"ETL_POSTGRES__PORT": "1"}))
        command, variables = find_load(place, ["a.csv", "-"], ["--workers", "4"])
    own = ["--rejects-directory", str(tmp_path / "rejects")]
    assert command == [sys.executable, "-m", "etl", "load", *own, "--workers", "4", "--", "a.csv", "-"]
    assert variables == {"ETL_POSTGRES__PORT": "1"}


def test_demo_that_starts_is_to_be_waited_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As long as its database is not there, one sentence says so."""
    with hold_place(tmp_path) as place:
        assert main(["a.csv", "--"], place) == 1
    assert "is starting: try again" in capsys.readouterr().err


def test_stack_that_runs_is_loaded_into_by_a_container_that_sees_the_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its command knows the files by their places below the one directory that holds them all."""
    _stack(monkeypatch, "4a5b6c\n")
    files = [str(tmp_path / "new" / "a.csv"), str(tmp_path / "b.csv.gz"), "-"]
    command, variables = find_load(tmp_path, files, ["--dry-run"])
    assert command[:2] == ["docker", "compose"]
    assert command[-7:] == ["etl", "load", "--dry-run", "--", "/data/new/a.csv", "/data/b.csv.gz", "-"]
    assert variables == {"ETL_FILES": str(tmp_path)}


def test_container_sees_what_a_link_or_a_way_up_leads_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither would lead anywhere inside it."""
    _stack(monkeypatch, "4a5b6c\n")
    for directory in ("here", "there"):
        (tmp_path / directory).mkdir()
        (tmp_path / directory / "a.csv").touch()
    (tmp_path / "here" / "today.csv").symlink_to("../there/a.csv")
    monkeypatch.chdir(tmp_path / "here")
    command, variables = find_load(tmp_path, ["today.csv", "../here/a.csv"], [])
    assert command[-2:] == ["/data/there/a.csv", "/data/here/a.csv"]
    assert variables == {"ETL_FILES": str(tmp_path)}


@pytest.mark.parametrize("answer", ["", None], ids=["no container", "no engine"])
def test_where_nothing_runs_it_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], answer: str | None
) -> None:
    """Status 1, and both ways to begin."""
    _stack(monkeypatch, answer)
    assert main(["a.csv", "--"], tmp_path) == 1
    said = capsys.readouterr().err
    assert "`make demo` or `docker compose up --build --wait`" in said


def test_without_a_file_it_says_how_to_name_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`make etl` alone is a wrong command line."""
    assert main(["--"], tmp_path) == 2
    assert "make etl FILE=" in capsys.readouterr().err
