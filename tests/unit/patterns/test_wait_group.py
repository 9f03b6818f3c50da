"""WaitGroup."""

import asyncio
import gc
import threading
import weakref
from typing import Any

import pytest

from patterns.bubble import bubble, wait_idle
from patterns.wait_group import WaitGroup, WaitGroupStatistics
from tests.support.endings import fail
from tests.support.shuffling_loop import run_shuffled


def test_wait_returns_when_the_last_function_has_ended() -> None:
    """Wait lasts as long as the longest of the functions, which run side by side."""

    async def main() -> float:
        group = WaitGroup()
        for seconds in (3, 1, 2):
            group.go(asyncio.sleep, seconds)
        assert group.statistics() == WaitGroupStatistics(count=3, waiting=0, failed=0)
        await group.wait()
        return asyncio.get_running_loop().time()

    assert bubble(main) == 3


def test_wait_with_nothing_counted_returns_at_once() -> None:
    """An empty group makes nobody wait, as in Go."""

    async def main() -> None:
        await WaitGroup().wait()

    bubble(main)


def test_group_is_used_again_after_a_wait() -> None:
    """Rounds follow one another, each with its own count and errors."""

    async def main() -> None:
        group = WaitGroup()
        for round_number in range(3):
            group.go(fail, f"round {round_number}")
            with pytest.raises(ExceptionGroup) as caught:
                await group.wait()
            assert [str(error) for error in caught.value.exceptions] == [f"round {round_number}"]
        group.go(asyncio.sleep, 1)
        await group.wait()

    bubble(main)


def test_all_errors_come_out_of_wait_when_the_last_function_has_ended() -> None:
    """Two of three functions fail; the wait lasts for all three and raises both errors, in the order they came."""

    async def main() -> float:
        group = WaitGroup()
        group.go(fail, "late", 2)
        group.go(fail, "early", 1)
        group.go(asyncio.sleep, 3)
        with pytest.raises(ExceptionGroup, match="2 functions") as caught:
            await group.wait()
        assert [str(error) for error in caught.value.exceptions] == ["early", "late"]
        return asyncio.get_running_loop().time()

    assert bubble(main) == 3


def test_every_wait_of_a_round_raises() -> None:
    """Three tasks that wait, and one that asks later, all get the error."""

    async def main() -> None:
        group = WaitGroup()
        group.go(fail, "shared", 1)
        waits = [asyncio.create_task(group.wait()) for _ in range(3)]
        outcomes = await asyncio.gather(*waits, return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [ExceptionGroup] * 3
        with pytest.raises(ExceptionGroup):
            await group.wait()

    bubble(main)


def test_error_that_nobody_waited_for_is_kept_for_the_next_wait() -> None:
    """A round that ended without a wait leaves its error to the next round's, also when an earlier one was reported."""

    async def main() -> None:
        group = WaitGroup()
        group.go(fail, "reported")
        with pytest.raises(ExceptionGroup):
            await group.wait()
        group.go(fail, "first")
        await asyncio.sleep(1)
        group.go(fail, "second")
        with pytest.raises(ExceptionGroup) as caught:
            await group.wait()
        assert [str(error) for error in caught.value.exceptions] == ["first", "second"]

    bubble(main)


def test_error_without_any_wait_is_reported_by_asyncio() -> None:
    """When the group is dropped without a wait, the loop's exception handler hears of the error: never silent."""

    async def main() -> list[str]:
        heard: list[str] = []
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, fault: heard.append(repr(fault.get("exception"))))
        group = WaitGroup()
        group.go(fail, "unheard")
        await asyncio.sleep(1)
        del group
        gc.collect()
        return heard

    assert bubble(main) == ["ValueError('unheard')"]


def test_cancelled_function_counts_as_ended_and_not_as_failed() -> None:
    """A function that ends by a cancel, even before it began, lets the wait return without an error."""

    async def main() -> None:
        group = WaitGroup()
        group.go(asyncio.sleep, 10)
        before = asyncio.all_tasks()
        group.go(asyncio.sleep, 20)
        (unstarted,) = asyncio.all_tasks() - before
        unstarted.cancel()

        async def cancel_itself() -> None:
            raise asyncio.CancelledError

        group.go(cancel_itself)
        await group.wait()
        assert asyncio.get_running_loop().time() == 10

    bubble(main)


