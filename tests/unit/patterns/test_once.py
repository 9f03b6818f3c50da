"""Once and OnceValue."""

import asyncio
import gc
import threading
import traceback
from collections.abc import Callable

import pytest

from patterns.atomic import AtomicCounter
from patterns.bubble import bubble, wait_idle
from patterns.errors import DeadlockError
from patterns.once import Once, OnceStatistics, OnceValue
from tests.support.shuffling_loop import run_shuffled

TASKS = 100
THREADS = 20
WAIT_SECONDS = 5.0


def ask_from_threads(once: OnceValue[object], go: threading.Event, answers: list[object]) -> list[threading.Thread]:
    """Start threads that ask for the value, or note the error, once they are let go."""

    def ask() -> None:
        go.wait(WAIT_SECONDS)
        try:
            answers.append(once.get_sync(WAIT_SECONDS))
        except ValueError as error:
            answers.append(error)

    threads = [threading.Thread(target=ask) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    return threads


async def ask_from_everywhere(once: OnceValue[object]) -> list[object]:
    """Ask from 100 tasks and 20 threads at once and return the 120 answers or errors."""
    go = threading.Event()
    answers: list[object] = []
    threads = ask_from_threads(once, go, answers)
    tasks = [asyncio.create_task(once.get()) for _ in range(TASKS)]
    go.set()
    answers.extend(await asyncio.gather(*tasks, return_exceptions=True))
    for thread in threads:
        await asyncio.to_thread(thread.join)
    return answers


async def test_plain_initialiser_runs_once_for_100_tasks_and_20_threads() -> None:
    """Whoever comes first, task or thread, runs it; all 120 callers get the very same object."""
    runs = AtomicCounter()

    def build() -> object:
        runs.add()
        return object()

    answers = await ask_from_everywhere(OnceValue(build))
    assert len(answers) == TASKS + THREADS
    assert len({id(answer) for answer in answers}) == 1
    assert runs.load() == 1


async def test_async_initialiser_runs_once_for_100_tasks_and_20_threads() -> None:
    """When a task has begun it, all 120 callers, also those in threads, get the very same object."""
    runs = AtomicCounter()
    begun = asyncio.Event()

    async def build() -> object:
        runs.add()
        begun.set()
        await asyncio.sleep(0.01)
        return object()

    once: OnceValue[object] = OnceValue(build)
    first = asyncio.create_task(once.get())
    await begun.wait()
    answers = await ask_from_everywhere(once)
    assert {id(answer) for answer in answers} == {id(await first)}
    assert runs.load() == 1


async def test_failure_is_raised_again_to_100_tasks_and_20_threads() -> None:
    """The initialiser fails once and each of the 120 callers gets that very error."""
    runs = AtomicCounter()

    def fail() -> object:
        runs.add()
        raise ValueError("no value")

    once: OnceValue[object] = OnceValue(fail)
    answers = await ask_from_everywhere(once)
    assert len({id(answer) for answer in answers}) == 1
    assert isinstance(answers[0], ValueError)
    assert runs.load() == 1
    assert once.statistics() == OnceStatistics(state="failed", waiting=0, attempts=1)


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


async def test_cancelled_runner_hands_over_to_a_thread() -> None:
    """A thread that waits for a task's plain-or-async function takes over when that task is cancelled."""
    begun = asyncio.Event()
    order: list[str] = []

    async def first() -> None:
        begun.set()
        await asyncio.Event().wait()

    once = Once()
    task = asyncio.create_task(once.do(first))
    await begun.wait()
    waiting = asyncio.create_task(asyncio.to_thread(once.do_sync, lambda: order.append("thread"), WAIT_SECONDS))
    while once.statistics().waiting == 0:  # noqa: ASYNC110  # a primitive under test has no event to wait for
        await asyncio.sleep(0)
    task.cancel()
    await waiting
    assert order == ["thread"]
    assert task.cancelled()


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


def test_thread_alone_cannot_run_an_async_initialiser() -> None:
    """Without a task to run it an async initialiser is refused, and nothing is remembered."""

    async def build() -> int:
        return 1

    for once in (OnceValue(build), OnceValue(lambda: build())):  # noqa: PLW0108  # hides that it is async
        with pytest.raises(RuntimeError, match="needs a task"):
            once.get_sync()
        assert asyncio.run(once.get()) == 1


async def test_thread_gives_up_waiting_after_its_timeout() -> None:
    """A thread waits for another caller's run no longer than its timeout, and leaves no trace."""
    go_on = asyncio.Event()

    async def build() -> int:
        await go_on.wait()
        return 3

    once = OnceValue(build)
    task = asyncio.create_task(once.get())
    await asyncio.sleep(0)
    with pytest.raises(TimeoutError):
        await asyncio.to_thread(once.get_sync, 0.01)
    assert once.statistics() == OnceStatistics(state="running", waiting=0, attempts=1)
    go_on.set()
    assert await task == 3
    assert await asyncio.to_thread(once.get_sync) == 3


async def test_blocking_the_event_loop_is_refused() -> None:
    """The synchronous form raises where it would block the loop that the initialiser runs in."""

    async def build() -> int:
        await asyncio.sleep(0)
        return 3

    once = OnceValue(build)
    task = asyncio.create_task(once.get())
    await asyncio.sleep(0)
    with pytest.raises(RuntimeError, match="block the running event loop"):
        once.get_sync()
    assert await task == 3


def test_interrupted_thread_hands_over() -> None:
    """KeyboardInterrupt in the middle says nothing about the initialiser: the next caller runs it."""
    runs = AtomicCounter()

    def build() -> int:
        if runs.add() == 1:
            raise KeyboardInterrupt
        return 5

    once = OnceValue(build)
    with pytest.raises(KeyboardInterrupt):
        once.get_sync()
    assert once.get_sync() == 5


def test_value_is_shared_among_event_loops() -> None:
    """Tasks of two event loops in two threads wait for one run."""
    runs = AtomicCounter()
    begun = threading.Event()
    go_on = threading.Event()

    def build() -> object:
        runs.add()
        begun.set()
        go_on.wait(WAIT_SECONDS)
        return object()

    once: OnceValue[object] = OnceValue(build)
    answers: list[object] = []
    first = threading.Thread(target=lambda: answers.append(asyncio.run(once.get())))
    first.start()
    assert begun.wait(WAIT_SECONDS)

    async def second() -> None:
        task = asyncio.create_task(once.get())
        while once.statistics().waiting == 0:  # noqa: ASYNC110  # a primitive under test has no event to wait for
            await asyncio.sleep(0)
        go_on.set()
        answers.append(await task)

    asyncio.run(second())
    first.join()
    assert len({id(answer) for answer in answers}) == 1
    assert len(answers) == 2
    assert runs.load() == 1


class InterferingLock:
    """A lock that lets something happen just before it is taken for the first time."""

    def __init__(self, interfere: Callable[[], object]) -> None:
        self._lock = threading.Lock()
        self._interfere: Callable[[], object] | None = interfere

    def __enter__(self) -> None:
        interfere, self._interfere = self._interfere, None
        if interfere is not None:
            interfere()
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()


def test_value_that_is_built_while_a_caller_is_about_to_wait_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another caller that is done between a caller's first look and its place in the queue leaves nobody waiting."""
    runs = AtomicCounter()
    once = OnceValue(runs.add)
    monkeypatch.setattr(once._gate, "_lock", InterferingLock(once.get_sync))
    assert once.get_sync(WAIT_SECONDS) == 1
    assert once.statistics() == OnceStatistics(state="done", waiting=0, attempts=1)


def test_runner_whose_loop_is_gone_hands_over(caplog: pytest.LogCaptureFixture) -> None:
    """When a task dies with its event loop in the middle of the initialiser, the next caller runs it."""
    runs = AtomicCounter()

    async def build() -> str:
        if runs.add() == 1:
            await asyncio.Event().wait()
        return "built"

    once: OnceValue[str] = OnceValue(build)
    loop = asyncio.new_event_loop()
    loop.set_exception_handler(lambda *_: None)  # it hears of the two tasks destroyed below
    tasks = [loop.create_task(once.get()) for _ in range(2)]
    loop.run_until_complete(asyncio.sleep(0))
    assert once.statistics() == OnceStatistics(state="running", waiting=1, attempts=1)
    loop.close()
    tasks.clear()
    gc.collect()
    assert asyncio.run(once.get()) == "built"
    assert once.statistics() == OnceStatistics(state="done", waiting=0, attempts=2)
    assert caplog.records == []


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
