"""Once and OnceValue."""

import asyncio
import traceback
from collections.abc import Coroutine
from typing import Any

import pytest

from patterns.atomic import AtomicCounter
from patterns.bubble import bubble, wait_idle
from patterns.errors import DeadlockError
from patterns.once import Once, OnceStatistics, OnceValue
from tests.support.shuffling_loop import run_shuffled


@pytest.mark.parametrize("value", [None, 0, "", False])
def test_falsy_value_counts_as_a_value(value: object) -> None:
    """An initialiser that returns nothing much is not run again."""
    runs = AtomicCounter()

    def build() -> object:
        runs.add()
        return value

    async def main() -> None:
        once: OnceValue[object] = OnceValue(build)
        assert await once.get() is value
        assert await once.get() is value
        assert once.get_sync() is value  # no wait is needed, so the loop's own thread may ask too

    bubble(main)
    assert runs.load() == 1


def test_cancelled_first_runner_hands_over_to_the_next() -> None:
    """In 300 interleavings the first runner is cancelled in the middle, and one of the waiters runs it anew."""

    async def main() -> None:
        runs = 0

        async def build() -> int:
            nonlocal runs
            runs += 1
            await asyncio.sleep(1)
            return runs

        once = OnceValue(build)
        first = asyncio.create_task(once.get())
        await wait_idle()
        others = [asyncio.create_task(once.get()) for _ in range(3)]
        await wait_idle()
        assert once.statistics() == OnceStatistics(state="running", waiting=3, attempts=1)
        first.cancel()
        assert await asyncio.gather(*others) == [2, 2, 2]
        assert first.cancelled()
        assert once.statistics() == OnceStatistics(state="done", waiting=0, attempts=2)

    run_shuffled(main, seeds=range(300))


def test_hand_over_survives_the_cancel_of_the_next_in_the_same_tick() -> None:
    """In 1,000 interleavings the runner and the next in line are cancelled together; the last one gets the value."""

    async def main() -> None:
        async def build() -> str:
            await asyncio.sleep(1)
            return "built"

        once = OnceValue(build)
        first, second, third = (asyncio.create_task(once.get()) for _ in range(3))
        await wait_idle()
        first.cancel()
        second.cancel()
        others = {await third, *(await asyncio.gather(first, second, return_exceptions=True))}
        assert "built" in others

    run_shuffled(main, seeds=range(1_000))


def test_cancelled_waiter_just_leaves() -> None:
    """A waiter that is cancelled changes nothing for the others."""

    async def main() -> None:
        async def build() -> int:
            await asyncio.sleep(1)
            return 7

        once = OnceValue(build)
        first, second, third = (asyncio.create_task(once.get()) for _ in range(3))
        await wait_idle()
        second.cancel()
        await wait_idle()
        assert once.statistics() == OnceStatistics(state="running", waiting=1, attempts=1)
        assert await first == await third == 7

    bubble(main)


@pytest.mark.parametrize("lost", ["runner", "waiter"])
def test_lost_caller_leaves_though_the_thread_that_collects_it_holds_the_lock(lost: str) -> None:
    """The collector may close a coroutine in the middle of anything: it does not wait for its own thread."""

    async def main() -> None:
        once = OnceValue(asyncio.get_running_loop().create_future)

        async def begin(caller: Coroutine[Any, Any, object]) -> None:
            caller.send(None)

        runner, waiter = once.get(), once.get()
        await asyncio.create_task(begin(runner))
        await asyncio.create_task(begin(waiter))
        assert once.statistics() == OnceStatistics("running", waiting=1, attempts=1)
        with once._gate._lock:
            (runner if lost == "runner" else waiter).close()
        assert once.statistics() == OnceStatistics("new" if lost == "runner" else "running", waiting=0, attempts=1)
        runner.close()
        waiter.close()

    bubble(main)


def test_plain_once_remembers_a_failure() -> None:
    """After a failed first function each later caller gets its error, and no other function is run."""

    async def main() -> None:
        once = Once()
        ran: list[str] = []

        async def fail() -> None:
            raise ValueError("first")

        with pytest.raises(ValueError, match="first"):
            await once.do(fail)
        with pytest.raises(ValueError, match="first"):
            await once.do(lambda: ran.append("second"))
        with pytest.raises(ValueError, match="first"):
            once.do_sync(lambda: ran.append("third"))
        assert ran == []

    bubble(main)


def test_remembered_failure_does_not_grow_with_each_raise() -> None:
    """The traceback of a failure is as long for the hundredth caller as for the second."""

    async def main() -> None:
        async def fail() -> None:
            raise ValueError("once")

        once = OnceValue(fail)
        lengths = []
        for _ in range(100):
            with pytest.raises(ValueError, match="once") as caught:
                await once.get()
            lengths.append(len(traceback.extract_tb(caught.value.__traceback__)))
        assert lengths[1] == lengths[-1]

    bubble(main)


def test_initialiser_that_asks_for_itself_raises_instead_of_hanging() -> None:
    """A task or thread that needs the value to build the value gets a DeadlockError, which is then the failure."""

    async def main() -> None:
        async def build() -> object:
            return await once.get()

        once: OnceValue[object] = OnceValue(build)
        with pytest.raises(DeadlockError, match="its own result"):
            await once.get()

    bubble(main)

    def build_sync() -> object:
        return once_sync.get_sync()

    once_sync: OnceValue[object] = OnceValue(build_sync)
    with pytest.raises(DeadlockError, match="its own result"):
        once_sync.get_sync()


def test_loop_of_ready_gets_lets_others_run_and_sees_its_cancel() -> None:
    """A task that does nothing but ask for a value that is there cannot starve the loop."""

    async def main() -> None:
        once = OnceValue(lambda: 1)

        async def spin() -> None:
            while True:
                await once.get()

        task = asyncio.create_task(spin())
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait({task})
        assert task.cancelled()

    bubble(main)
