"""ErrorGroup."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from patterns.bubble import bubble, wait_idle
from patterns.channel import Channel
from patterns.context import background
from patterns.error_group import ErrorGroup, ErrorGroupPolicy, ErrorGroupStatistics
from patterns.errors import ContextCancelled
from tests.support.shuffling_loop import run_shuffled


async def fail(message: str, after_seconds: float = 0.0) -> None:
    """Raise ValueError after some time."""
    await asyncio.sleep(after_seconds)
    raise ValueError(message)


async def fail_in_clean_up() -> None:
    """Wait for ever, and answer a cancel with an error."""
    try:
        await asyncio.Event().wait()
    finally:
        raise LookupError("in clean-up")


async def linger(seconds: float, log: list[str]) -> None:
    """Wait for ever, and take some time to end when cancelled."""
    try:
        await asyncio.Event().wait()
    finally:
        await asyncio.sleep(seconds)
        log.append("cleaned up")


def test_group_without_errors_returns_when_all_have_ended() -> None:
    """Wait lasts as long as the longest function, and then the group's context ends."""

    async def main() -> float:
        group = ErrorGroup()
        for seconds in (3, 1, 2):
            await group.go(asyncio.sleep, seconds)
        assert not group.ctx.is_done
        await group.wait()
        assert isinstance(group.ctx.err, ContextCancelled)
        assert group.errors == ()
        return asyncio.get_running_loop().time()

    assert bubble(main) == 3


def test_group_without_functions_returns_at_once() -> None:
    """An empty group makes nobody wait, in either form."""

    async def main() -> None:
        await ErrorGroup().wait()
        async with ErrorGroup():
            pass

    bubble(main)


def test_first_error_cancels_siblings_and_the_context_with_it_as_cause() -> None:
    """The error of the first function to fail ends the others at their next await and is the context's cause."""

    async def main() -> float:
        log: list[str] = []
        with background().with_cancel() as parent:
            group = ErrorGroup(parent)
            await group.go(fail, "first", 1)
            await group.go(linger, 2, log)
            with pytest.raises(ValueError, match="first") as caught:
                await group.wait()
            assert group.ctx.cause is caught.value
            assert group.errors == (caught.value,)
            assert log == ["cleaned up"]
            assert not parent.is_done
        return asyncio.get_running_loop().time()

    assert bubble(main) == 3


def test_three_failures_in_one_tick_raise_the_first_and_keep_the_others() -> None:
    """In 300 interleavings of three failures in one tick one error is raised, and it and the others are in errors."""

    async def main() -> str:
        group = ErrorGroup()
        for message in ("a", "b", "c"):
            await group.go(fail, message)
        with pytest.raises(ValueError, match=r"[abc]") as caught:
            await group.wait()
        assert group.errors[0] is caught.value
        assert group.ctx.cause is caught.value
        assert sorted(map(str, group.errors)) == ["a", "b", "c"]
        return str(caught.value)

    assert set(run_shuffled(main, seeds=range(300))) == {"a", "b", "c"}


def test_policy_all_waits_for_everyone_and_raises_every_error() -> None:
    """With the policy "all" nobody is cancelled, and all errors come in one group, also the body's."""

    async def main() -> float:
        with pytest.raises(ExceptionGroup, match="3 functions") as caught:  # noqa: PT012  # the block is what is tested
            async with ErrorGroup(policy="all") as group:
                await group.go(fail, "late", 2)
                await group.go(fail, "early", 1)
                await group.go(asyncio.sleep, 5)
                raise ValueError("body")
        assert [str(error) for error in caught.value.exceptions] == ["body", "early", "late"]
        return asyncio.get_running_loop().time()

    assert bubble(main) == 5


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


