"""The audit asks about every locked package, names what is known, and never calls silence a good answer."""

import json
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from deploy.dependency_audit import locked_packages, main

LOCK = """# made by a tool
alpha==1.2 \\
    --hash=sha256:00
beta-x==2.0.1 ; python_version < "3.12" \\
    --hash=sha256:11
"""


@pytest.fixture
def lock(tmp_path: Path) -> str:
    """The path of a lock of two packages."""
    file = tmp_path / "lock.txt"
    file.write_text(LOCK)
    return str(file)


def _answering(answer: Callable[[httpx.Request], httpx.Response]) -> httpx.MockTransport:
    return httpx.MockTransport(answer)


def test_every_package_of_all_locks_is_asked_for_once() -> None:
    """Pins are read with and without a marker, and the same one in two locks is one."""
    assert locked_packages([LOCK, LOCK, "gamma==3\n"]) == [("alpha", "1.2"), ("beta-x", "2.0.1"), ("gamma", "3")]


def test_known_weakness_is_named_and_fails(lock: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Package, version and id are told, and the status is 1."""
    asked: list[object] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(json.loads(request.content))
        return httpx.Response(200, json={"results": [{}, {"vulns": [{"id": "PYSEC-1"}, {"id": "GHSA-2"}]}]})

    assert main([lock], _answering(answer)) == 1
    queries = [
        {"package": {"name": "alpha", "ecosystem": "PyPI"}, "version": "1.2"},
        {"package": {"name": "beta-x", "ecosystem": "PyPI"}, "version": "2.0.1"},
    ]
    assert asked == [{"queries": queries}]
    assert capsys.readouterr().err == "known weakness: beta-x 2.0.1: PYSEC-1\nknown weakness: beta-x 2.0.1: GHSA-2\n"


def test_no_known_weakness_is_told_with_what_was_asked(lock: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The status is 0, and the line says about how many packages."""
    assert main([lock], _answering(lambda _: httpx.Response(200, json={"results": [{}, {}]}))) == 0
    assert capsys.readouterr().out == "dependency audit: 2 packages, 0 known weaknesses\n"


def test_without_a_network_it_says_that_it_was_skipped(lock: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The status is 0, for a machine without a network is no fault, and the line cannot be taken for a good answer."""

    def fail(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("no such name", request=request)

    assert main([lock], _answering(fail)) == 0
    assert "SKIPPED" in capsys.readouterr().out


@pytest.mark.parametrize(
    "answer",
    [
        httpx.Response(500),
        httpx.Response(200, text="<html>"),
        httpx.Response(200, json=[]),
        httpx.Response(200, json={"results": None}),
        httpx.Response(200, json={"results": [{}]}),
    ],
)
def test_answer_that_says_nothing_is_no_good_answer(
    lock: str, answer: httpx.Response, capsys: pytest.CaptureFixture[str]
) -> None:
    """An error, a page, or fewer answers than questions end with 1 and say so."""
    assert main([lock], _answering(lambda _: answer)) == 1
    assert "no answer to use" in capsys.readouterr().err


def test_paths_without_a_package_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing to ask is a mistake of whoever called, not a clean audit."""
    (tmp_path / "empty.txt").write_text("# nothing\n")
    assert main([str(tmp_path / "empty.txt")]) == 64
    assert "usage" in capsys.readouterr().err
