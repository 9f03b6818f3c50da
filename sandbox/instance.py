"""One running process of a service."""

import asyncio
import math
import signal
import time
from dataclasses import dataclass
from enum import StrEnum
from http import HTTPStatus

from sandbox.probe import ProbeFailed, probe
from sandbox.servers import KeptProcess, ServerError

_POLL_SECONDS = 0.05
_OWNED = "lp_kafka_ledger_owned"


class Service(StrEnum):
    """The services, by the name of their package."""

    REWARD_STORE = "reward_store"
    COUPON_API = "coupon_api"
    COUPON_CONSUMER = "coupon_consumer"


@dataclass(frozen=True, slots=True)
class Instance:
    """A process of a service, with the addresses it answers on.

    Attributes:
        name: the service and a number, as its log lines have it.
        service: which service it is one of.
        process: the operating system's side of it.
        base_url: where members reach it; None for one that serves nobody.
        admin_url: where it tells about its health and its metrics.
    """

    name: str
    service: Service
    process: KeptProcess
    base_url: str | None
    admin_url: str

    async def is_ready(self) -> bool:
        """Ask its readiness; one that does not answer within a second is not ready."""
        try:
            status, _ = await probe(f"{self.admin_url}/readyz")
        except ProbeFailed:
            return False
        return status == HTTPStatus.OK

    async def wait_until_ready(self, timeout_seconds: float) -> None:
        """Wait until it says that it is ready and, if it is a consumer, until it has been given partitions.

        A consumer is ready before its group has let it in. The embedded broker never recovers a group whose leader
        leaves while another member joins, so the old instance must not be stopped before the new one reads.

        Raises:
            ServerError: it ended, or was not ready in time; the message names its log.
        """
        give_up_at = time.monotonic() + timeout_seconds
        while not (await self.is_ready() and await self._has_work()):
            if not self.process.is_running:
                status = await self.process.wait(0)
                raise ServerError(f"{self.name} ended with status {status} while starting; see {self.process.log}")
            if time.monotonic() >= give_up_at:
                raise ServerError(f"{self.name} is not ready after {timeout_seconds:g} s; see {self.process.log}")
            await asyncio.sleep(_POLL_SECONDS)

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

    async def _has_work(self) -> bool:
        return self.service is not Service.COUPON_CONSUMER or bool(await self.total(_OWNED))

    async def stop(self, grace_seconds: float) -> int:
        """Send SIGTERM, wait for its end, and return its status; one that takes longer is killed (status 137)."""
        return await self.process.stop(signal.SIGTERM, grace_seconds=grace_seconds)
