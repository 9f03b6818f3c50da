"""The leak check: what it finds, what it does not, and how it names what it found."""

import asyncio
import gc
from collections.abc import AsyncIterator, Callable, Coroutine, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from patterns.bubble import bubble, wait_idle
from patterns.channel import Channel
from patterns.context import background
from patterns.error_group import ErrorGroup
from patterns.errors import LeakError
from patterns.leak import (
    TaskSite,
    check_leaks,
    collect_unreachable,
    describe_task,
    leaked_tasks,
)
from patterns.mutex import Mutex, RWMutex
from patterns.once import OnceValue
from patterns.select import receive, select
from patterns.ticker import Ticker
from patterns.wait_group import WaitGroup
from patterns.worker_pool import WorkerPool

_Task = asyncio.Task[Any]  # Any: of no interest here


def line_of(mark: str) -> str:
    """Return this file and the number of its line that ends in a mark, as a site names it."""
    lines = Path(__file__).read_text().splitlines()
    (number,) = [number for number, line in enumerate(lines, 1) if line.endswith(f"# {mark}")]
    return f"{__file__}:{number} "


async def blocked_receive() -> None:
    """Receive from a channel that nobody sends to."""
    await Channel[int]().receive()  # blocked_receive


async def blocked_send() -> None:
    """Send to a full channel that nobody reads."""
    channel: Channel[int] = Channel(1)
    await channel.send(1)
    await channel.send(2)  # blocked_send


async def blocked_iteration() -> None:
    """Iterate over a channel that nobody closes."""
    async for _ in Channel[int](1):  # blocked_iteration
        pass


async def blocked_select() -> None:
    """Select among what cannot happen."""
    await select(receive(Channel[int]()), receive(None))  # blocked_select


async def blocked_context() -> None:
    """Wait for a context that nobody cancels."""
    await background().with_cancel().wait()  # blocked_context


async def blocked_run() -> None:
    """Await something under a context, neither of which ends."""
    await background().run(asyncio.Event().wait())  # blocked_run


async def blocked_mutex() -> None:
    """Lock a mutex whose owner is gone."""
    mutex = Mutex()
    await asyncio.create_task(mutex.lock())
    async with mutex:  # blocked_mutex
        pass


async def blocked_writer() -> None:
    """Write where a reader has never left."""
    mutex = RWMutex()
    await asyncio.create_task(mutex.read().__aenter__())
    async with mutex.write():  # blocked_writer
        pass


async def blocked_wait_group() -> None:
    """Wait for a done that never comes."""
    group = WaitGroup()
    group.add()
    await group.wait()  # blocked_wait_group


async def blocked_go() -> None:
    """Start a function in a group that has no place."""
    await ErrorGroup(limit=0).go(asyncio.sleep, 1)  # blocked_go


async def blocked_once() -> None:
    """Run an initialiser that never ends."""
    once = OnceValue(asyncio.Event().wait)
    await once.get()  # blocked_once


async def blocked_submit() -> None:
    """Submit to a pool whose only worker is stuck."""
    async with WorkerPool(Channel[int]().send, 1, capacity=0) as pool:
        await pool.submit(1)
        await pool.submit(2)  # blocked_submit


async def blocked_sleep() -> None:
    """Sleep for an hour."""
    await asyncio.sleep(3600)  # blocked_sleep


async def blocked_ticker_loop() -> None:
    """Follow a ticker for ever."""
    async for _ in Ticker(3600).channel:  # blocked_ticker_loop
        pass


async def blocked_deep_inside() -> None:
    """Wait several calls down."""

    async def inner() -> None:
        await asyncio.get_running_loop().create_future()  # blocked_deep_inside

    async def outer() -> None:
        await inner()

    await outer()


async def blocked_generator() -> None:
    """Iterate over a generator that yields nothing."""

    async def generate() -> AsyncIterator[None]:
        await asyncio.Event().wait()
        yield

    async for _ in generate():  # blocked_generator
        pass


class Forever:
    """Something to await whose waiting is an ordinary generator."""

    def __await__(self) -> Generator[Any, None, None]:  # Any: what an event loop wants to be given
        yield from asyncio.get_running_loop().create_future()  # blocked_awaitable


async def blocked_awaitable() -> None:
    """Await an object of a class of its own."""
    await Forever()


CORPUS = [function for name, function in list(globals().items()) if name.startswith("blocked_")]


@contextmanager
def ended(before: set[_Task]) -> Iterator[None]:
    """Cancel, on leaving, the tasks that have come since."""
    yield
    for task in asyncio.all_tasks() - before:
        task.cancel()


@pytest.mark.parametrize("function", CORPUS, ids=lambda function: function.__name__)
def test_leaked_task_is_found_with_its_wait_site_and_creation_site(
    function: Callable[[], Coroutine[Any, Any, None]],
) -> None:
    """Whatever a forgotten task waits for, it is found, with the line that waits and the line that made it."""

    async def main() -> list[TaskSite]:
        before = asyncio.all_tasks()
        with ended(before):
            task = asyncio.create_task(function(), name="forgotten")  # makes the leak
            await wait_idle()
            sites = leaked_tasks(before)
            assert describe_task(task) in sites
        await asyncio.wait({task})
        return sites

    (site,) = [site for site in bubble(main) if site.name == "forgotten"]
    assert site.waits_at.startswith(line_of(function.__name__))
    assert site.created_at.startswith(line_of("makes the leak"))


