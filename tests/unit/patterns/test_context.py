"""Context: the tree, deadlines, values, and what it interrupts."""

import asyncio
import gc
import random
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar

import pytest

from patterns import (
    Channel,
    Context,
    ContextCancelled,
    ContextError,
    ContextStatistics,
    DeadlineExceeded,
    EndOfChannel,
    Outcome,
    background,
    receive,
    select,
)
from patterns.bubble import bubble, wait_idle
from tests.support.shuffling_loop import run_shuffled
from tests.support.spinning import spin_until


def now() -> float:
    """The running loop's time."""
    return asyncio.get_running_loop().time()


# The tree.


def test_background_never_ends() -> None:
    """It has no error, cause, deadline or value, cannot be cancelled, and its ``done`` stays open."""

    async def main() -> None:
        root = background()
        assert root is background()
        assert (root.is_done, root.err, root.cause, root.deadline, root.remaining()) == (False, None, None, None, None)
        root.raise_if_done()
        assert await select(receive(root.done), timeout_seconds=3600) is Outcome.TIMEOUT
        with pytest.raises(RuntimeError, match="no end of its own"):
            root.cancel()

    bubble(main)


def test_cancel_ends_every_descendant_before_it_returns() -> None:
    """In a tree of 1,000 contexts all are done when ``cancel`` returns; tasks and threads that wait are all woken."""

    async def wait_for_all(contexts: list[Context]) -> int:
        await asyncio.gather(*(context.wait() for context in contexts))
        return len(contexts)

    dice = random.Random(1)
    cause = ValueError("enough")
    tree = [background().with_cancel()]
    while len(tree) < 1_000:
        tree.append(dice.choice(tree).with_cancel())
    with ThreadPoolExecutor(22) as pool:
        in_tasks = [pool.submit(asyncio.run, wait_for_all(tree[half::2])) for half in (0, 1)]
        in_threads = [pool.submit(context.wait_sync) for context in dice.sample(tree, 20)]
        spin_until(lambda: sum(context.done.statistics().waiting_receivers for context in tree) == 1_020)
        assert not any(context.is_done for context in tree)
        tree[0].cancel(cause)
        assert all(context.is_done and context.cause is cause for context in tree)
        assert all(isinstance(context.err, ContextCancelled) for context in tree)
        assert [waiting.result() for waiting in in_tasks] == [500, 500]
        assert all(waiting.result() for waiting in in_threads)


def test_cancel_leaves_parent_and_siblings_alone() -> None:
    """Only what was derived from the cancelled context ends with it."""
    with background().with_cancel() as parent, parent.with_cancel() as child, parent.with_cancel() as sibling:
        grandchild = child.with_cancel()
        child.cancel()
        assert (child.is_done, grandchild.is_done) == (True, True)
        assert (parent.is_done, sibling.is_done) == (False, False)


def test_first_cause_wins_and_is_inherited() -> None:
    """A second cancel changes nothing; a child that had ended keeps its own cause; late children get their parent's."""
    first, second, own = ValueError("first"), ValueError("second"), ValueError("own")
    with background().with_cancel() as parent:
        child, early = parent.with_cancel(), parent.with_cancel()
        early.cancel(own)
        parent.cancel(first)
        parent.cancel(second)
        child.cancel(second)
        late = parent.with_cancel().with_timeout(5)
        assert [context.cause for context in (parent, child, late, early)] == [first, first, first, own]
        assert late.err is parent.err
        with pytest.raises(ContextCancelled) as raised:
            late.raise_if_done()
        assert raised.value is not late.err
        assert raised.value.__cause__ is first


def test_cancel_without_a_cause_is_its_own_cause() -> None:
    """``cause`` is ``err``, and what is raised has no other cause."""
    with background().with_cancel() as ctx:
        ctx.cancel()
        assert ctx.cause is ctx.err
        with pytest.raises(ContextCancelled) as raised:
            ctx.raise_if_done()
        assert raised.value.__cause__ is None


def test_leaving_the_block_cancels() -> None:
    """As with ``defer cancel()``, also when the block is left by an error, and the parent forgets its child."""
    with background().with_cancel() as parent:
        with parent.with_cancel() as ctx:
            assert parent.statistics().children == 1
        assert isinstance(ctx.err, ContextCancelled)
        with pytest.raises(KeyError), parent.with_timeout(5) as timed:
            raise KeyError
        assert isinstance(timed.err, ContextCancelled)
        assert parent.statistics() == ContextStatistics(False, None, 0, 0)


def test_cancel_from_another_thread_is_seen_at_once() -> None:
    """A loop that would sleep for an hour wakes for the cancel, not at its next timer."""

    async def main(ctx: Context) -> None:
        asyncio.get_running_loop().call_later(3600, print)
        await ctx.wait()

    with background().with_cancel() as ctx, ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(asyncio.run, main(ctx))
        spin_until(lambda: ctx.done.statistics().waiting_receivers == 1)
        ctx.cancel()
        waiting.result()


