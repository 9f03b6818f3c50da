"""Servers end with whoever started them, however that one ends."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from sandbox.servers import KeptProcess, Program, ServerError, keeper, start_process
from tests.support.eventually import eventually

ROOT = Path(__file__).parents[3]
_WAIT_SECONDS = 30.0


@dataclass(frozen=True)
class _Started:
    """A starter, and what it started."""

    starter: "subprocess.Popen[bytes]"
    pids: list[int]
    directories: list[Path]


def _start(behaviour: str) -> _Started:
    starter = subprocess.Popen(
        [sys.executable, "-m", "tests.support.starter", behaviour],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    assert starter.stdout is not None
    with starter.stdout as stream:
        report = json.loads(stream.readline())
    backends = [child for pid in report["pids"] for child in keeper.descendants(pid)]
    assert backends, "PostgreSQL has processes of its own, which must end too"
    keepers = keeper.descendants(starter.pid)[:2]
    return _Started(starter, [*report["pids"], *backends, *keepers], [Path(path) for path in report["directories"]])


def _is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def _await_end(started: _Started) -> None:
    """Wait until every process and directory is gone; fail with the rest when that takes too long."""
    give_up_at = time.monotonic() + _WAIT_SECONDS
    while left := [f"process {pid}" for pid in started.pids if _is_alive(pid)] + [
        str(directory) for directory in started.directories if directory.exists()
    ]:
        assert time.monotonic() < give_up_at, f"left behind: {left}"
        time.sleep(0.02)


linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


@linux
@pytest.mark.parametrize("behaviour", ["wait", "freeze"])
def test_starter_killed_leaves_nothing_behind(behaviour: str) -> None:
    """After kill -9 of the starter no server, backend, keeper or directory is left, even of frozen servers."""
    started = _start(behaviour)
    started.starter.send_signal(signal.SIGKILL)
    assert started.starter.wait(_WAIT_SECONDS) == -signal.SIGKILL
    _await_end(started)


@linux
def test_starter_interrupted_stops_servers_in_order() -> None:
    """A Ctrl-C on the starter's whole process group ends everything before the starter itself has ended."""
    started = _start("wait")
    os.killpg(started.starter.pid, signal.SIGINT)
    started.starter.wait(_WAIT_SECONDS)
    assert not [pid for pid in started.pids if _is_alive(pid)]
    _await_end(started)


@linux
def test_starter_terminated_leaves_nothing_behind() -> None:
    """A SIGTERM, which the starter does not handle, ends everything too."""
    started = _start("wait")
    started.starter.terminate()
    started.starter.wait(_WAIT_SECONDS)
    _await_end(started)


@linux
def test_starter_failing_leaves_nothing_behind() -> None:
    """An exception in the starter ends everything on its way out."""
    started = _start("fail")
    assert started.starter.wait(_WAIT_SECONDS) == 1
    _await_end(started)


async def _sleeper(tmp_path: Path, script: str, **options: float) -> KeptProcess:
    return await start_process(
        Program(
            name="sleeper",
            command=[sys.executable, "-c", script],
            log=tmp_path / "sleeper.log",
            directory=tmp_path,
            **options,  # type: ignore[arg-type]  # only grace_seconds is given here
        )
    )


@linux
async def test_keeper_killed_takes_its_program_along(tmp_path: Path) -> None:
    """A program does not outlive a kill -9 of its keeper."""
    process = await _sleeper(tmp_path, "import time; time.sleep(600)")
    os.kill(process.keeper_pid, signal.SIGKILL)
    try:
        assert await process.wait(_WAIT_SECONDS) != 0
        await eventually(lambda: not _is_alive(process.pid), seconds=_WAIT_SECONDS)
    finally:
        process.release()


async def test_stop_kills_a_program_that_does_not_listen(tmp_path: Path) -> None:
    """A program that ignores its stop signal is killed when its grace is over, with the child it had."""
    script = (
        "import signal, subprocess, sys, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        "print(child.pid, flush=True)\n"
        "time.sleep(600)\n"
    )
    process = await _sleeper(tmp_path, script)
    try:
        await eventually(lambda: process.log.read_text().endswith("\n"), seconds=_WAIT_SECONDS)
        assert await process.stop(grace_seconds=0.1) == 128 + signal.SIGKILL
        assert not _is_alive(int(process.log.read_text()))
    finally:
        process.release()


@pytest.mark.parametrize(("script", "status"), [("raise SystemExit(7)", 7), ("pass", 0)])
async def test_program_that_ends_reports_its_own_status(tmp_path: Path, script: str, status: int) -> None:
    """The exit status that is seen is the program's."""
    process = await _sleeper(tmp_path, script)
    try:
        assert await process.wait(_WAIT_SECONDS) == status
        with pytest.raises(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
    finally:
        process.release()


async def test_program_that_ends_at_once_is_noticed_every_time(tmp_path: Path) -> None:
    """However soon a program ends, its keeper ends too and reports its status."""
    for _ in range(20):
        process = await start_process(
            Program(name="false", command=["/bin/false"], log=tmp_path / "log", directory=tmp_path)
        )
        try:
            assert await process.wait(_WAIT_SECONDS) == 1
        finally:
            process.release()


async def test_program_that_does_not_exist_is_an_error(tmp_path: Path) -> None:
    """A command that cannot be executed is reported by the start, not later."""
    with pytest.raises(ServerError, match="did not start"):
        await start_process(Program(name="nothing", command=["/nonexistent"], log=tmp_path / "log", directory=tmp_path))


LISTED = """
import os, subprocess
from sandbox.servers import keeper
keeper._LINUX = False
child = subprocess.Popen(["/bin/sleep", "60"])
found = keeper.descendants(os.getpid())
child.kill()
assert found == [child.pid], (found, child.pid)
"""


@linux
def test_descendants_are_found_without_proc_too() -> None:
    """Where processes are listed by `ps`, that one is no descendant: a keeper would wait for ever for its end."""
    done = subprocess.run([sys.executable, "-c", LISTED], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
