"""Context: functions that run after its end."""

import asyncio
import gc
import threading
from contextvars import ContextVar

import pytest

from patterns import Channel, Context, _launch, background
from patterns.bubble import bubble, wait_idle
from tests.support.spinning import spin_until


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


def test_after_func_that_only_itself_can_reach_is_kept_until_it_ends() -> None:
    """The collector does not take its task, which bears the function's name; once it has ended nobody keeps it."""

    async def wait_for_nobody() -> None:
        await Channel[int]().receive()

    async def main() -> None:
        with background().with_cancel() as ctx:
            ctx.after_func(wait_for_nobody)
        await wait_idle()
        gc.collect()
        (task,) = asyncio.all_tasks() - {asyncio.current_task()}
        assert task.get_name() == f"after-{wait_for_nobody.__qualname__}"
        task.cancel()
        await wait_idle()
        assert not _launch._running

    bubble(main)


def test_after_func_without_a_loop_runs_in_a_thread_of_its_own() -> None:
    """A plain function runs beside the canceller; an async one is refused, for there is no loop for it."""
    ran: list[int] = []
    threads: list[threading.Thread] = []
    done = threading.Event()

    def run() -> None:
        ran.append(threading.get_ident())
        threads.append(threading.current_thread())
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
    assert threads[0].daemon
    assert threads[0].name.endswith("<locals>.run")


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
