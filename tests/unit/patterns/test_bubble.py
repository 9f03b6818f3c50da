"""bubble: the virtual clock, and deadlocks as errors."""

import asyncio
import math
from pathlib import Path

import pytest

from patterns.bubble import bubble, wait_idle
from patterns.channel import Channel
from patterns.context import background
from patterns.errors import DeadlineExceeded, DeadlockError
from patterns.mutex import Mutex
from patterns.select import Outcome, receive, select
from patterns.ticker import Ticker, after
from tests.support.running_loop import now
from tests.support.shuffling_loop import ShufflingRealLoop, run_shuffled


def line_of(mark: str) -> str:
    """Return this file and the number of its line that ends in a mark, as a wait site names it."""
    lines = Path(__file__).read_text().splitlines()
    (number,) = [number for number, line in enumerate(lines, 1) if line.endswith(f"# {mark}")]
    return f"{__file__}:{number} "


def test_time_jumps_to_the_next_timer_when_every_task_waits() -> None:
    """Sleeps, deadlines, tickers and afters are due at their exact times, and a year costs nothing."""

    async def main() -> list[tuple[str, float]]:
        seen: list[tuple[str, float]] = []

        async def sleep(seconds: float) -> None:
            await asyncio.sleep(seconds)
            seen.append(("slept", now()))

        tasks = [asyncio.create_task(sleep(seconds)) for seconds in (0.3, 0.1, 31_536_000.0)]
        with background().with_timeout(0.2) as ctx:
            with pytest.raises(DeadlineExceeded):
                await ctx.run(asyncio.Event().wait())
            seen.append(("deadline", now()))
        ticker = Ticker(1)
        await ticker.channel.receive()
        await ticker.channel.receive()
        seen.append(("second tick", now()))
        ticker.stop()
        await after(7.5).receive()
        seen.append(("after", now()))
        await asyncio.gather(*tasks)
        return seen

    assert bubble(main) == [
        ("slept", 0.1),
        ("deadline", 0.2),
        ("slept", 0.3),
        ("second tick", 2.2),
        ("after", 9.7),
        ("slept", 31_536_000.0),
    ]


def test_order_is_the_same_in_every_run() -> None:
    """Tasks that are due at the same time run in the same order each time."""

    async def main() -> list[int]:
        order: list[int] = []

        async def note(number: int) -> None:
            await asyncio.sleep(number % 3)
            order.append(number)

        await asyncio.gather(*(note(number) for number in range(20)))
        return order

    assert len({tuple(bubble(main)) for _ in range(10)}) == 1


def test_clock_stands_while_a_task_can_run() -> None:
    """A task that is ready keeps the time from going on, however often it yields."""

    async def main() -> float:
        sleeper = asyncio.create_task(asyncio.sleep(1))
        for _ in range(1_000):
            await asyncio.sleep(0)
        stood_at = now()
        await sleeper
        return stood_at

    assert bubble(main) == 0


def test_ready_case_beats_a_timeout_of_the_same_moment() -> None:
    """On the virtual clock a select with a timeout is exact: the value sent before its end wins."""

    async def main() -> list[object]:
        channel: Channel[str] = Channel()
        outcomes: list[object] = []
        for pause in (1.9, 2.1):
            sender = asyncio.create_task(send_after(channel, pause))
            case = receive(channel)
            outcomes.append(await select(case, timeout_seconds=2) is case)
            sender.cancel()
            await asyncio.wait({sender})
        outcomes.append(await select(receive(channel), timeout_seconds=2))
        return outcomes

    async def send_after(channel: Channel[str], seconds: float) -> None:
        await asyncio.sleep(seconds)
        await channel.send("value")

    assert bubble(main) == [True, False, Outcome.TIMEOUT]


