"""What a part in the background cannot live with reaches the select of its service."""

import asyncio

import pytest
from structlog.testing import capture_logs

from patterns import Channel, Context, WouldBlock, background, receive, select
from patterns.bubble import bubble
from runtime.background import raise_reported, report, run_reporting


def test_failure_is_sent_to_the_select() -> None:
    """The very error of the part is what the select receives; the part's task itself ends well."""
    error = LookupError("a mistake")

    async def fail(ctx: Context) -> None:
        del ctx
        raise error

    async def scene() -> None:
        server_errors: Channel[BaseException] = Channel(1)
        await run_reporting(server_errors, fail, background())
        assert await server_errors.receive() is error

    bubble(scene)


def test_first_of_several_failures_stays() -> None:
    """A second error neither waits for room nor takes the place of the first."""

    async def scene() -> None:
        server_errors: Channel[BaseException] = Channel(1)
        first = LookupError("first")
        report(server_errors, first)
        report(server_errors, LookupError("second"))
        assert await server_errors.receive() is first

    bubble(scene)


def test_part_that_ends_with_its_context_reports_nothing() -> None:
    """An orderly end is no failure."""

    async def wait(ctx: Context) -> None:
        await select(receive(ctx.done))

    async def scene() -> None:
        server_errors: Channel[BaseException] = Channel(1)
        with background().with_timeout(5) as ctx:
            await run_reporting(server_errors, wait, ctx)
        assert len(server_errors) == 0

    bubble(scene)


def test_cancel_is_raised_and_not_reported() -> None:
    """Who cancels the part's task knows it."""

    async def sleep(ctx: Context) -> None:
        del ctx
        await asyncio.sleep(1_000)

    async def scene() -> None:
        server_errors: Channel[BaseException] = Channel(1)
        task = asyncio.create_task(run_reporting(server_errors, sleep, background()))
        await asyncio.sleep(1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert len(server_errors) == 0

    bubble(scene)


def test_failure_after_the_select_is_raised_once() -> None:
    """What fails during the stop is raised at its end, as the very error; without a failure nothing is."""
    error = WouldBlock("even this one")

    async def fail(ctx: Context) -> None:
        await select(receive(ctx.done))
        raise error

    async def scene() -> None:
        server_errors: Channel[BaseException] = Channel(1)
        working = background().with_cancel()
        task = asyncio.create_task(run_reporting(server_errors, fail, working))
        raise_reported(server_errors)
        working.cancel()
        await task
        with pytest.raises(WouldBlock) as raised:
            raise_reported(server_errors)
        assert raised.value is error
        raise_reported(server_errors)

    bubble(scene)


def test_each_failure_leaves_a_line() -> None:
    """Two parts fail, one error is sent, and the log names both."""

    async def fail(ctx: Context) -> None:
        del ctx
        raise LookupError("a mistake")

    async def scene() -> None:
        server_errors: Channel[BaseException] = Channel(1)
        with capture_logs() as lines:
            await run_reporting(server_errors, fail, background())
            await run_reporting(server_errors, fail, background())
        assert [(line["event"], line["error"]) for line in lines] == [
            ("Background work failed", "LookupError('a mistake')")
        ] * 2
        assert all("fail" in line["work"] for line in lines)

    bubble(scene)
