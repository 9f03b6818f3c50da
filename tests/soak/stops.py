"""Many orderly stops under load: instances of all services are replaced, each service's one after the other."""

from collections.abc import Callable
from typing import Final

from patterns import ErrorGroup
from sandbox.instance import Service
from sandbox.servers import ServerError
from sandbox.system import System
from tests.support.flow import Flow

_TOLD_EVERY: Final = 10


async def replace_many(flow: Flow[System], stops: int, say: Callable[[str], None]) -> str:
    """Replace instances until so many have been stopped; return in a few words what was done.

    The services go on beside each other, so at any time up to three instances start or stop.

    Raises:
        ServerError: a request failed, an instance did not start, or it did not end with status 0.
    """
    begun = 0

    async def replace(service: Service) -> None:
        nonlocal begun
        while begun < stops:
            begun += 1
            await flow.system.replace(flow.instance(service))
            statistics, ended = flow.traffic.statistics(), flow.system.ended
            if statistics.failed:
                raise ServerError(f"after {len(ended)} stops {statistics.failed} requests have failed")
            if ended[-1].status:
                raise ServerError(f"{ended[-1].name} ended with status {ended[-1].status}")
            if len(ended) % _TOLD_EVERY == 0:
                say(f"{len(ended)} stops, {statistics.requests} requests, none failed")

    async with ErrorGroup() as services:
        for service in Service:
            await services.go(replace, service)
    return f"{len(flow.system.ended)} orderly stops"
