"""Members of coupon_consumer's group that come and go while events flow in."""

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack
from typing import Self

from sandbox.probe import ProbeFailed
from tests.support.coupon_consumer_process import CouponConsumerProcess
from tests.support.coupon_consumer_world import World
from tests.support.coupon_events import some_event
from tests.support.eventually import eventually
from tests.support.judgement import Judgement, judge_time

PARTITIONS = 6
REVOKE_SECONDS = 6.0
"""A fifth of the poll interval of these members, which is 30 s."""

_PIECE = 100
_PAUSE_SECONDS = 0.25
_STOP_SECONDS = 30


@contextlib.asynccontextmanager
async def steady_events(world: World) -> AsyncIterator[None]:
    """Produce some 300 events a second, each of a coupon of its own, for the length of a block."""
    is_over = asyncio.Event()

    async def produce() -> None:
        while not is_over.is_set():
            await world.produce([some_event() for _ in range(_PIECE)])
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(is_over.wait(), _PAUSE_SECONDS)

    producing = asyncio.create_task(produce())
    try:
        yield
    finally:
        is_over.set()
        await producing


async def owned(member: CouponConsumerProcess) -> int:
    """Return how many partitions a member owns; a member that does not answer yet owns none."""
    try:
        metrics = await member.metrics()
    except ProbeFailed:
        return 0
    return round(metrics.get('lp_kafka_ledger_owned{name="default"}', 0))


async def assert_no_event_came_twice(member: CouponConsumerProcess) -> None:
    """Where each coupon has one event, a member skips none: it would be one that was stored before."""
    metrics = await member.metrics()
    for outcome in ("skipped", "dead_lettered"):
        assert metrics[f'lp_consumer_records_total{{outcome="{outcome}"}}'] == 0


def judge_revokes(members: Iterable[CouponConsumerProcess]) -> tuple[Judgement, float]:
    """Look how long the members waited in their revoke handlers (L7); also return the longest wait."""
    lines = [line for member in members for line in member.log() if line["event"] == "Partitions revoked"]
    longest = max((float(line["waited_seconds"]) for line in lines), default=0.0)
    return judge_time("giving partitions up", longest, at_most=REVOKE_SECONDS), longest


class ConsumerGroup:
    """The members that run; whoever is left is stopped on leaving the group's context.

    Attributes:
        members: who is in the group, those that came first in front.
        everyone: also those who left or died.

    Args:
        settings: variables of every member, without their prefix.
        is_static: whether a member gets an id of its own, which the next that joins takes over when it has left.
    """

    def __init__(self, world: World, *, is_static: bool = False, **settings: str) -> None:
        self.members: list[CouponConsumerProcess] = []
        self.everyone: list[CouponConsumerProcess] = []
        self._world = world
        self._settings = settings
        self._ids = [f"member-{number}" for number in range(9)] if is_static else []
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def join(self) -> CouponConsumerProcess:
        """Start one more member, and do not wait for its partitions."""
        settings = self._settings
        if self._ids:
            settings = {**settings, "CONSUMER__GROUP_INSTANCE_ID": self._ids.pop(0)}
        member = await self._stack.enter_async_context(self._world.consumer(**settings))
        self.members.append(member)
        self.everyone.append(member)
        return member

    async def leave(self) -> None:
        """Stop the member that is there longest, wherever it stands; it must end in order."""
        member = self._forget_oldest()
        await member.wait_event("Kafka consumer started")
        await assert_no_event_came_twice(member)
        member.process.send_signal(signal.SIGTERM)
        assert await member.process.wait(_STOP_SECONDS) == 0

    async def die(self) -> None:
        """Kill the member that is there longest."""
        await self._forget_oldest().process.kill()

    async def wait_whole(self, *, seconds: float = 60) -> None:
        """Wait until the members own all partitions, each at least one, and nobody anything twice."""

        async def is_whole() -> bool:
            shares = [await owned(member) for member in self.members]
            return sum(shares) == PARTITIONS and min(shares) > 0

        await eventually(is_whole, seconds=seconds, pause_seconds=0.2)

    def _forget_oldest(self) -> CouponConsumerProcess:
        member = self.members.pop(0)
        if self._ids:
            self._ids.insert(0, member.variables["CONSUMER__GROUP_INSTANCE_ID"])
        return member
