"""Send members' requests the way a load balancer does."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import httpx


class RequestFailed(Exception):  # noqa: N818 - a fact about one request, not a fault of this program
    """No whole answer came; the request may have had its effect, or not. The message names the transport's reason."""


class Client(Protocol):
    """What a balancer sends requests with."""

    async def request(
        self,
        method: str,
        url: str,
        *,
        headers: dict[str, str],
        content: bytes | None,
        timeout: float,
    ) -> httpx.Response:
        """Send one request, once; ConnectError says that nothing was sent, any other HTTPError leaves it open."""


class Backend(Protocol):
    """What a balancer needs to know of an instance."""

    @property
    def name(self) -> str:
        """What it is called; no two have the same name."""

    @property
    def base_url(self) -> str | None:
        """Where it is reached; instances that share a listening socket have the same address."""

    async def is_ready(self) -> bool:
        """Ask whether it is ready."""


@dataclass(frozen=True, slots=True)
class BalancerStatistics:
    """What a balancer saw.

    Attributes:
        ready: how many instances are ready.
        known: how many instances there are.
        refused: how often an address refused a connection and the next one was tried.
    """

    ready: int
    known: int
    refused: int


class Balancer:
    """Know all instances of a service, follow their readiness, and spread requests over the ready ones.

    The next address is tried when a connection is *refused*, since then nothing was sent. A request that was sent is
    never sent again: whether to repeat it is for its sender, who knows its idempotency key, to decide.

    Args:
        instances: gives the instances that there are at this moment.
        client: keeps connections alive between requests.
        timeout_seconds: for the whole of one request.
    """

    def __init__(self, instances: Callable[[], Sequence[Backend]], client: Client, *, timeout_seconds: float) -> None:
        self._instances = instances
        self._client = client
        self._timeout_seconds = timeout_seconds
        self._ready: frozenset[str] = frozenset()
        self._turn = 0
        self._refused = 0

    async def watch(self, period_seconds: float = 0.25) -> None:
        """Follow the readiness of all instances until cancelled."""
        while True:
            await self.look()
            await asyncio.sleep(period_seconds)

    async def look(self) -> None:
        """Ask every instance once whether it is ready."""
        instances = list(self._instances())
        answers = await asyncio.gather(*(instance.is_ready() for instance in instances))
        self._ready = frozenset(instance.name for instance, ready in zip(instances, answers, strict=True) if ready)

    async def send(
        self, method: str, path: str, *, headers: Mapping[str, str], content: bytes | None = None
    ) -> httpx.Response:
        """Send a request to one ready instance and return its whole answer, whatever its status.

        Where no instance is known to be ready, all are tried: readiness is old news by a fraction of a second.

        Raises:
            RequestFailed: nobody accepted a connection, or no whole answer came in time.
        """
        for address in self._addresses():
            try:
                async with asyncio.timeout(self._timeout_seconds):
                    return await self._client.request(
                        method, address + path, headers=dict(headers), content=content, timeout=self._timeout_seconds
                    )
            except httpx.ConnectError:
                self._refused += 1
            except (httpx.HTTPError, TimeoutError) as error:
                raise RequestFailed(f"{type(error).__name__}: {error}".rstrip(": ")) from error
        raise RequestFailed("no instance accepts connections")

    def statistics(self) -> BalancerStatistics:
        """Return what was seen so far."""
        return BalancerStatistics(ready=len(self._ready), known=len(self._instances()), refused=self._refused)

    def _addresses(self) -> list[str]:
        """Return the addresses to try, in turn; instances that share a listening socket have one between them."""
        instances = [instance for instance in self._instances() if instance.base_url is not None]
        chosen = [instance for instance in instances if instance.name in self._ready] or instances
        addresses = list(dict.fromkeys(instance.base_url for instance in chosen if instance.base_url is not None))
        if not addresses:
            return []
        self._turn = (self._turn + 1) % len(addresses)
        return addresses[self._turn :] + addresses[: self._turn]