def test_deadlock_names_both_wait_sites_and_creation_sites() -> None:
    """Two tasks that take two mutexes in opposite order: the error says where each waits and who made it."""

    async def main() -> None:
        left, right = Mutex(), Mutex()

        async def take_left_first() -> None:
            async with left:
                await asyncio.sleep(1)
                async with right:  # waits for right
                    pass

        async def take_right_first() -> None:
            async with right:
                await asyncio.sleep(1)
                async with left:  # waits for left
                    pass

        first = asyncio.create_task(take_left_first(), name="left-first")  # makes the first
        second = asyncio.create_task(take_right_first(), name="right-first")  # makes the second
        await asyncio.gather(first, second)  # waits for both

    with pytest.raises(DeadlockError) as caught:
        bubble(main)
    message = str(caught.value)
    assert message.startswith("every task waits and no timer is set:")
    for name, wait, operation, creation in (
        ("left-first", "waits for right", "(Mutex.__aenter__)", "makes the first"),
        ("right-first", "waits for left", "(Mutex.__aenter__)", "makes the second"),
    ):
        (line,) = [line for line in message.splitlines() if f"task '{name}'" in line]
        assert f"waits at {line_of(wait)}" in line
        assert operation in line
        assert f"created at {line_of(creation)}" in line
    assert f"waits at {line_of('waits for both')}" in message


def test_deadlock_on_channels_names_the_operations() -> None:
    """A receive and a send that nobody answers, and a select of nothing, are named as what they are."""

    async def main() -> None:
        empty: Channel[int] = Channel()
        full: Channel[int] = Channel()
        tasks = [asyncio.create_task(empty.receive()), asyncio.create_task(full.send(1))]
        tasks.append(asyncio.create_task(wait_for_nothing()))
        await asyncio.wait(tasks)

    async def wait_for_nothing() -> None:
        await select(receive(None))  # waits for nothing

    with pytest.raises(DeadlockError) as caught:
        bubble(main)
    assert f"waits at {line_of('waits for nothing')}" in str(caught.value)
    assert "receive" in str(caught.value)
    assert "send" in str(caught.value)


def test_tasks_of_a_deadlock_are_cancelled() -> None:
    """After the error nothing is left: each task was cancelled and could clean up, even with the help of time."""
    cleaned: list[float] = []

    async def main() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(5)
            cleaned.append(now())

    with pytest.raises(DeadlockError):
        bubble(main)
    assert cleaned == [5]


def test_task_that_refuses_its_cancel_after_a_deadlock_does_not_hang() -> None:
    """A task that goes on waiting when cancelled makes the clean-up a deadlock again, which is an error too."""

    async def main() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            await asyncio.Event().wait()

    heard: list[str] = []

    async def with_handler() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, fault: heard.append(str(fault["message"])))
        await main()

    with pytest.raises(DeadlockError):
        bubble(with_handler)


def test_main_function_that_leaves_a_waiting_task_behind_is_a_deadlock() -> None:
    """When main has returned the clock stands: a task that still waits, be it for a timer, is named, and cleans up."""
    cleaned: list[float] = []

    async def wait() -> None:
        try:
            await asyncio.sleep(1)
        finally:
            await asyncio.sleep(5)
            cleaned.append(now())

    async def main() -> str:
        asyncio.create_task(wait(), name="forgotten")  # noqa: RUF006  # forgotten on purpose
        return "done"

    with pytest.raises(DeadlockError, match="main function has returned") as caught:
        bubble(main)
    assert "task 'forgotten'" in str(caught.value)
    assert cleaned == [5]


def test_task_left_behind_may_finish_what_needs_no_time() -> None:
    """A task that is ready when main returns runs to its end."""
    done: list[str] = []

    async def finish() -> None:
        for _ in range(10):
            await asyncio.sleep(0)
        done.append("finished")

    async def main() -> None:
        asyncio.create_task(finish())  # noqa: RUF006  # forgotten on purpose

    bubble(main)
    assert done == ["finished"]


def test_error_of_the_main_function_comes_out_and_the_rest_is_cancelled() -> None:
    """An exception ends the bubble, and its other tasks clean up."""
    cleaned: list[str] = []

    async def clean_up() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cleaned.append("clean")

    async def main() -> None:
        asyncio.create_task(clean_up())  # noqa: RUF006  # forgotten on purpose
        await wait_idle()
        raise ValueError("main")

    with pytest.raises(ValueError, match="main"):
        bubble(main)
    assert cleaned == ["clean"]


