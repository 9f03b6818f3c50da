"""One load of a file that was started here: what the ETL does, as a process of this machine or as a container."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Final

from sandbox.docker import docker, inspect
from sandbox.servers import KeptProcess

LOAD_SECONDS: Final = 120.0
"""How long a load may take, or may take to stop."""
LOADED_WITH_REJECTS: Final = 3
STOPPED: Final = 75
"""Statuses of a load, as docs/operations.md has them."""


@dataclass(frozen=True, slots=True)
class Load(ABC):
    """A load that was begun; `name` tells it from the others of its platform."""

    name: str

    @abstractmethod
    async def wait(self) -> int:
        """Wait for its end and return its status.

        Raises:
            TimeoutError, ServerError: it takes longer than two minutes.
        """

    @abstractmethod
    async def stop(self) -> int:
        """Send SIGTERM, wait for its end, and return its status; one that takes longer than two minutes is killed."""


@dataclass(frozen=True, slots=True)
class ProcessLoad(Load):
    """A load that is a process of this machine."""

    process: KeptProcess

    async def wait(self) -> int:
        """Wait for its end and return its status.

        Raises:
            TimeoutError: it takes longer than two minutes.
        """
        return await self.process.wait(LOAD_SECONDS)

    async def stop(self) -> int:
        """Send SIGTERM, wait for its end, and return its status; one that takes longer than two minutes is killed."""
        return await self.process.stop(grace_seconds=LOAD_SECONDS)


@dataclass(frozen=True, slots=True)
class ContainerLoad(Load):
    """A load that is a container; `container_id` is the engine's name for it."""

    container_id: str

    async def wait(self) -> int:
        """Wait for its end and return its status.

        Raises:
            DockerError: it takes longer than two minutes.
        """
        return int(await docker("wait", self.container_id, timeout_seconds=LOAD_SECONDS))

    async def stop(self) -> int:
        """Send SIGTERM, wait for its end, and return its status; one that takes longer than two minutes is killed."""
        seconds = f"{LOAD_SECONDS:.0f}"
        await docker("stop", "--time", seconds, self.container_id, timeout_seconds=2 * LOAD_SECONDS)
        (found,) = await inspect(self.container_id)
        return int(found["State"]["ExitCode"])