def test_body_is_cancelled_with_the_siblings() -> None:
    """An error of a function ends the body of `async with` at its await, and the count of cancels is as before."""

    async def main() -> float:
        task = asyncio.current_task()
        assert task is not None
        with pytest.raises(ValueError, match="first"):  # noqa: PT012  # the block is what is tested
            async with ErrorGroup() as group:
                await group.go(fail, "first", 1)
                await asyncio.sleep(100)
        assert task.cancelling() == 0
        await asyncio.sleep(0)  # no cancel is left to strike later
        return asyncio.get_running_loop().time()

    assert bubble(main) == 1


def test_failing_body_cancels_the_functions() -> None:
    """An error in the body ends the functions, is raised itself, and is the cause."""

    async def main() -> None:
        log: list[str] = []
        error = ValueError("body")
        with pytest.raises(ValueError, match="body") as caught:  # noqa: PT012  # the block is what is tested
            async with ErrorGroup() as group:
                await group.go(linger, 1, log)
                await wait_idle()
                raise error
        assert caught.value is error
        assert group.ctx.cause is error
        assert log == ["cleaned up"]

    bubble(main)


def test_outer_cancel_of_wait_ends_the_functions_first() -> None:
    """A cancel of the task that waits cancels the functions, waits for their clean-up, and is then raised."""

    async def main() -> float:
        log: list[str] = []
        group = ErrorGroup()

        async def own() -> None:
            await group.go(linger, 2, log)
            await group.wait()

        task = asyncio.create_task(own())
        await wait_idle()
        task.cancel()
        await asyncio.wait({task})
        assert task.cancelled()
        assert log == ["cleaned up"]
        return asyncio.get_running_loop().time()

    assert bubble(main) == 2


@pytest.mark.parametrize("second_cancel", [False, True])
def test_outer_cancel_while_the_group_ends_its_functions_is_not_swallowed(second_cancel: bool) -> None:
    """A cancel that comes when an error already ends the siblings is raised, with that error as its cause."""

    async def main() -> None:
        log: list[str] = []
        errors: list[BaseException | None] = []

        async def own() -> None:
            try:
                async with ErrorGroup() as group:
                    await group.go(linger, 5, log)
                    await group.go(fail, "first", 1)
            except asyncio.CancelledError as error:
                errors.append(error.__cause__)
                raise

        task = asyncio.create_task(own())
        await asyncio.sleep(2)  # the group is in the middle of ending its functions
        task.cancel()
        if second_cancel:
            await asyncio.sleep(1)
            task.cancel()
        await asyncio.wait({task})
        assert task.cancelled()
        assert list(map(str, errors)) == ["first"]
        assert log == ["cleaned up"]
        assert asyncio.get_running_loop().time() == 6

    bubble(main)


def test_timeout_around_a_group_that_ends_its_functions_raises_and_leaves_no_cancel_behind() -> None:
    """A deadline that strikes while an error ends the siblings gives TimeoutError, and the task lives on unharmed."""

    async def main() -> None:
        task = asyncio.current_task()
        assert task is not None
        with pytest.raises(TimeoutError):  # noqa: PT012  # the block is what is tested
            async with asyncio.timeout(2), ErrorGroup() as group:
                await group.go(linger, 5, [])
                await group.go(fail, "first", 1)
        assert [str(error) for error in group.errors] == ["first"]
        assert task.cancelling() == 0
        await asyncio.sleep(1)

    bubble(main)


def test_error_in_the_clean_up_after_an_outer_cancel_is_kept_as_cause() -> None:
    """The cancel has the last word; what went wrong meanwhile is in errors and is its cause."""

    async def main() -> None:
        group = ErrorGroup()
        causes: list[BaseException | None] = []

        async def own() -> None:
            await group.go(fail_in_clean_up)
            try:
                await group.wait()
            except asyncio.CancelledError as error:
                causes.append(error.__cause__)
                raise

        task = asyncio.create_task(own())
        await wait_idle()
        task.cancel()
        await asyncio.wait({task})
        assert task.cancelled()
        assert causes == list(group.errors)
        assert isinstance(causes[0], LookupError)

    bubble(main)


