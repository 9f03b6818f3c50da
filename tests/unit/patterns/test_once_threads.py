"""Once and OnceValue among threads and event loops."""

import asyncio
import gc
import threading
from collections.abc import Callable

import pytest

from patterns.atomic import AtomicCounter
from patterns.once import Once, OnceStatistics, OnceValue

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


def test_thread_alone_cannot_run_an_async_initialiser() -> None:
    """Without a task to run it an async initialiser is refused, and nothing is remembered."""

    async def build() -> int:
        return 1

    seen = OnceValue(build)
    hidden = OnceValue(lambda: build())  # noqa: PLW0108  # hides that it is async
    for once, attempts in ((seen, 0), (hidden, 1)):  # one is refused beforehand, one when it was begun
        with pytest.raises(RuntimeError, match="needs a task"):
            once.get_sync()
        assert once.statistics() == OnceStatistics(state="new", waiting=0, attempts=attempts)
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
