"""Two streams, of which one fails: what a wait group makes of that, and what the error group of this service does."""

import asyncio
from typing import cast

import pytest

from patterns import Context, WaitGroup, background, bubble, wait_idle
from services.consent_consumer.app import run_streams
from services.consent_consumer.change_stream import CONSENT_DETAIL, CONSENT_MASTER
from services.consent_consumer.errors import LeaseLostError, PositionLostError
from services.consent_consumer.lease import Lease
from services.consent_consumer.stream import ConsentStream


class Stream:
    """A stream that works until its context ends, or until it is told to fail."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.has_to_fail = asyncio.Event()
        self.is_at_work = False

    async def run(self, ctx: Context, _: Lease) -> None:
        """Work."""
        self.is_at_work = True
        try:
            await ctx.run(self.has_to_fail.wait())
            raise PositionLostError(self.name, 286, is_history_lost=True)
        finally:
            self.is_at_work = False


def _lease() -> Lease:
    return Lease(1, asyncio.get_running_loop().time() + 3_600)


def test_a_wait_group_leaves_the_other_stream_alone_and_tells_nobody() -> None:
    """As in the original: it waits, and while it waits the process is half dead."""

    async def run() -> None:
        master, detail, lease = Stream(CONSENT_MASTER), Stream(CONSENT_DETAIL), _lease()
        group = WaitGroup()
        with background().with_cancel() as ctx:
            for stream in (master, detail):
                group.go(stream.run, ctx, lease)
            waiting = asyncio.create_task(group.wait())
            await wait_idle()
            master.has_to_fail.set()
            await asyncio.sleep(3_600)
            assert (master.is_at_work, detail.is_at_work, waiting.done()) == (False, True, False)
        with pytest.raises(ExceptionGroup):
            await waiting
        lease.close()

    bubble(run)


def test_an_error_group_takes_the_other_stream_with_it_and_tells_at_once() -> None:
    """The first error ends the other stream's context, and is the service's own."""

    async def run() -> None:
        master, detail, lease = Stream(CONSENT_MASTER), Stream(CONSENT_DETAIL), _lease()
        with background().with_cancel() as ctx:
            running = asyncio.create_task(run_streams(ctx, lease, cast("list[ConsentStream]", [master, detail])))
            await wait_idle()
            assert (master.is_at_work, detail.is_at_work) == (True, True)
            master.has_to_fail.set()
            with pytest.raises(PositionLostError, match=CONSENT_MASTER):
                await running
            assert (master.is_at_work, detail.is_at_work) == (False, False)
        lease.close()

    bubble(run)


def test_a_lost_lease_ends_both_streams() -> None:
    """Not even an idle stream outlives the lease."""

    async def run() -> None:
        master, detail, lease = Stream(CONSENT_MASTER), Stream(CONSENT_DETAIL), _lease()
        with background().with_cancel() as ctx:
            running = asyncio.create_task(run_streams(ctx, lease, cast("list[ConsentStream]", [master, detail])))
            await wait_idle()
            lease.lose(LeaseLostError("taken"))
            with pytest.raises(LeaseLostError, match="taken"):
                await running
            assert (master.is_at_work, detail.is_at_work) == (False, False)
        lease.close()

    bubble(run)