@pytest.mark.parametrize("policy", ["first", "all"])
@pytest.mark.parametrize("fails", [True, False])
def test_outer_cancel_at_any_tick_is_never_eaten(policy: ErrorGroupPolicy, fails: bool) -> None:
    """Cancelled at each tick of nested groups in turn, the task ends cancelled or done, with no function left."""

    async def step(ticks: int, *, fails: bool = False) -> None:
        for _ in range(ticks):
            await asyncio.sleep(0)
        if fails:
            raise ValueError("inner")

    async def nested() -> None:
        async with ErrorGroup(policy=policy) as outer:
            await outer.go(step, 6)
            async with ErrorGroup(policy=policy, limit=1) as inner:
                await inner.go(step, 2)
                await inner.go(step_and_fail if fails else step, 3)
                await step(4)
            await step(2)

    async def step_and_fail(ticks: int) -> None:
        await step(ticks, fails=True)

    async def main(tick: int) -> tuple[bool, int, int]:
        task = asyncio.create_task(nested())
        for _ in range(tick):
            await asyncio.sleep(0)
        was_done = task.done() or not task.cancel()
        await asyncio.wait({task})
        await wait_idle()
        if not task.cancelled():
            task.exception()
        return was_done, task.cancelled(), len(asyncio.all_tasks())

    for tick in range(40):
        for was_done, is_cancelled, tasks in run_shuffled(main, tick, seeds=range(10)):
            assert is_cancelled is not was_done
            assert tasks == 1


def test_own_cancel_and_outer_cancel_in_one_tick_raise_the_outer_one() -> None:
    """In 300 interleavings a function fails in the tick of an outer cancel: the task ends cancelled."""

    async def main() -> None:
        async def own() -> None:
            async with ErrorGroup() as group:
                await group.go(fail, "same tick", 1)
                await asyncio.sleep(10)

        task = asyncio.create_task(own())
        await asyncio.sleep(1)
        task.cancel()
        await asyncio.wait({task})
        assert task.cancelled()

    run_shuffled(main, seeds=range(300))


def test_group_inside_a_cancelled_task_keeps_the_count_of_cancels() -> None:
    """A group used in the clean-up of a cancelled task ends its own body without touching the outer cancel."""

    async def main() -> None:
        counts: list[int] = []

        async def own() -> None:
            task = asyncio.current_task()
            assert task is not None
            try:
                await asyncio.Event().wait()
            finally:
                with pytest.raises(ValueError, match="in clean-up"):  # noqa: PT012  # the block is what is tested
                    async with ErrorGroup() as group:
                        await group.go(fail, "in clean-up", 1)
                        await asyncio.sleep(10)
                counts.append(task.cancelling())

        task = asyncio.create_task(own())
        await wait_idle()
        task.cancel()
        await asyncio.wait({task})
        assert task.cancelled()
        assert counts == [1]

    bubble(main)


def test_cancel_by_a_function_ends_the_group_without_an_error() -> None:
    """A function may end the group early; the body and the siblings end, and nothing is raised."""

    async def main() -> float:
        async def give_up(group: ErrorGroup) -> None:
            await asyncio.sleep(1)
            group.cancel(LookupError("enough"))
            group.cancel()

        async with ErrorGroup() as group:
            await group.go(give_up, group)
            await group.go(asyncio.sleep, 50)
            await asyncio.sleep(100)
        assert isinstance(group.ctx.cause, LookupError)
        return asyncio.get_running_loop().time()

    assert bubble(main) == 1


def test_cancel_by_the_body_lets_the_body_go_on() -> None:
    """The body that cancels its own group is not interrupted, then or later."""

    async def main() -> None:
        async with ErrorGroup() as group:
            await group.go(asyncio.sleep, 50)
            group.cancel()
            await asyncio.sleep(1)
        await asyncio.sleep(1)
        assert asyncio.get_running_loop().time() == 2

    bubble(main)


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