def test_done_only_receives_and_ends() -> None:
    """``done`` is a receive-only channel that never has a value and is closed at the end."""

    async def main() -> None:
        with background().with_cancel() as ctx:
            assert not hasattr(ctx.done, "send")
            assert await select(receive(ctx.done), default=True) is Outcome.DEFAULT
            ctx.cancel()
            with pytest.raises(EndOfChannel):
                await ctx.done.receive()
            case = receive(ctx.done)
            assert await select(case, receive(Channel[int]())) is case
            assert not case.ok

    bubble(main)


def test_wait_sync_says_whether_the_context_ended() -> None:
    """It is False after its timeout, True once the context has ended."""
    with background().with_cancel() as ctx:
        assert ctx.wait_sync(0.001) is False
        assert ctx.wait_sync(0) is False
        ctx.cancel()
        assert ctx.wait_sync() is True


# Deadlines and values.


@pytest.mark.parametrize(
    ("outer_seconds", "inner_seconds", "ends_at"),
    [(None, 5, 5), (10, 5, 5), (5, 10, 5), (5, 5, 5), (10, 0, 0), (10, -1, 0), (0, 10, 0), (-1, None, 0), (5, None, 5)],
)
def test_earlier_deadline_wins(outer_seconds: float | None, inner_seconds: float | None, ends_at: float) -> None:
    """A context ends at the earliest deadline above it; a past one ends it at birth; ``remaining`` counts down to 0."""

    async def main() -> None:
        root = background()
        with (
            root.with_cancel() if outer_seconds is None else root.with_timeout(outer_seconds) as outer,
            outer.with_cancel() if inner_seconds is None else outer.with_timeout(inner_seconds) as inner,
        ):
            assert inner.is_done == (ends_at == 0)
            assert inner.remaining() == ends_at
            await asyncio.sleep(ends_at - 1)
            assert inner.is_done == (ends_at == 0)
            await inner.wait()
            assert now() == ends_at or ends_at == 0
            assert isinstance(inner.err, DeadlineExceeded)
            assert isinstance(inner.err, TimeoutError)
            assert inner.cause is (outer if outer.is_done else inner).err
            assert inner.remaining() == 0

    bubble(main)


def test_deadline_is_a_time_of_the_loops_clock() -> None:
    """``with_deadline`` takes what ``loop.time()`` tells, and ``deadline`` returns it."""

    async def main() -> None:
        await asyncio.sleep(100)
        with background().with_deadline(103) as ctx, ctx.with_cancel() as child:
            assert ctx.deadline == child.deadline == 103
            assert child.remaining() == 3
            await child.wait()
            assert now() == 103

    bubble(main)


def test_cancel_before_the_deadline_stops_its_timer() -> None:
    """The error is ContextCancelled for good, and no timer is left in the loop."""

    async def main() -> None:
        with background().with_timeout(5) as ctx:
            ctx.cancel()
        await asyncio.sleep(10)
        assert isinstance(ctx.err, ContextCancelled)
        assert not [timer for timer in asyncio.get_running_loop()._scheduled if not timer.cancelled()]  # type: ignore[attr-defined]  # asyncio's own heap

    bubble(main)


def test_timer_of_a_loop_is_stopped_from_another_thread() -> None:
    """Cancelling a context with a deadline elsewhere cancels the timer in its loop; after its loop has closed, too."""

    async def main(pool: ThreadPoolExecutor) -> Context:
        ctx, other = background().with_timeout(3600), background().with_timeout(3600)
        await asyncio.wrap_future(pool.submit(ctx.cancel))
        await asyncio.sleep(0)
        (left,) = [timer for timer in asyncio.get_running_loop()._scheduled if not timer.cancelled()]  # type: ignore[attr-defined]  # asyncio's own heap
        assert left.when() == other.deadline
        return other

    with ThreadPoolExecutor(1) as pool:
        other = asyncio.run(main(pool))
    other.cancel()
    assert other.is_done


def test_parent_that_ends_while_a_child_is_born_takes_the_timer_along() -> None:
    """A timer that is set after the end is stopped again."""

    async def main() -> None:
        with background().with_timeout(5) as ctx:
            ctx.cancel()
            ctx._scope.start_timer()
        assert not [timer for timer in asyncio.get_running_loop()._scheduled if not timer.cancelled()]  # type: ignore[attr-defined]  # asyncio's own heap

    bubble(main)


