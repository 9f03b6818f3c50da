"""What is missing is named in one sentence, and no docker command outlives its limit; a script stands for docker."""

import asyncio
import os
import sys
from pathlib import Path

import pytest

from sandbox.docker import DockerError, docker, require_engine
from tests.support.eventually import eventually

ROOT = Path(__file__).parents[3]


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty file that stands first where commands are looked for, as `docker`."""
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    path = tmp_path / "docker"
    path.touch(mode=0o755)
    return path


def _write(script: Path, text: str) -> None:
    script.write_text(text)


def _is_gone(pid: Path) -> bool:
    return not Path(f"/proc/{pid.read_text().strip()}").exists()


async def test_no_docker_command_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where Docker is not installed the sentence says so."""
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DockerError, match="no docker command here"):
        await require_engine()


async def test_no_engine_is_named_with_its_own_words(script: Path) -> None:
    """Where no engine answers the sentence says so, and what docker said."""
    _write(script, "#!/bin/sh\necho 'Cannot connect to the daemon' >&2\nexit 1\n")
    with pytest.raises(DockerError, match=r"no Docker engine answers.*Cannot connect to the daemon"):
        await require_engine()


async def test_missing_compose_plugin_is_named(script: Path) -> None:
    """Where only the plugin is missing the sentence names it."""
    _write(script, "#!/bin/sh\nif [ $1 = compose ]; then echo 'unknown command' >&2; exit 1; fi\n")
    with pytest.raises(DockerError, match="compose plugin of docker is missing"):
        await require_engine()


@pytest.mark.parametrize("end", ["exec sleep 60", "sh -c 'echo $$ > {pid}; exec sleep 60'; exit"])
async def test_command_beyond_its_limit_is_killed(script: Path, end: str) -> None:
    """It ends with an error, and its process is gone, or that of its plugin, which holds on to the pipes."""
    pid = script.with_name("pid")
    _write(script, f"#!/bin/sh\necho $$ > {pid}\n{end.format(pid=pid)}\n")
    with pytest.raises(DockerError, match="took longer than 2 s"):
        await docker("ps", timeout_seconds=2)
    await eventually(lambda: _is_gone(pid))  # the plugin is no child of ours: somebody else collects it


async def test_cancelled_command_is_killed(script: Path) -> None:
    """A cancel is not held up by a command that hangs."""
    pid = script.with_name("pid")
    _write(script, f"#!/bin/sh\necho $$ > {pid}\nexec sleep 60\n")
    task = asyncio.create_task(docker("ps"))
    await eventually(lambda: pid.exists() and pid.read_text().endswith("\n"))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert _is_gone(pid)


async def test_demo_without_an_engine_ends_with_one_sentence(script: Path) -> None:
    """`python -m sandbox.demo_compose` prints no traceback where Docker does not work."""
    _write(script, "#!/bin/sh\nexit 1\n")
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "sandbox.demo_compose", "--directory", str(script.parent / "demo")),
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    output, errors = await asyncio.wait_for(process.communicate(), 50)
    assert process.returncode == 1
    assert output == b""
    (line,) = errors.decode().splitlines()
    assert line.startswith("the demo ended without an audit: no Docker engine answers")