def test_wait_idle_returns_when_the_others_wait_and_no_time_has_passed() -> None:
    """Go's synctest.Wait: everything that could happen now has happened."""

    async def main() -> None:
        steps: list[int] = []

        async def count() -> None:
            for number in range(50):
                steps.append(number)
                await asyncio.sleep(0)
            await asyncio.sleep(1)

        task = asyncio.create_task(count())
        await wait_idle()
        assert len(steps) == 50
        assert now() == 0
        await task

    bubble(main)


def test_cancelled_wait_idle_disturbs_nobody() -> None:
    """A wait for idleness that is cancelled is forgotten; another one of the same moment returns."""

    async def main() -> None:
        first, second = asyncio.create_task(wait_idle()), asyncio.create_task(wait_idle())
        await asyncio.sleep(0)
        first.cancel()
        await second
        assert first.cancelled()

    bubble(main)


async def test_wait_idle_outside_a_bubble_raises() -> None:
    """On a real loop nobody can tell whether everything waits."""
    with pytest.raises(RuntimeError, match="inside a bubble only"):
        await wait_idle()


async def test_bubble_inside_a_running_loop_raises() -> None:
    """A bubble is a loop of its own and cannot run within another."""

    async def main() -> None:
        pass

    coroutine = main()
    with pytest.raises(RuntimeError, match="running event loop"):
        bubble(lambda: coroutine)
    coroutine.close()


def test_wait_for_the_end_of_time_is_a_deadlock() -> None:
    """A timer at infinity wakes nobody, be it a sleep's or a deadline's, and is never reached."""

    async def sleep() -> None:
        await asyncio.sleep(5)
        await asyncio.sleep(math.inf)

    async def wait_for_deadline() -> None:
        with background().with_timeout(math.inf) as ctx:
            await ctx.wait()

    for wait in (sleep, wait_for_deadline):
        with pytest.raises(DeadlockError, match="no timer is set"):
            bubble(wait)


def test_network_is_refused() -> None:
    """What would open a socket raises instead of waiting for the real world."""

    async def main() -> None:
        with pytest.raises(NotImplementedError):
            await asyncio.open_connection("127.0.0.1", 1)

    bubble(main)


def test_shuffled_runs_differ_by_seed_and_repeat_by_seed() -> None:
    """The shuffling loop finds all six orders of three tasks, and the same seed gives the same one."""

    async def main() -> tuple[int, ...]:
        order: list[int] = []

        async def note(number: int) -> None:
            order.append(number)

        await asyncio.gather(*(note(number) for number in range(3)))
        return tuple(order)

    orders = run_shuffled(main, seeds=range(100))
    assert len(set(orders)) == 6
    assert run_shuffled(main, seeds=range(100)) == orders
    assert len(set(run_shuffled(main, seeds=range(100), loop_class=ShufflingRealLoop))) == 6


def test_shuffling_leaves_callbacks_in_their_order() -> None:
    """Only task steps are shuffled: callbacks run in the order in which they were given to the loop."""

    async def main() -> list[int]:
        order: list[int] = []
        for number in range(10):
            asyncio.get_running_loop().call_soon(order.append, number)
        await asyncio.sleep(0)
        return order

    assert all(order == list(range(10)) for order in run_shuffled(main))


def test_failure_under_shuffling_prints_its_seed(capsys: pytest.CaptureFixture[str]) -> None:
    """The seed of a failed run is printed and noted on the error, so that it can be run again."""

    async def main() -> None:
        raise ValueError("found")

    with pytest.raises(ValueError, match="found") as caught:
        run_shuffled(main, seeds=[17])
    assert "seed 17" in capsys.readouterr().out
    assert "seeds=[17]" in caught.value.__notes__[0]


def test_error_that_only_the_loop_hears_fails_the_shuffled_run() -> None:
    """A task whose error nobody asks for fails the test, with its seed."""

    async def fail() -> None:
        raise ValueError("unheard")

    async def main() -> None:
        asyncio.create_task(fail())  # noqa: RUF006  # forgotten on purpose

    with pytest.raises(AssertionError, match=r"seed 3: .*unheard"):
        run_shuffled(main, seeds=[3])
