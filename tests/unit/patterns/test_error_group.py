"""ErrorGroup."""

import asyncio

import pytest

from patterns.bubble import bubble, wait_idle
from patterns.channel import Channel
from patterns.context import background
from patterns.error_group import ErrorGroup
from patterns.errors import ContextCancelled
from tests.support.endings import fail, linger
from tests.support.shuffling_loop import run_shuffled


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
