"""One running instance of a service: where it answers, and how it is stopped."""

import asyncio
import math
import signal
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass
from enum import StrEnum
from http import HTTPStatus
from typing import Final

from sandbox.probe import ProbeFailed, probe
from sandbox.servers import KeptProcess, ServerError

_POLL_SECONDS = 0.05
_OWNED = "lp_kafka_ledger_owned"


class Service(StrEnum):
    """The services, by the name of their package."""

    REWARD_STORE = "reward_store"
    COUPON_API = "coupon_api"
    COUPON_CONSUMER = "coupon_consumer"
    CAMPAIGN_API = "campaign_api"
    CONSENT_CONSUMER = "consent_consumer"

    @property
    def serves_members(self) -> bool:
        """Whether members send it requests; the others only consume."""
        return self not in (Service.COUPON_CONSUMER, Service.CONSENT_CONSUMER)

    @property
    def needs_mongo(self) -> bool:
        """Whether what it keeps is in MongoDB."""
        return self in (Service.CAMPAIGN_API, Service.CONSENT_CONSUMER)


COUPON_FLOW: Final = tuple(service for service in Service if not service.needs_mongo)
"""The services through which a redemption becomes a coupon: they need neither MongoDB nor Salesforce."""


@dataclass(frozen=True, slots=True)
class Stopped:
    """How one instance ended."""

    name: str
    status: int


@dataclass(frozen=True, slots=True)
class Endpoint:
    """The addresses that an instance of a service answers on.

    Attributes:
        name: the service and what tells this instance from the others.
        service: which service it is one of.
        base_url: where members reach it; None for one that serves nobody.
        admin_url: where it tells about its health and its metrics.
    """

    name: str
    service: Service
    base_url: str | None
    admin_url: str

    async def is_ready(self) -> bool:
        """Ask its readiness; one that does not answer within a second is not ready."""
        try:
            status, _ = await probe(f"{self.admin_url}/readyz")
        except ProbeFailed:
            return False
        return status == HTTPStatus.OK

    async def has_work(self) -> bool:
        """Ask whether it has been given something to do: a consumer is ready before its group has let it in."""
        return self.service is not Service.COUPON_CONSUMER or bool(await self.total(_OWNED))

    async def total(self, metric: str) -> float | None:
        """Return a metric's value, summed over its labels; None when it is unknown or the instance does not answer."""
        try:
            _, text = await probe(f"{self.admin_url}/metrics")
        except ProbeFailed:
            return None
        lines = (line for line in text.splitlines() if line.startswith((f"{metric} ", f"{metric}{{")))
        values = [float(line.rpartition(" ")[2]) for line in lines]
        known = [value for value in values if not math.isnan(value)]
        return sum(known) if known else None


@dataclass(frozen=True, slots=True)
class Instance(Endpoint, ABC):
    """An endpoint that was started here and can be stopped."""

    async def wait_until_ready(self, timeout_seconds: float) -> None:
        """Wait until it says that it is ready and, if it is a consumer, until it has been given partitions.

        A consumer is ready before its group has let it in. The embedded broker never recovers a group whose leader
        leaves while another member joins, so the old instance must not be stopped before the new one reads.

        Raises:
            ServerError: it ended, or was not ready in time; the message names its log.
        """
        give_up_at = time.monotonic() + timeout_seconds
        while not (await self.is_ready() and await self.has_work()):
            status = await self.status()
            if status is not None:
                raise ServerError(f"{self.name} ended with status {status} while starting; see {self.log}")
            if time.monotonic() >= give_up_at:
                raise ServerError(f"{self.name} is not ready after {timeout_seconds:g} s; see {self.log}")
            await asyncio.sleep(_POLL_SECONDS)

    @property
    @abstractmethod
    def log(self) -> str:
        """Where its log is to be found."""

    @abstractmethod
    async def status(self) -> int | None:
        """Return the status it ended with; None while it runs."""

    @abstractmethod
    async def stop(self, grace_seconds: float) -> int:
        """Send SIGTERM, wait for its end, and return its status; one that takes longer is killed (status 137)."""

    @abstractmethod
    async def kill(self) -> None:
        """Kill it as the kernel would, and wait for its end."""


@dataclass(frozen=True, slots=True)
class ProcessInstance(Instance):
    """An instance that is a process of this machine; `process` is the operating system's side of it."""

    process: KeptProcess

    @property
    def log(self) -> str:
        """The path of its log file."""
        return str(self.process.log)

    async def status(self) -> int | None:
        """Return the status it ended with; None while it runs."""
        return None if self.process.is_running else await self.process.wait(0)

    async def stop(self, grace_seconds: float) -> int:
        """Send SIGTERM, wait for its end, and return its status; one that takes longer is killed (status 137)."""
        status = await self.process.stop(signal.SIGTERM, grace_seconds=grace_seconds)
        self.process.release()
        return status

    async def kill(self) -> None:
        """Kill it as the kernel would, and wait for its end."""
        await self.process.kill()
        self.process.release()
