"""A consumer at work between real documents and a Salesforce in this process, which is about to misbehave."""

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from sandbox.salesforce import Fault, FaultKind, Salesforce
from sandbox.servers import MongoServer
from services.consent_consumer.record import MASTER_OBJECT
from services.consent_consumer.store import DEAD_LETTERS
from tests.support.consent_consumer_process import ConsentWorld
from tests.support.consent_judge import finish_consents, wait_carried
from tests.support.consent_members import ConsentMembers
from tests.support.consent_world import PATIENT, open_consents
from tests.support.eventually import eventually
from tests.support.judgement import Judgement
from tests.support.service_process import ServiceProcess

_WAIT_SECONDS: Final = 60.0


class Injected:
    """A fault that was switched on."""

    def __init__(self, salesforce: Salesforce, fault: Fault) -> None:
        self._faults = salesforce.faults
        self._number = salesforce.faults.switch_on(fault)
        self._calls = fault.calls

    @property
    def hits(self) -> int:
        """In how many calls it took effect; all that it was for when it has gone by itself."""
        return next((one.hits for one in self._faults if one.id == self._number), self._calls or 0)

    async def wait_hits(self, hits: int) -> None:
        """Wait until it took effect so often."""
        await eventually(lambda: self.hits >= hits, seconds=_WAIT_SECONDS)

    async def wait_over(self) -> None:
        """Wait until it has had all its calls."""
        await self.wait_hits(self._calls or 0)

    def end(self) -> None:
        """Switch it off."""
        self._faults.switch_off(self._number)


@dataclass(frozen=True, slots=True)
class SalesforceScene:
    """The world, its members, and a way to start consumers that know it."""

    world: ConsentWorld
    members: ConsentMembers

    @property
    def salesforce(self) -> Salesforce:
        """The sandbox."""
        return self.world.salesforce

    def inject(self, kind: FaultKind, **parameters: Any) -> Injected:  # noqa: ANN401 - a fault's, of several types
        """Switch a fault on."""
        return Injected(self.salesforce, Fault(kind=kind, **parameters))

    @asynccontextmanager
    async def consumer(self, *, without: str | None = None, **settings: str) -> AsyncIterator[ServiceProcess]:
        """Start a consumer, perhaps without a guard, and wait until both streams have begun."""
        async with self.world.consumer(without=without, **PATIENT, **settings) as consumer:
            await consumer.wait_event("Change stream started", count=2)
            yield consumer

    async def carry(self, writes: int = 20) -> None:
        """Write, and wait until all that was written so far has arrived or is dead."""
        await self.members.act_times(writes)
        await wait_carried(self.world, self.members)

    async def while_a_call_is_late(
        self, first: Callable[[], Awaitable[object]], then: Callable[[], Awaitable[object]], *, seconds: float = 4.0
    ) -> None:
        """Do one thing whose call about consents Salesforce then holds back, and another one before it is served.

        On a machine so slow that the call is served first, both are done again with a longer delay.
        """
        while True:
            began = time.monotonic()
            late = self.inject(FaultKind.SLOW, object_type=MASTER_OBJECT, seconds=seconds, calls=1)
            await first()
            await late.wait_over()
            await then()
            if time.monotonic() - began < seconds:
                return
            seconds *= 4

    async def letters(self) -> dict[str, str]:
        """Return the class of each dead letter by its document's id, as text."""
        found = self.world.database.collection(DEAD_LETTERS).find()
        return {str(one["event"]["documentKey"]["_id"]): one["error_class"] async for one in found}

    async def finish(self, consumer: ServiceProcess) -> Judgement:
        """Wait until all has arrived, stop the consumer, and judge its end and all that it did (L1 to L5, L7, L8)."""
        return await finish_consents(self.world, self.members, consumer)


@asynccontextmanager
async def open_salesforce_scene(mongo: MongoServer, directory: Path) -> AsyncIterator[SalesforceScene]:
    """Open an empty world on a server that is not to be hurt."""
    async with open_consents((mongo,), directory) as (world, members):
        yield SalesforceScene(world, members)
