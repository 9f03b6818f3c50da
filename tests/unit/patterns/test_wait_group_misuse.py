"""WaitGroup: what is misuse and what is none, and where rounds begin and end."""

import asyncio
import gc

import pytest

from patterns.bubble import bubble, wait_idle
from patterns.channel import Channel
from patterns.errors import WaitGroupMisuseError
from patterns.wait_group import WaitGroup
from tests.support.endings import fail


def test_count_below_zero_raises_and_changes_nothing() -> None:
    """One done too many is refused at once, and the count stays true."""

    async def main() -> None:
        group = WaitGroup()
        with pytest.raises(WaitGroupMisuseError, match="-1"):
            group.done()
        group.add(2)
        with pytest.raises(WaitGroupMisuseError, match="-1"):
            group.add(-3)
        assert group.statistics().count == 2
        group.add(-2)
        await group.wait()

    bubble(main)


def test_add_inside_the_task_is_caught() -> None:
    """A task that counts itself after the wait found nothing to wait for gets an error instead of being forgotten."""

    async def main() -> None:
        group = WaitGroup()

        async def count_oneself() -> None:
            group.add()
            await asyncio.sleep(1)
            group.done()

        tasks = [asyncio.create_task(count_oneself()) for _ in range(2)]
        await group.wait()
        errors = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(error) for error in errors] == [WaitGroupMisuseError] * 2
        assert "before the task is created" in str(errors[0])
        assert group.statistics().count == 0

    bubble(main)


def test_add_by_a_task_that_ran_before_the_wait_is_no_misuse() -> None:
    """A long-lived task may open a round after a wait found nothing: it did not come too late for that wait."""

    async def main() -> None:
        group = WaitGroup()
        go_on = asyncio.Event()

        async def work_later() -> None:
            await go_on.wait()
            group.add()
            group.done()

        task = asyncio.create_task(work_later())
        await wait_idle()
        await group.wait()
        go_on.set()
        await task

    bubble(main)


@pytest.mark.parametrize("rounds", [0, 2])
def test_task_that_serves_may_open_a_round_after_an_empty_wait(rounds: int) -> None:
    """A task that had not begun at that wait, and first waits for work, counts it when it comes."""

    async def main() -> None:
        group = WaitGroup()
        requests: Channel[int] = Channel()

        async def serve() -> None:
            async for seconds in requests:
                group.go(asyncio.sleep, seconds)

        serving = asyncio.create_task(serve())
        await group.wait()
        for _ in range(rounds):
            group.go(asyncio.sleep, 1)
            await group.wait()
        await wait_idle()
        await requests.send(5)
        await group.wait()
        requests.close()
        await serving
        assert asyncio.get_running_loop().time() == rounds + 5

    bubble(main)


def test_each_empty_wait_looks_for_late_tasks_of_its_own() -> None:
    """A task that is made after one empty wait and adds itself after the next is caught as well."""

    async def main() -> None:
        group = WaitGroup()

        async def count_oneself() -> None:
            group.add()

        await group.wait()
        task = asyncio.create_task(count_oneself())
        await group.wait()
        with pytest.raises(WaitGroupMisuseError, match="before the task is created"):
            await task

    bubble(main)


@pytest.mark.parametrize("is_told", [False, True])
def test_wait_whose_loop_was_closed_is_not_waited_for(is_told: bool) -> None:
    """A wait that can never return, told of the end or not, keeps nobody from the next round."""
    group = WaitGroup()
    group.add()
    loop = asyncio.new_event_loop()
    loop.set_exception_handler(lambda *_: None)  # the task is destroyed while it waits: that is the point
    waiting = loop.create_task(group.wait())
    loop.run_until_complete(asyncio.sleep(0))
    if is_told:
        group.done()
    loop.close()
    if not is_told:
        group.done()
    del waiting
    gc.collect()
    group.add()
    group.done()
    bubble(group.wait)


def test_add_while_something_is_counted_is_never_too_late() -> None:
    """A task that had not begun at an empty wait may add itself to a round that has been opened since."""

    async def main() -> None:
        group = WaitGroup()

        async def count_oneself() -> None:
            group.add()
            await asyncio.sleep(1)
            group.done()

        task = asyncio.create_task(count_oneself())
        await group.wait()
        group.add()
        await wait_idle()
        group.done()
        await group.wait()
        await task
        assert asyncio.get_running_loop().time() == 1

    bubble(main)


def test_add_by_a_task_that_had_not_begun_when_a_round_was_over_is_no_misuse() -> None:
    """A wait that came after the end of a round has found what it was meant for; the task may open the next one."""

    async def main() -> None:
        group = WaitGroup()

        async def open_next_round() -> None:
            group.add()
            group.done()

        group.add()
        group.done()
        task = asyncio.create_task(open_next_round())
        await group.wait()
        await task

    bubble(main)


def test_add_inside_the_task_is_caught_after_earlier_rounds() -> None:
    """A round that was waited for does not excuse the next wait, which found nothing to wait for."""

    async def main() -> None:
        group = WaitGroup()

        async def count_oneself() -> None:
            group.add()

        group.go(asyncio.sleep, 1)
        await group.wait()
        task = asyncio.create_task(count_oneself())
        await group.wait()
        with pytest.raises(WaitGroupMisuseError, match="before the task is created"):
            await task

    bubble(main)


def test_use_before_a_wait_has_returned_is_refused() -> None:
    """Between the end of a round and the return of its wait nothing may be counted: that wait would not see it."""

    async def main() -> None:
        group = WaitGroup()
        group.add()
        waiting = asyncio.create_task(group.wait())
        await wait_idle()
        group.done()
        with pytest.raises(WaitGroupMisuseError, match="before the last wait has returned"):
            group.add()
        with pytest.raises(WaitGroupMisuseError, match="before the last wait has returned"):
            group.go(asyncio.sleep, 1)
        await waiting
        group.go(asyncio.sleep, 1)
        await group.wait()

    bubble(main)


def test_add_of_nothing_begins_no_round() -> None:
    """It leaves the errors of the last round to whoever asks for them."""

    async def main() -> None:
        group = WaitGroup()
        group.go(fail, "kept")
        for _ in range(2):
            with pytest.raises(ExceptionGroup):
                await group.wait()
            group.add(0)

    bubble(main)