def test_finished_current_and_ignored_tasks_are_no_leaks() -> None:
    """A task that has ended, the one that asks, and those named as wanted are not reported."""

    async def main() -> None:
        done = asyncio.create_task(asyncio.sleep(0))
        await done
        wanted = asyncio.create_task(asyncio.sleep(10))
        check_leaks(ignore=[wanted])
        assert leaked_tasks([wanted]) == []
        await wanted
        check_leaks()

    bubble(main)


def test_check_names_each_leak() -> None:
    """The error counts the leaks and has one line for each."""

    async def main() -> None:
        tasks = [asyncio.create_task(blocked_sleep(), name=f"sleeper {number}") for number in range(2)]
        await wait_idle()
        with pytest.raises(LeakError, match="2 tasks leaked") as caught:
            check_leaks()
        lines = str(caught.value).splitlines()
        assert [line.split(" waits")[0].strip() for line in lines[1:]] == ["task 'sleeper 0'", "task 'sleeper 1'"]
        assert all(line_of("blocked_sleep") in line for line in lines[1:])
        for task in tasks:
            task.cancel()

    bubble(main)


@pytest.mark.parametrize(
    ("function", "operation"), [(blocked_send, "Channel.send"), (blocked_sleep, "sleep"), (blocked_awaitable, None)]
)
def test_operation_that_waits_is_named(
    function: Callable[[], Coroutine[Any, Any, None]], operation: str | None
) -> None:
    """Behind the line stands the operation of the library that the task is in, however deep it waits in there."""

    async def main() -> str:
        task = asyncio.create_task(function())
        await wait_idle()
        site = describe_task(task)
        task.cancel()
        return site.waits_at

    site = bubble(main)
    assert site.endswith(f"in {function.__name__} ({operation})" if operation else "in Forever.__await__")


def test_creation_site_is_the_line_that_asks_the_factory() -> None:
    """A loop that is not written in Python puts no frame of its own between the maker of a task and the factory."""

    async def main() -> str:
        loop = asyncio.get_running_loop()
        factory = loop.get_task_factory()
        assert factory is not None
        task = factory(loop, blocked_sleep())  # asks the factory
        assert isinstance(task, asyncio.Task)
        site = describe_task(task)
        task.cancel()
        return site.created_at

    assert bubble(main).startswith(line_of("asks the factory"))


async def test_task_made_before_recording_began_has_an_unknown_creation_site() -> None:
    """Without record_creation a task is still found; only its maker is not known."""
    loop = asyncio.get_running_loop()
    factory = loop.get_task_factory()
    loop.set_task_factory(None)
    task = asyncio.create_task(blocked_sleep())
    loop.set_task_factory(factory)
    assert describe_task(task).created_at == "an unknown place"
    task.cancel()
    await asyncio.wait({task})
    assert describe_task(task).waits_at == "its end"


def unheard(faults: list[str]) -> None:
    """Let the running loop tell its faults to a list."""
    asyncio.get_running_loop().set_exception_handler(lambda _, fault: faults.append(str(fault["message"])))


def test_task_on_an_unreachable_channel_is_found_and_collected() -> None:
    """Tasks that wait for a channel nobody else can reach, alone or in a ring, are dead: named and destroyed."""

    async def main() -> None:
        faults: list[str] = []
        unheard(faults)

        async def pass_on(source: Channel[int], target: Channel[int]) -> None:
            async for value in source:
                await target.send(value)

        left: Channel[int] = Channel()
        right: Channel[int] = Channel()
        asyncio.create_task(pass_on(left, right), name="ring 1")  # noqa: RUF006  # forgotten on purpose
        asyncio.create_task(pass_on(right, left), name="ring 2")  # noqa: RUF006  # forgotten on purpose
        asyncio.create_task(blocked_receive(), name="alone")  # noqa: RUF006  # forgotten on purpose
        del left, right
        await wait_idle()
        sites = collect_unreachable()
        assert [site.name for site in sites] == ["alone", "ring 1", "ring 2"]
        assert sites[0].waits_at.startswith(line_of("blocked_receive"))
        assert faults == ["Task was destroyed but it is pending!"] * 3
        assert asyncio.all_tasks() == {asyncio.current_task()}

    bubble(main)


def test_reachable_and_timed_waits_are_not_collected() -> None:
    """A task whose channel live code still holds, one whose handle is held, and a sleeper may still be woken."""

    async def main() -> None:
        channel: Channel[int] = Channel()
        asyncio.create_task(channel.receive(), name="channel held")  # noqa: RUF006  # forgotten on purpose
        held = asyncio.create_task(blocked_receive(), name="handle held")
        asyncio.create_task(asyncio.sleep(10), name="timer")  # noqa: RUF006  # forgotten on purpose
        await wait_idle()
        assert collect_unreachable() == []
        await channel.send(1)
        held.cancel()
        await asyncio.sleep(10)

    bubble(main)


def test_collecting_leaves_a_running_loop_in_order() -> None:
    """After the collection other tasks go on as if the dead ones had never been."""

    async def main() -> int:
        unheard([])
        channel: Channel[int] = Channel()
        sender = asyncio.create_task(channel.send(5))
        asyncio.create_task(blocked_select())  # noqa: RUF006  # forgotten on purpose
        await wait_idle()
        assert len(collect_unreachable()) == 1
        value = await channel.receive()
        await sender
        gc.collect()
        return value

    assert bubble(main) == 5
