"""Run `docker` commands, each with a limit in time."""

import asyncio
import json
import os
import signal
from collections.abc import Mapping
from typing import Any

from sandbox.servers import ServerError

_COMMAND_SECONDS = 60.0
_SHOWN_LINES = 5


class DockerError(ServerError):
    """A docker command failed, or there is no engine to run it; the message is one sentence."""


async def docker(
    *arguments: str, timeout_seconds: float = _COMMAND_SECONDS, environment: Mapping[str, str] | None = None
) -> str:
    """Run a docker command and return what it printed.

    It runs in a session of its own, so a Ctrl-C on the terminal reaches this process and not the command. A cancelled
    one is killed; what the engine was told already it may still do.

    Args:
        arguments: what follows the word `docker`.
        timeout_seconds: how long it may take.
        environment: variables on top of this process's own.

    Raises:
        DockerError: there is no docker command, it failed, or it took too long.
    """
    words = " ".join(argument for argument in arguments if not argument.startswith("-"))[:80]
    try:
        process = await asyncio.create_subprocess_exec(
            "docker",
            *arguments,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=dict(os.environ) | dict(environment or {}),
            start_new_session=True,
        )
    except OSError as error:
        raise DockerError(f"there is no docker command here ({error.strerror}): Docker is needed") from error
    try:
        async with asyncio.timeout(timeout_seconds):
            output, errors = await process.communicate()
    except TimeoutError:
        raise DockerError(f"docker {words} took longer than {timeout_seconds:g} s") from None
    finally:
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)  # plugins too: each is a process of its own and keeps the pipes open
            await process.wait()
    if process.returncode:
        last = " / ".join(errors.decode(errors="replace").strip().splitlines()[-_SHOWN_LINES:])
        raise DockerError(f"docker {words} ended with status {process.returncode}: {last}")
    return output.decode()


async def inspect(*ids: str) -> list[dict[str, Any]]:  # Any: JSON
    """Return what the engine knows of containers; of one that is gone, DockerError."""
    if not ids:
        return []
    found: list[dict[str, Any]] = json.loads(await docker("inspect", "--type", "container", *ids))
    return found


async def require_engine() -> None:
    """Find out whether an engine answers and compose is there.

    Raises:
        DockerError: it names what is missing.
    """
    try:
        await docker("info", "--format", "{{.ServerVersion}}", timeout_seconds=20)
    except DockerError as error:
        if "no docker command" in str(error):
            raise
        raise DockerError(f"no Docker engine answers: start one ({error})") from error
    try:
        await docker("compose", "version", timeout_seconds=20)
    except DockerError as error:
        raise DockerError(f"the compose plugin of docker is missing: install it ({error})") from error
