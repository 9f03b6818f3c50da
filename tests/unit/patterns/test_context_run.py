"""Context: what ``run`` interrupts, and what becomes of the task."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from patterns import Channel, Context, ContextCancelled, ContextError, DeadlineExceeded, background
from patterns._budget import LIMIT, current_budget
from patterns.bubble import bubble, wait_idle
from tests.support.running_loop import now
from tests.support.shuffling_loop import run_shuffled


def test_run_returns_the_result_and_leaves_the_task_as_it_was() -> None:
    """Without an end of the context ``run`` is a plain await, for values and for errors."""

    async def fail() -> None:
        raise KeyError("missing")

    async def main() -> None:
        with background().with_timeout(10) as ctx:
            assert await ctx.run(asyncio.sleep(5, "done")) == "done"
            with pytest.raises(KeyError):
                await ctx.run(fail())
            assert ctx.statistics().after_funcs == 0

    bubble(main)


def test_run_is_ended_by_its_deadline_and_by_a_cancel() -> None:
    """The awaited sleep is cut, the error is the context's, with its cause, and the task is not left cancelled."""

    async def main() -> None:
        task = asyncio.current_task()
        assert task is not None
        with background().with_timeout(5) as ctx, pytest.raises(DeadlineExceeded):
            await ctx.run(asyncio.sleep(10))
        assert now() == 5
        cause = ValueError("enough")
        with background().with_cancel() as ctx:
            asyncio.get_running_loop().call_later(1, ctx.cancel, cause)
            with pytest.raises(ContextCancelled) as raised:
                await ctx.run(asyncio.sleep(10))
            assert raised.value.__cause__ is cause
        assert now() == 6
        assert task.cancelling() == 0
        await asyncio.sleep(1)

    bubble(main)


def test_run_under_an_ended_context_awaits_nothing() -> None:
    """A coroutine is closed unstarted, a task is cancelled, anything else is left; the error is raised."""

    async def never() -> None:
        pytest.fail("it was started")

    class Thing:
        def __await__(self) -> object:
            pytest.fail("it was awaited")

    async def main() -> None:
        with background().with_timeout(0) as ctx:
            task = asyncio.create_task(asyncio.sleep(10))
            for awaitable in (never(), task, Thing()):
                with pytest.raises(DeadlineExceeded):
                    await ctx.run(awaitable)  # type: ignore[arg-type]  # a mixed bag
            await asyncio.wait([task])
            assert task.cancelled()

    bubble(main)


def test_run_that_is_cancelled_before_it_awaits_anything_gives_that_up() -> None:
    """Its budget used up, it yields first; a cancel then closes the coroutine it was given, or cancels the task."""

    async def never() -> None:
        pytest.fail("it was started")

    async def run_late(awaitable: Awaitable[None]) -> None:
        channel: Channel[int] = Channel(LIMIT)
        for value in range(LIMIT):
            await channel.send(value)
        assert current_budget().left == 0
        await background().run(awaitable)

    async def main() -> None:
        sleeping = asyncio.create_task(asyncio.sleep(10))
        for awaitable in (never(), sleeping):
            task = asyncio.create_task(run_late(awaitable))
            await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])
            assert task.cancelled()
        assert sleeping.cancelled()

    bubble(main)


def test_result_that_comes_in_spite_of_the_end_counts() -> None:
    """What swallows its cancel and returns, or raises another error, decides; the count is restored."""

    async def finish(error: Exception | None) -> str:
        try:
            await asyncio.sleep(10)
        except asyncio.CancelledError:
            await asyncio.sleep(1)
        if error is not None:
            raise error
        return "finished"

    async def main() -> None:
        task = asyncio.current_task()
        assert task is not None
        with background().with_timeout(1) as ctx:
            assert await ctx.run(finish(None)) == "finished"
        with background().with_timeout(1) as ctx, pytest.raises(KeyError):
            await ctx.run(finish(KeyError()))
        assert task.cancelling() == 0

    bubble(main)


def test_cancel_by_the_awaited_code_itself_does_not_hit_what_follows() -> None:
    """When the code cancels its own context and returns in the same step, nothing is left over for the next await."""

    async def main() -> None:
        with background().with_cancel() as ctx:

            async def cancel_and_return() -> str:
                ctx.cancel()
                return "done"

            assert await ctx.run(cancel_and_return()) == "done"
            await asyncio.sleep(1)

    bubble(main)


