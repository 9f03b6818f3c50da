"""How a demo ends when a server fails it: in one line, with status 1."""

import asyncio
from pathlib import Path

import asyncpg
import httpx
import pytest
from pymongo.errors import ServerSelectionTimeoutError

from patterns import ErrorGroup
from sandbox.demo import run_command
from sandbox.salesforce import ControlError

FAILURES = [
    TimeoutError(),
    ConnectionRefusedError("nobody listens"),
    ServerSelectionTimeoutError("no primary"),
    httpx.ConnectError("nobody listens"),
    asyncpg.ConnectionDoesNotExistError("gone"),
    asyncpg.InterfaceError("the connection is closed"),
    ControlError("answered 500"),
]


def _end_by(error: Exception, place: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    """Let an error end a demo from where a disturbance meets it: inside of two groups, beside the traffic."""

    async def run(_: Path, __: float | None, ___: float) -> int:
        async with ErrorGroup() as watchers:
            await watchers.go(asyncio.sleep, 3_600)
            async with ErrorGroup() as work:
                await work.go(asyncio.sleep, 3_600)
                await work.go(fail)
        return 0

    async def fail() -> None:
        raise error

    monkeypatch.setattr("sys.argv", ["demo"])
    return run_command("A demo.", run, rate=1.0, place=place)


@pytest.mark.parametrize("error", FAILURES, ids=lambda error: type(error).__name__)
def test_what_a_server_raises_is_told_in_one_line(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The line names the error, which may say nothing else."""
    assert _end_by(error, tmp_path / "demo", monkeypatch) == 1
    told = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    assert capsys.readouterr().err == f"the demo ended without an audit: {told}\n"


def test_a_mistake_of_the_program_keeps_its_trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever mends it needs to see where it came from."""
    with pytest.raises(ValueError, match="ours"):
        _end_by(ValueError("ours"), tmp_path / "demo", monkeypatch)