def test_group_that_has_ended_refuses_functions() -> None:
    """After wait has returned both ways to start a function raise."""

    async def main() -> None:
        group = ErrorGroup()
        await group.wait()
        with pytest.raises(RuntimeError, match="has ended"):
            await group.go(asyncio.sleep, 1)
        with pytest.raises(RuntimeError, match="has ended"):
            group.try_go(asyncio.sleep, 1)

    bubble(main)


def test_wait_raises_again_and_to_all_who_wait() -> None:
    """Two tasks that wait, and one that asks later, get the same error."""

    async def main() -> None:
        group = ErrorGroup()
        await group.go(fail, "shared", 1)
        waits = [asyncio.create_task(group.wait()) for _ in range(2)]
        outcomes = await asyncio.gather(*waits, return_exceptions=True)
        assert outcomes == [group.errors[0]] * 2
        with pytest.raises(ValueError, match="shared"):
            await group.wait()

    bubble(main)


def test_cancel_of_one_of_two_waits_ends_the_group_for_both() -> None:
    """A cancelled wait cancels the functions; the other wait returns when they have ended."""

    async def main() -> None:
        group = ErrorGroup()
        await group.go(asyncio.sleep, 10)
        first, second = asyncio.create_task(group.wait()), asyncio.create_task(group.wait())
        await wait_idle()
        first.cancel()
        await second
        assert first.cancelled()

    bubble(main)


def test_cancelled_function_is_no_error() -> None:
    """A function that ends by a cancel of its own lets its siblings run on."""

    async def main() -> float:
        async def cancel_itself() -> None:
            raise asyncio.CancelledError

        group = ErrorGroup()
        await group.go(cancel_itself)
        await group.go(asyncio.sleep, 3)
        await group.wait()
        assert group.errors == ()
        return asyncio.get_running_loop().time()

    assert bubble(main) == 3


def test_end_of_the_parent_context_is_advice_only() -> None:
    """Functions see the parent's end through the group's context and finish what they have in hand."""

    async def main() -> list[str]:
        log: list[str] = []

        async def drain(group: ErrorGroup) -> None:
            await group.ctx.wait()
            await asyncio.sleep(1)
            log.append("finished in peace")

        parent = background().with_cancel()
        group = ErrorGroup(parent)
        await group.go(drain, group)
        await wait_idle()
        parent.cancel()
        await group.wait()
        return log

    assert bubble(main) == ["finished in peace"]


def test_function_may_start_siblings() -> None:
    """Functions that start others in the same group are all waited for."""

    async def main() -> int:
        count = 0

        async def branch(group: ErrorGroup, depth: int) -> None:
            nonlocal count
            count += 1
            await asyncio.sleep(1)
            if depth:
                await group.go(branch, group, depth - 1)
                await group.go(branch, group, depth - 1)

        async with ErrorGroup() as group:
            await group.go(branch, group, 4)
        return count

    assert bubble(main) == 2**5 - 1


def test_body_that_awaits_something_cancelled_ends_the_functions() -> None:
    """A CancelledError in the body that nobody asked for passes through, as from any scope, and ends the functions."""

    async def main() -> None:
        log: list[str] = []
        cancelled: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        cancelled.cancel()
        with pytest.raises(asyncio.CancelledError):  # noqa: PT012  # the block is what is tested
            async with ErrorGroup() as group:
                await group.go(linger, 1, log)
                await wait_idle()
                await cancelled
        assert log == ["cleaned up"]

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


def test_pipeline_of_channels_ends_as_a_whole() -> None:
    """A consumer that fails ends a producer that is blocked on a full channel: nobody hangs."""

    async def main() -> None:
        channel: Channel[int] = Channel(1)

        async def produce() -> None:
            for number in range(100):
                await channel.send(number)

        async def consume() -> None:
            async for number in channel:
                if number == 3:
                    raise ValueError("three")

        with pytest.raises(ValueError, match="three"):  # noqa: PT012  # the block is what is tested
            async with ErrorGroup() as group:
                await group.go(produce)
                await group.go(consume)

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