def test_cancel_of_what_is_awaited_is_not_taken_for_the_contexts() -> None:
    """CancelledError from a task that somebody else cancelled is passed on as it is."""

    async def main() -> None:
        with background().with_cancel() as ctx:
            task = asyncio.create_task(asyncio.sleep(10))
            asyncio.get_running_loop().call_later(1, task.cancel)
            with pytest.raises(asyncio.CancelledError):
                await ctx.run(task)
            assert not ctx.is_done

    bubble(main)


def test_cancel_that_the_task_has_yet_to_see_is_not_eaten() -> None:
    """One that came while the task ran, as Ctrl-C does, comes out of ``run`` even when the context ends as well."""

    async def main() -> None:
        task = asyncio.current_task()
        assert task is not None
        with background().with_cancel() as ctx:

            async def end_and_sleep() -> None:
                ctx.cancel()
                await asyncio.sleep(10)

            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await ctx.run(end_and_sleep())
            assert task.uncancel() == 0

    bubble(main)


def test_run_outside_a_task_is_an_error() -> None:
    """There is nothing to interrupt in a bare coroutine."""

    async def main() -> None:
        with background().with_cancel() as ctx:
            sleeping = asyncio.sleep(0)
            running = ctx.run(sleeping)
            done = asyncio.get_running_loop().create_future()

            def drive() -> None:
                try:
                    running.send(None)
                except RuntimeError as error:
                    done.set_result(str(error))

            asyncio.get_running_loop().call_soon(drive)
            assert "task" in await done
            sleeping.close()

    bubble(main)


async def nested(outer: Context, inner: Context, log: list[str]) -> str:
    """Two nested scopes with several awaits each, and clean-up that awaits."""

    async def innermost() -> None:
        try:
            for _ in range(3):
                await asyncio.sleep(1)
        finally:
            log.append("cleaned up")
            await asyncio.sleep(0)

    async def middle() -> str:
        await asyncio.sleep(1)
        try:
            await inner.run(innermost())
        except ContextError:
            return "inner ended"
        await asyncio.sleep(1)
        return "done"

    return await outer.run(middle())


@pytest.mark.parametrize("step", range(6))
@pytest.mark.parametrize(
    "ends", ["task", "inner", "outer", "inner and task", "task and inner", "outer and task", "all"]
)
def test_outer_cancel_is_never_eaten(ends: str, step: int) -> None:
    """At every await of nested scopes, alone or in the tick of a context's end, the cancel comes out and is counted."""

    async def main() -> None:
        with background().with_cancel() as outer, outer.with_cancel() as inner:
            log: list[str] = []
            counts: list[int] = []

            async def run() -> str:
                task = asyncio.current_task()
                assert task is not None
                try:
                    return await nested(outer, inner, log)
                finally:
                    counts.append(task.cancelling())

            task = asyncio.create_task(run())
            actions: dict[str, Callable[[], object]] = {
                "task": task.cancel,
                "inner": inner.cancel,
                "outer": outer.cancel,
            }
            order = ["outer", "inner", "task"] if ends == "all" else ends.split(" and ")
            await asyncio.sleep(step)
            await wait_idle()
            was_done = task.done()
            for name in order:
                actions[name]()
            (result,) = await asyncio.gather(task, return_exceptions=True)
            if was_done:
                assert result == "done"
            elif "task" in order:
                assert isinstance(result, asyncio.CancelledError)
                assert counts == [1]
            elif "outer" in order:
                assert isinstance(result, ContextCancelled)
                assert counts == [0]
            else:
                assert result in ("inner ended", "done")
                assert counts == [0]

    run_shuffled(main, seeds=range(10))


def test_run_in_a_loop_that_has_closed_does_not_disturb_the_canceller() -> None:
    """A task lost with its loop no longer hears of its context; the cancel still reaches everybody else."""
    with background().with_cancel() as ctx:
        loop = asyncio.new_event_loop()
        task = loop.create_task(ctx.run(asyncio.sleep(3600)))
        task._log_destroy_pending = False  # type: ignore[attr-defined]  # asyncio's own switch, not in its stubs
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()
        ctx.cancel()
        assert ctx.is_done
        assert not task.done()