def test_task_of_a_cancelled_function_is_cancelled() -> None:
    """The cancel of a function that has begun shows in its task, as it does without a group."""

    async def main() -> None:
        group = WaitGroup()
        tasks: list[asyncio.Task[Any] | None] = []

        async def cancel_itself() -> None:
            tasks.append(asyncio.current_task())
            raise asyncio.CancelledError

        group.go(cancel_itself)
        await group.wait()
        assert [task is not None and task.cancelled() for task in tasks] == [True]

    bubble(main)


def test_function_is_kept_until_it_has_ended() -> None:
    """The collector does not take a task that only the group knows of, and takes it once its function has ended."""

    async def main() -> None:
        group = WaitGroup()
        tasks: list[weakref.ref[asyncio.Task[Any]]] = []
        waits: list[weakref.ref[asyncio.Future[None]]] = []

        async def wait_for_something() -> None:
            task = asyncio.current_task()
            assert task is not None
            tasks.append(weakref.ref(task))
            del task
            future = asyncio.get_running_loop().create_future()
            waits.append(weakref.ref(future))
            await future

        group.go(wait_for_something)
        await wait_idle()
        gc.collect()
        future = waits[0]()
        assert future is not None
        future.set_result(None)
        del future
        await group.wait()
        gc.collect()
        assert tasks[0]() is None

    bubble(main)


def test_cancelled_wait_leaves_the_functions_running() -> None:
    """The group does not own its tasks: a wait that is cancelled leaves them, and another wait sees their end."""

    async def main() -> None:
        group = WaitGroup()
        group.go(asyncio.sleep, 5)
        waiting = asyncio.create_task(group.wait())
        await wait_idle()
        waiting.cancel()
        await asyncio.wait({waiting})
        assert waiting.cancelled()
        assert group.statistics() == WaitGroupStatistics(count=1, waiting=0, failed=0)
        await group.wait()
        assert asyncio.get_running_loop().time() == 5

    bubble(main)


def test_cancel_of_a_wait_in_the_tick_of_its_end_leaves_the_group_usable() -> None:
    """In 300 interleavings the wait is cancelled just after its round ended; the error stays for the next wait."""

    async def main() -> None:
        group = WaitGroup()
        group.go(fail, "kept", 1)
        waiting = asyncio.create_task(group.wait())
        await asyncio.sleep(1)
        waiting.cancel()
        await asyncio.wait({waiting})
        with pytest.raises(ExceptionGroup):
            await group.wait()
        group.go(asyncio.sleep, 1)
        await group.wait()

    run_shuffled(main, seeds=range(300))


async def test_threads_count_and_finish() -> None:
    """Threads that call done wake a task that waits, once the last has."""
    group = WaitGroup()
    group.add(8)
    threads = [threading.Thread(target=group.done) for _ in range(8)]
    waiting = asyncio.create_task(group.wait())
    await asyncio.sleep(0)
    assert group.statistics().waiting == 1
    for thread in threads:
        thread.start()
    await waiting
    assert group.statistics() == WaitGroupStatistics(count=0, waiting=0, failed=0)


def test_wait_of_a_closed_loop_does_not_block_the_next_round() -> None:
    """A waiter whose loop has died is not waited for."""
    group = WaitGroup()
    group.add()
    loop = asyncio.new_event_loop()
    loop.set_exception_handler(lambda *_: None)  # it hears of the destroyed task
    waiting = loop.create_task(group.wait())
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()
    group.done()
    group.add()
    group.done()
    assert group.statistics().count == 0
    del waiting
    gc.collect()


def test_loop_of_ready_waits_lets_others_run_and_sees_its_cancel() -> None:
    """A task that does nothing but wait for nothing cannot starve the loop."""

    async def main() -> None:
        group = WaitGroup()

        async def spin() -> None:
            while True:
                await group.wait()

        task = asyncio.create_task(spin())
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait({task})
        assert task.cancelled()

    bubble(main)
