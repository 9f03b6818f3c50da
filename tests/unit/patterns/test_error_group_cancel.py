"""ErrorGroup: cancels from outside, from inside and both at once."""

import asyncio

import pytest

from patterns.bubble import bubble, wait_idle
from patterns.error_group import ErrorGroup, ErrorGroupPolicy
from tests.support.endings import fail, linger
from tests.support.shuffling_loop import run_shuffled


async def fail_in_clean_up() -> None:
    """Wait for ever, and answer a cancel with an error."""
    try:
        await asyncio.Event().wait()
    finally:
        raise LookupError("in clean-up")


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


def test_cancel_that_the_body_has_yet_to_see_is_not_eaten() -> None:
    """One that came before the block while the task ran, as Ctrl-C does, comes out of it if the group ends as well."""

    async def main() -> None:
        task = asyncio.current_task()
        assert task is not None

        async def sleep_in_a_group_that_ends() -> None:
            async with ErrorGroup() as group:
                asyncio.get_running_loop().call_soon(group.cancel)
                await asyncio.sleep(10)

        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sleep_in_a_group_that_ends()
        assert task.uncancel() == 0

    bubble(main)
