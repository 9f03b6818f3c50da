"""Context: the tree, its causes and its values."""

import asyncio
import gc
import random
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest

from patterns import (
    Channel,
    Context,
    ContextCancelled,
    ContextStatistics,
    EndOfChannel,
    Outcome,
    background,
    collect_unreachable,
    receive,
    select,
)
from patterns._core import Core
from patterns.bubble import bubble, wait_idle
from tests.support.spinning import spin_until


def test_background_never_ends() -> None:
    """It has no error, cause, deadline or value, cannot be cancelled, and its ``done`` stays open."""

    async def main() -> None:
        root = background()
        assert root is background()
        assert (root.is_done, root.err, root.cause, root.deadline, root.remaining()) == (False, None, None, None, None)
        root.raise_if_done()
        assert await select(receive(root.done), timeout_seconds=3600) is Outcome.TIMEOUT
        with pytest.raises(RuntimeError, match="no end of its own"):
            root.cancel()

    bubble(main)


def test_cancel_ends_every_descendant_before_it_returns() -> None:
    """In a tree of 1,000 contexts all are done when ``cancel`` returns; tasks and threads that wait are all woken."""

    async def wait_for_all(contexts: list[Context]) -> int:
        await asyncio.gather(*(context.wait() for context in contexts))
        return len(contexts)

    dice = random.Random(1)
    cause = ValueError("enough")
    tree = [background().with_cancel()]
    while len(tree) < 1_000:
        tree.append(dice.choice(tree).with_cancel())
    with ThreadPoolExecutor(22) as pool:
        in_tasks = [pool.submit(asyncio.run, wait_for_all(tree[half::2])) for half in (0, 1)]
        in_threads = [pool.submit(context.wait_sync) for context in dice.sample(tree, 20)]
        spin_until(lambda: sum(context.done.statistics().waiting_receivers for context in tree) == 1_020)
        assert not any(context.is_done for context in tree)
        tree[0].cancel(cause)
        assert all(context.is_done and context.cause is cause for context in tree)
        assert all(isinstance(context.err, ContextCancelled) for context in tree)
        assert [waiting.result() for waiting in in_tasks] == [500, 500]
        assert all(waiting.result() for waiting in in_threads)


def test_cancel_leaves_parent_and_siblings_alone() -> None:
    """Only what was derived from the cancelled context ends with it."""
    with background().with_cancel() as parent, parent.with_cancel() as child, parent.with_cancel() as sibling:
        grandchild = child.with_cancel()
        child.cancel()
        assert (child.is_done, grandchild.is_done) == (True, True)
        assert (parent.is_done, sibling.is_done) == (False, False)


def test_first_cause_wins_and_is_inherited() -> None:
    """A second cancel changes nothing; a child that had ended keeps its own cause; late children get their parent's."""
    first, second, own = ValueError("first"), ValueError("second"), ValueError("own")
    with background().with_cancel() as parent:
        child, early = parent.with_cancel(), parent.with_cancel()
        early.cancel(own)
        parent.cancel(first)
        parent.cancel(second)
        child.cancel(second)
        late = parent.with_cancel().with_timeout(5)
        assert [context.cause for context in (parent, child, late, early)] == [first, first, first, own]
        assert late.err is parent.err
        with pytest.raises(ContextCancelled) as raised:
            late.raise_if_done()
        assert raised.value is not late.err
        assert raised.value.__cause__ is first


def test_cancel_without_a_cause_is_its_own_cause() -> None:
    """``cause`` is ``err``, and what is raised has no other cause."""
    with background().with_cancel() as ctx:
        ctx.cancel()
        assert ctx.cause is ctx.err
        with pytest.raises(ContextCancelled) as raised:
            ctx.raise_if_done()
        assert raised.value.__cause__ is None


def test_leaving_the_block_cancels() -> None:
    """As with ``defer cancel()``, also when the block is left by an error, and the parent forgets its child."""
    with background().with_cancel() as parent:
        with parent.with_cancel() as ctx:
            assert parent.statistics().children == 1
        assert isinstance(ctx.err, ContextCancelled)
        with pytest.raises(KeyError), parent.with_timeout(5) as timed:
            raise KeyError
        assert isinstance(timed.err, ContextCancelled)
        assert parent.statistics() == ContextStatistics(False, None, 0, 0)


def test_cancel_from_another_thread_is_seen_at_once() -> None:
    """A loop that would sleep for an hour wakes for the cancel, not at its next timer."""

    async def main(ctx: Context) -> None:
        asyncio.get_running_loop().call_later(3600, print)
        await ctx.wait()

    with background().with_cancel() as ctx, ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(asyncio.run, main(ctx))
        spin_until(lambda: ctx.done.statistics().waiting_receivers == 1)
        ctx.cancel()
        waiting.result()