def test_values_are_looked_up_the_tree() -> None:
    """The nearest value of a key is found; a sibling's and a child's are not; None is what is not there."""
    root = background().with_value("user", "a").with_value("trace", 1)
    with root.with_cancel() as ctx:
        inner = ctx.with_value("user", "b")
        assert [inner.value(key) for key in ("user", "trace", "other")] == ["b", 1, None]
        assert ctx.value("user") == "a"
        assert inner.without_cancel().value("user") == "b"


def test_value_context_ends_with_its_parent_and_only_so() -> None:
    """It cannot be cancelled by whom it was handed to, leaving its block ends nothing, and it shares ``done``."""
    with background().with_cancel() as parent:
        with parent.with_value("key", "value") as ctx, pytest.raises(RuntimeError):
            ctx.cancel()
        assert not ctx.is_done
        parent.cancel()
        assert ctx.is_done


def test_without_cancel_outlives_its_parent() -> None:
    """It drops cancel and deadline and keeps the values."""
    with background().with_timeout(5) as parent:
        ctx = parent.with_value("key", "value").without_cancel()
        parent.cancel()
        assert (ctx.is_done, ctx.deadline, ctx.value("key")) == (False, None, "value")


def test_ended_contexts_are_not_kept() -> None:
    """A parent that lives on does not remember the contexts that were derived from it and have ended."""
    with background().with_cancel() as parent:
        for _ in range(100):
            with parent.with_timeout(3600) as child:
                child.with_cancel()
        gc.collect()
        assert parent.statistics().children == 0


# after_func.


def test_after_func_runs_once_in_a_task_of_its_own() -> None:
    """A plain and an async function each run once, after ``cancel`` has returned, with their caller's variables."""
    variable: ContextVar[str] = ContextVar("variable", default="none")

    async def main() -> None:
        ran: list[tuple[str, str]] = []

        async def later() -> None:
            await asyncio.sleep(5)
            ran.append(("async", variable.get()))

        variable.set("set")
        with background().with_cancel() as ctx:
            ctx.after_func(lambda: ran.append(("plain", variable.get())))
            ctx.after_func(later)
            assert ctx.statistics().after_funcs == 2
            ctx.cancel()
            ctx.cancel()
            assert ran == []
        await asyncio.sleep(10)
        assert ran == [("plain", "set"), ("async", "set")]

    bubble(main)


def test_after_func_of_an_ended_context_runs_at_once() -> None:
    """It need not wait for an end that has been, and cannot be stopped."""

    async def main() -> None:
        ran = asyncio.Event()
        with background().with_timeout(0) as ctx:
            stop = ctx.after_func(ran.set)
            await ran.wait()
            assert stop() is False

    bubble(main)


def test_stop_tells_whether_it_prevented_the_call() -> None:
    """Before the end: True, once, and no call. While the function runs and after it: False, without waiting for it."""

    async def main() -> None:
        started, finish = asyncio.Event(), asyncio.Event()

        async def run() -> None:
            started.set()
            await finish.wait()

        with background().with_cancel() as ctx:
            stop_before = ctx.after_func(lambda: pytest.fail("it was stopped"))
            stop = ctx.after_func(run)
            assert stop_before() is True
            assert stop_before() is False
            ctx.cancel()
            await started.wait()
            assert stop() is False
            finish.set()
            await wait_idle()
            assert stop() is False

    bubble(main)


def test_after_func_without_a_loop_runs_in_a_thread_of_its_own() -> None:
    """A plain function runs beside the canceller; an async one is refused, for there is no loop for it."""
    ran: list[int] = []
    done = threading.Event()

    def run() -> None:
        ran.append(threading.get_ident())
        done.set()

    async def run_async() -> None:
        """Never called."""

    with background().with_cancel() as ctx:
        ctx.after_func(run)
        with pytest.raises(TypeError):
            ctx.after_func(run_async)
        ctx.cancel()
        done.wait()
    spin_until(lambda: all(thread.ident != ran[0] for thread in threading.enumerate()))
    assert ran[0] != threading.get_ident()


def test_failure_of_an_after_func_reaches_the_loops_exception_handler() -> None:
    """It is not silent, and a cancelled one is no failure."""

    async def main() -> None:
        seen = []
        asyncio.get_running_loop().set_exception_handler(lambda _, details: seen.append(details["exception"]))
        error = ValueError("no")

        def fail() -> None:
            raise error

        def be_cancelled() -> None:
            raise asyncio.CancelledError

        with background().with_cancel() as ctx:
            ctx.after_func(fail)
            ctx.after_func(be_cancelled)
        await wait_idle()
        assert seen == [error]

    bubble(main)


def test_after_func_of_a_closed_loop_does_not_run() -> None:
    """A loop that is closed takes along what would have run in it."""

    async def main() -> Context:
        ctx = background().with_cancel()
        ctx.after_func(lambda: pytest.fail("its loop is closed"))
        return ctx

    asyncio.run(main()).cancel()


# run.


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
