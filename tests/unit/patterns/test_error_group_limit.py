"""ErrorGroup: its limit, and what may start when."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from patterns._budget import LIMIT, current_budget
from patterns.bubble import bubble, wait_idle
from patterns.channel import Channel
from patterns.error_group import ErrorGroup, ErrorGroupStatistics
from tests.support.shuffling_loop import run_shuffled


def test_limit_is_never_exceeded() -> None:
    """In 100 interleavings of 20 functions and a limit of 3, at most three run at once, and three do."""

    async def main() -> int:
        running = most = 0

        async def work() -> None:
            nonlocal running, most
            running += 1
            most = max(most, running)
            await asyncio.sleep(0)
            running -= 1

        async with ErrorGroup(limit=3) as group:
            for _ in range(20):
                await group.go(work)
                assert group.statistics().running <= 3
        assert group.statistics() == ErrorGroupStatistics(running=0, begun=20, failed=0, limit=3, is_cancelled=False)
        return most

    assert set(run_shuffled(main)) == {3}


def test_go_at_the_limit_waits_in_the_order_of_asking() -> None:
    """A function beyond the limit begins when a place is free, first come, first served."""

    async def main() -> None:
        order: list[int] = []

        async def work(number: int) -> None:
            order.append(number)
            await asyncio.sleep(1)

        async with ErrorGroup(limit=1) as group:
            askers = []
            for number in range(4):
                askers.append(asyncio.create_task(group.go(work, number)))
                await wait_idle()
            assert order == [0]
            await asyncio.gather(*askers)
        assert order == [0, 1, 2, 3]

    bubble(main)


def test_cancelled_go_leaves_its_place_to_others() -> None:
    """In 1,000 interleavings a go is cancelled in the tick in which it got its place: no place is lost."""

    async def main() -> None:
        ran: list[str] = []

        async def work(name: str) -> None:
            ran.append(name)

        async with ErrorGroup(limit=1) as group:
            await group.go(asyncio.sleep, 1)
            first = asyncio.create_task(group.go(work, "first"))
            second = asyncio.create_task(group.go(work, "second"))
            await asyncio.sleep(1)
            first.cancel()
            await second
        assert "second" in ran
        assert ran.count("first") == (0 if first.cancelled() else 1)

    run_shuffled(main, seeds=range(1_000))


def test_try_go_starts_only_below_the_limit() -> None:
    """TryGo's answer is whether the function was started."""

    async def main() -> None:
        async with ErrorGroup(limit=1) as group:
            assert group.try_go(asyncio.sleep, 1) is True
            assert group.try_go(asyncio.sleep, 1) is False
            await asyncio.sleep(2)
            assert group.try_go(asyncio.sleep, 1) is True
        assert group.statistics().begun == 2
        async with ErrorGroup() as group:
            assert group.try_go(asyncio.sleep, 1) is True

    bubble(main)


def test_limit_of_zero_lets_nothing_start() -> None:
    """As in Go: go waits for ever, here until the group is cancelled, and try_go says no."""

    async def main() -> None:
        async with ErrorGroup(limit=0) as group:
            assert group.try_go(asyncio.sleep, 1) is False
            asker = asyncio.create_task(group.go(asyncio.sleep, 1))
            await wait_idle()
            assert not asker.done()
            group.cancel()
            await asker
        assert group.statistics().begun == 0

    bubble(main)


def test_limit_changes_only_while_nothing_runs() -> None:
    """A change while a function runs raises, and so does a negative limit."""

    async def main() -> None:
        async with ErrorGroup(limit=1) as group:
            group.set_limit(2)
            await group.go(asyncio.sleep, 1)
            with pytest.raises(RuntimeError, match="while 1 functions run"):
                group.set_limit(3)
            await group.go(asyncio.sleep, 1)
            assert group.statistics().running == 2
            await asyncio.sleep(2)
            group.set_limit(None)
            for _ in range(5):
                await group.go(asyncio.sleep, 1)
            assert group.statistics().running == 5

    bubble(main)


def test_wrong_arguments_name_the_parameter() -> None:
    """A negative limit and an unknown policy are refused."""
    with pytest.raises(ValueError, match="limit must be 0 or more"):
        ErrorGroup(limit=-1)
    with pytest.raises(ValueError, match="policy must be"):
        ErrorGroup(policy="any")  # type: ignore[arg-type]  # the point of the test


def test_function_given_to_a_cancelled_group_is_not_begun() -> None:
    """After the end of the group nothing starts: go returns, try_go says no, and a waiting go returns too."""

    async def main() -> None:
        begun: list[str] = []

        async def work(name: str) -> None:
            begun.append(name)
            await asyncio.sleep(10)

        for limit in (None, 1):
            group = ErrorGroup(limit=limit)
            await group.go(work, "before")
            waiting = asyncio.create_task(group.go(work, "waiting")) if limit else None
            await wait_idle()
            group.cancel()
            await group.go(work, "after")
            assert group.try_go(work, "after") is False
            if waiting:
                await waiting
            await group.wait()
        assert begun == ["before", "before"]

    bubble(main)


@pytest.mark.parametrize("limit", [None, 1])
@pytest.mark.parametrize("is_cancelled", [False, True])
def test_group_that_has_ended_refuses_functions(limit: int | None, is_cancelled: bool) -> None:
    """After wait has returned both ways to start a function raise, whatever its end was."""

    async def main() -> None:
        group = ErrorGroup(limit=limit)
        if is_cancelled:
            group.cancel()
        await group.wait()
        with pytest.raises(RuntimeError, match="has ended"):
            await group.go(asyncio.sleep, 1)
        with pytest.raises(RuntimeError, match="has ended"):
            group.try_go(asyncio.sleep, 1)

    bubble(main)


