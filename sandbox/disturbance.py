"""What goes wrong in the middle of a demo, on purpose and said aloud: Salesforce fails, MongoDB steps down."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final

from patterns import Context
from sandbox.document_database import open_database
from sandbox.instance import Service
from sandbox.salesforce import Endpoint, Fault, FaultKind, SalesforceControl
from sandbox.traffic import Traffic
from sandbox.world import MongoSide, World

FAILURES: Final = (
    (
        "answers 503 and wants to be left alone for a second (Retry-After)",
        Fault(kind=FaultKind.UNAVAILABLE, endpoint=Endpoint.UPSERT, retry_after="1", calls=2),
    ),
    (
        "answers 200 but has every second record's row locked (UNABLE_TO_LOCK_ROW)",
        Fault(kind=FaultKind.RECORD, endpoint=Endpoint.UPSERT, code="UNABLE_TO_LOCK_ROW", every=2, calls=3),
    ),
    (
        "applies a call and resets the connection instead of an answer",
        Fault(kind=FaultKind.RESET, endpoint=Endpoint.UPSERT, after_apply=True, calls=2),
    ),
)
"""The three ways in which Salesforce fails, each for some calls."""

WITHOUT_PRIMARY: Final = (
    "503 dependency-unavailable",
    "503 overloaded",
    "504 deadline-exceeded",
    "409 request-in-progress",
)
"""What campaign_api may answer while its database has no primary; nothing else, and no silence."""

_FAILURE_SECONDS: Final = 20.0
_READY_SECONDS: Final = 30.0
_POLL_SECONDS: Final = 0.05


class Disturbance:
    """Disturb a platform under traffic.

    Args:
        world: the platform.
        side: its MongoDB and Salesforce.
        traffic: the members' requests, which are told what to expect.
        say: where it is said.
    """

    def __init__(self, world: World, side: MongoSide, traffic: Traffic, say: Callable[[str], None]) -> None:
        self._world = world
        self._side = side
        self._traffic = traffic
        self._say = say

    async def fail_salesforce(self, ctx: Context) -> None:
        """Let Salesforce fail in three ways, one after the other, until the context ends.

        Each lasts for some calls; where they do not come it ends after 20 s, and that is said. No fault is left
        switched on.
        """
        for how, fault in FAILURES:
            if not ctx.is_done:
                self._say(f"Salesforce {how}: {fault.calls} calls, which are made again")
                self._say(await self._fail(ctx, self._side.salesforce, fault))

    async def step_mongo_down(self) -> None:
        """Make MongoDB's one node step down by force, and return when it is the primary and campaign_api ready again.

        From before the step until after it, campaign_api may refuse a request for want of its database.

        Raises:
            TimeoutError: that takes longer than half a minute.
        """
        before = self._traffic.statistics().excused
        async with self._traffic.allowing(Service.CAMPAIGN_API, WITHOUT_PRIMARY):
            self._say(
                "MongoDB's one node steps down by force: an outage of seconds, in which campaign_api may answer 503"
            )
            began = asyncio.get_running_loop().time()
            await self._world.step_mongo_down()
            async with asyncio.timeout(_READY_SECONDS):
                await _until(self._is_primary)
                seconds = asyncio.get_running_loop().time() - began
                await _until(self._are_ready)
        excused = self._traffic.statistics().excused - before
        self._say(f"MongoDB is the primary again after {seconds:.1f} s; {excused} requests for campaigns were refused")

    async def _fail(self, ctx: Context, salesforce: SalesforceControl, fault: Fault) -> str:
        """Switch a fault on and wait until it has had its calls; return what to say of it."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        number = await salesforce.switch_on(fault)
        with suppress(TimeoutError):
            async with asyncio.timeout(_FAILURE_SECONDS):
                await _until(lambda: _is_over(ctx, salesforce, number))
        met_all_calls = number not in await salesforce.faults()
        await salesforce.clear()
        seconds = loop.time() - began
        if met_all_calls:
            return f"Salesforce serves again after {seconds:.1f} s"
        return f"Salesforce got fewer than {fault.calls} calls in {seconds:.1f} s; the fault is off"

    async def _is_primary(self) -> bool:
        async with open_database(
            self._side.reader_url, self._side.consents, timeout_seconds=_READY_SECONDS
        ) as consents:
            return bool((await consents.command("hello"))["isWritablePrimary"])

    async def _are_ready(self) -> bool:
        waiting = [instance for instance in self._world.instances if instance.service.needs_mongo]
        return all(await asyncio.gather(*(instance.is_ready() for instance in waiting)))


async def _is_over(ctx: Context, salesforce: SalesforceControl, number: int) -> bool:
    return ctx.is_done or number not in await salesforce.faults()


async def _until(is_so: Callable[[], Awaitable[bool]]) -> None:
    while True:
        if await is_so():
            return
        await asyncio.sleep(_POLL_SECONDS)
