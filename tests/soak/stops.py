"""Many orderly stops under load: instances of all services are replaced, each service's one after the other."""

import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final

from patterns import ErrorGroup
from sandbox.instance import Service
from sandbox.servers import ServerError
from sandbox.system import System
from tests.support.busy_clients import BusyClients
from tests.support.flow import Flow
from tests.support.judgement import Judgement, judge_time

STOP_SECONDS: Final = 30.0
_TOLD_EVERY: Final = 10


class Stops:
    """Rolling restarts, one service beside the other, so that at any time up to three instances start or stop.

    Args:
        flow: the platform with its traffic.
        clients: more members, who keep their connections busy.
        say: told how far it is.
    """

    def __init__(self, flow: Flow[System], clients: Sequence[BusyClients], say: Callable[[str], None]) -> None:
        self._flow = flow
        self._clients = clients
        self._say = say
        self._begun = 0
        self._slowest_seconds = 0.0

    async def run(self, count: int) -> tuple[Judgement, str]:
        """Replace instances until so many were stopped; return their times' judgement, and what was done.

        Raises:
            ServerError: a request failed, an instance did not start, or it did not end with status 0.
        """
        async with ErrorGroup() as services:
            for service in Service:
                await services.go(self._replace, service, count)
        done = f"{len(self._flow.system.ended)} orderly stops, the slowest in {self._slowest_seconds:.1f} s"
        return judge_time("the slowest stop", self._slowest_seconds, at_most=STOP_SECONDS), done

    async def _replace(self, service: Service, count: int) -> None:
        system = self._flow.system
        while self._begun < count:
            self._begun += 1
            old = self._flow.instance(service)
            await system.start(service)
            began = time.monotonic()
            stopped = await system.stop(old)
            self._slowest_seconds = max(self._slowest_seconds, time.monotonic() - began)
            if stopped.status:
                raise ServerError(f"{stopped.name} ended with status {stopped.status}")
            self._look()

    def _look(self) -> None:
        """Say how far it is; give up at the first request that failed."""
        statistics, stops = self._flow.traffic.statistics(), len(self._flow.system.ended)
        requests = statistics.requests + sum(one.answers for one in self._clients)
        errors = sum((one.errors for one in self._clients), Counter(failed=statistics.failed))
        if failed := errors.total():
            raise ServerError(f"after {stops} stops {failed} of {requests} requests have failed: {dict(+errors)}")
        if stops % _TOLD_EVERY == 0:
            self._say(f"{stops} stops, {requests} requests, none failed")