def test_wrong_call_is_the_error_of_the_function() -> None:
    """A function called with the wrong arguments fails like one that raises, and frees its place."""

    async def main() -> None:
        wrong: Callable[..., Coroutine[Any, Any, None]] = asyncio.sleep  # Any: hides the mistake from the type checker
        group = ErrorGroup(limit=1, policy="all")
        await group.go(wrong, 1, 2, 3, 4)
        await group.go(asyncio.sleep, 1)
        with pytest.raises(ExceptionGroup) as caught:
            await group.wait()
        assert isinstance(caught.value.exceptions[0], TypeError)

    bubble(main)


def test_loop_of_ready_goes_lets_others_run_and_sees_its_cancel() -> None:
    """A body that starts functions without end is not alone in the loop."""

    async def main() -> None:
        async def nothing() -> None:
            pass

        async def spin() -> None:
            async with ErrorGroup() as group:
                while True:
                    await group.go(nothing)

        task = asyncio.create_task(spin())
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait({task})
        assert task.cancelled()

    bubble(main)


async def use_up_budget() -> None:
    """Do as many ready operations as a task may in a row: the next one yields first."""
    channel: Channel[None] = Channel(LIMIT + 1)
    await channel.send(None)
    for _ in range(current_budget().left):
        await channel.send(None)


def test_go_that_yields_while_wait_returns_is_refused() -> None:
    """Without a limit too a go may be overtaken by the end of the group; its function does not run unheard of."""

    async def main() -> None:
        begun: list[str] = []

        async def work() -> None:
            begun.append("work")

        group = ErrorGroup()
        await group.go(asyncio.sleep, 1)

        async def feed() -> None:
            await asyncio.sleep(1)
            await asyncio.sleep(0)  # now the function has ended, and wait is about to return
            await use_up_budget()
            await group.go(work)

        feeding = asyncio.create_task(feed())
        await group.wait()
        assert not feeding.done()
        with pytest.raises(RuntimeError, match="has ended"):
            await feeding
        assert begun == []

    bubble(main)


def test_go_that_gets_its_place_when_wait_has_returned_is_refused() -> None:
    """A place that one asker passes on to the next comes too late, and both askers end."""

    async def main() -> None:
        begun: list[str] = []

        async def work() -> None:
            begun.append("work")

        group = ErrorGroup(limit=1)
        await group.go(asyncio.sleep, 1)
        askers = [asyncio.create_task(group.go(work)) for _ in range(3)]

        await wait_idle()
        (running,) = group._tasks
        running.add_done_callback(lambda _: askers[0].cancel())
        await group.wait()
        await asyncio.wait(askers)
        assert askers[0].cancelled()
        assert [str(asker.exception()) for asker in askers[1:]] == ["the group has ended: make another one"] * 2
        assert begun == []

    bubble(main)


def test_go_without_hope_of_a_place_ends_with_the_group() -> None:
    """With a limit of zero whoever waits for a place hears that wait has returned."""

    async def main() -> None:
        group = ErrorGroup(limit=0)
        asker = asyncio.create_task(group.go(asyncio.sleep, 1))
        await wait_idle()
        await group.wait()
        with pytest.raises(RuntimeError, match="has ended"):
            await asker
        group.cancel()
        await group.wait()

    bubble(main)


def test_limit_does_not_change_while_somebody_waits_for_a_place() -> None:
    """The old limit's places are what they wait for; a waiting go that is cancelled no longer counts."""

    async def main() -> None:
        group = ErrorGroup(limit=0)
        asker = asyncio.create_task(group.go(asyncio.sleep, 1))
        await wait_idle()
        with pytest.raises(RuntimeError, match="0 functions run and 1 wait for a place"):
            group.set_limit(5)
        asker.cancel()
        await asyncio.wait({asker})
        group.set_limit(1)
        await group.go(asyncio.sleep, 1)
        assert group.try_go(asyncio.sleep, 1) is False
        await group.wait()

    bubble(main)


def test_limit_does_not_change_while_a_place_is_on_its_way() -> None:
    """Between the end of one function and the start of the next, which got its place, nothing runs."""

    async def main() -> None:
        group = ErrorGroup(limit=1)
        await group.go(asyncio.sleep, 1)
        asker = asyncio.create_task(group.go(asyncio.sleep, 1))
        refused: list[str] = []

        def change() -> None:
            try:
                group.set_limit(1)
            except RuntimeError as error:
                refused.append(str(error))

        await wait_idle()
        (running,) = group._tasks
        running.add_done_callback(lambda _: change())
        await asker
        await group.wait()
        assert refused == ["the limit cannot change while 0 functions run and 1 wait for a place"]
        assert group.statistics().begun == 2

    bubble(main)


def test_new_limit_of_a_cancelled_group_gives_no_places() -> None:
    """As before the change go returns at once, as often as it is called, and nothing is begun."""

    async def main() -> None:
        group = ErrorGroup()
        group.cancel()
        group.set_limit(1)
        for _ in range(2):
            await group.go(asyncio.sleep, 1)
        assert group.try_go(asyncio.sleep, 1) is False
        await group.wait()
        assert group.statistics().begun == 0

    bubble(main)