def test_done_only_receives_and_ends() -> None:
    """``done`` is a receive-only channel that never has a value and is closed at the end."""

    async def main() -> None:
        with background().with_cancel() as ctx:
            assert not hasattr(ctx.done, "send")
            assert await select(receive(ctx.done), default=True) is Outcome.DEFAULT
            ctx.cancel()
            with pytest.raises(EndOfChannel):
                await ctx.done.receive()
            case = receive(ctx.done)
            assert await select(case, receive(Channel[int]())) is case
            assert not case.ok

    bubble(main)


def test_wait_sync_says_whether_the_context_ended() -> None:
    """It is False after its timeout, True once the context has ended."""
    with background().with_cancel() as ctx:
        assert ctx.wait_sync(0.001) is False
        assert ctx.wait_sync(0) is False
        ctx.cancel()
        assert ctx.wait_sync() is True


def test_values_are_looked_up_the_tree() -> None:
    """The nearest value of a key is found; a sibling's and a child's are not; None is what is not there."""
    root = background().with_value("user", "a").with_value("trace", 1)
    with root.with_cancel() as ctx:
        inner = ctx.with_value("user", "b")
        assert [inner.value(key) for key in ("user", "trace", "other")] == ["b", 1, None]
        assert ctx.value("user") == "a"
        assert inner.without_cancel().value("user") == "b"


def test_value_context_ends_with_its_parent_and_only_so() -> None:
    """It cannot be cancelled by whom it was handed to, leaving its block ends nothing, and it shares ``done``."""
    with background().with_cancel() as parent:
        with parent.with_value("key", "value") as ctx, pytest.raises(RuntimeError):
            ctx.cancel()
        assert not ctx.is_done
        parent.cancel()
        assert ctx.is_done


def test_without_cancel_outlives_its_parent() -> None:
    """It drops cancel and deadline and keeps the values."""
    with background().with_timeout(5) as parent:
        ctx = parent.with_value("key", "value").without_cancel()
        parent.cancel()
        assert (ctx.is_done, ctx.deadline, ctx.value("key")) == (False, None, "value")


def test_without_cancel_cannot_be_cancelled() -> None:
    """It has no end of its own, and leaving its block ends nothing: what lies beneath it is the root of all."""
    with background().with_cancel() as ctx, ctx.without_cancel() as free, pytest.raises(RuntimeError):
        free.cancel()
    assert not free.is_done
    assert not background().is_done


def test_ended_contexts_are_not_kept() -> None:
    """A parent does not remember the contexts that were derived from it and have ended, be it before it or with it."""
    with background().with_cancel() as parent:
        for _ in range(100):
            with parent.with_timeout(3600) as child:
                child.with_cancel()
        gc.collect()
        assert parent.statistics().children == 0
        parent.with_cancel()
        assert parent.statistics().children == 1
        parent.cancel()
        assert parent.statistics().children == 0


def test_hook_that_fails_keeps_no_other_from_being_called() -> None:
    """All hooks of the subtree are called; the failure comes out of ``cancel``, several of them as a group."""
    called: list[int] = []

    def fail(number: int) -> None:
        called.append(number)
        raise ValueError(str(number))

    for failing in ([2], [1, 3]):
        called.clear()
        ctx = background().with_cancel()
        child = ctx.with_cancel()
        for number in (1, 2, 3, 4):
            scope = (child if number == 4 else ctx)._scope
            scope.add_hook(partial(fail if number in failing else called.append, number))
        with pytest.raises(ExceptionGroup if len(failing) > 1 else ValueError) as raised:
            ctx.cancel()
        assert called == [1, 2, 3, 4]
        error = raised.value
        errors = error.exceptions if isinstance(error, ExceptionGroup) else [error]
        assert [str(error) for error in errors] == [str(number) for number in failing]
        assert child.is_done


def test_parent_is_never_seen_to_have_ended_before_its_child(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even in the middle of the cancel, by a thread that just looks: what ends first is at the bottom."""
    seen: list[list[bool]] = []
    with background().with_cancel() as parent:
        line = [parent, parent.with_cancel()]
        line.append(line[-1].with_cancel())
        close = Core.close

        def look_and_close(core: Core[None]) -> None:
            seen.append([ctx.is_done for ctx in line])
            close(core)

        monkeypatch.setattr(Core, "close", look_and_close)
        parent.cancel()
    assert seen == [[False, False, True], [False, True, True], [True, True, True]]


def test_root_keeps_nothing() -> None:
    """What waits for the end of the background, or is to run after it, goes with whoever asked for it."""

    async def wait_for_the_end() -> None:
        await background().wait()

    async def select_on_the_end() -> None:
        await select(receive(Channel[int]()), receive(background().without_cancel().done))

    async def run_below() -> None:
        await background().run(Channel[int]().receive())

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda *_: None)
        for lose in (wait_for_the_end, select_on_the_end, run_below):
            asyncio.create_task(lose(), name=lose.__name__)  # noqa: RUF006  # forgotten on purpose
        stop = background().after_func(lambda: None)
        await wait_idle()
        assert [site.name for site in collect_unreachable()] == ["run_below", "select_on_the_end", "wait_for_the_end"]
        assert background().statistics().after_funcs == 0
        assert [stop(), stop()] == [True, False]

    bubble(main)
