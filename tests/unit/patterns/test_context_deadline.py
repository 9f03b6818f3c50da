"""Context: deadlines and their timers."""

import asyncio
import math
from concurrent.futures import ThreadPoolExecutor

import pytest

from patterns import Context, ContextCancelled, DeadlineExceeded, background
from patterns.bubble import bubble
from tests.support.running_loop import now


@pytest.mark.parametrize(
    ("outer_seconds", "inner_seconds", "ends_at"),
    [(None, 5, 5), (10, 5, 5), (5, 10, 5), (5, 5, 5), (10, 0, 0), (10, -1, 0), (0, 10, 0), (-1, None, 0), (5, None, 5)],
)
def test_earlier_deadline_wins(outer_seconds: float | None, inner_seconds: float | None, ends_at: float) -> None:
    """A context ends at the earliest deadline above it; a past one ends it at birth; ``remaining`` counts down to 0."""

    async def main() -> None:
        root = background()
        with (
            root.with_cancel() if outer_seconds is None else root.with_timeout(outer_seconds) as outer,
            outer.with_cancel() if inner_seconds is None else outer.with_timeout(inner_seconds) as inner,
        ):
            assert inner.is_done == (ends_at == 0)
            assert inner.remaining() == ends_at
            await asyncio.sleep(ends_at - 1)
            assert inner.is_done == (ends_at == 0)
            await inner.wait()
            assert now() == ends_at or ends_at == 0
            assert isinstance(inner.err, DeadlineExceeded)
            assert isinstance(inner.err, TimeoutError)
            assert inner.cause is (outer if outer.is_done else inner).err
            assert inner.remaining() == 0

    bubble(main)


def test_deadline_is_a_time_of_the_loops_clock() -> None:
    """``with_deadline`` takes what ``loop.time()`` tells, and ``deadline`` returns it."""

    async def main() -> None:
        await asyncio.sleep(100)
        with background().with_deadline(103) as ctx, ctx.with_cancel() as child:
            assert ctx.deadline == child.deadline == 103
            assert child.remaining() == 3
            await child.wait()
            assert now() == 103

    bubble(main)


def test_deadline_counts_from_the_clock_and_not_from_its_zero() -> None:
    """Late in the loop's life, too, a past deadline ends a context at birth and an earlier one beats its parent's."""

    async def main() -> None:
        await asyncio.sleep(100)
        with background().with_deadline(50) as past:
            assert isinstance(past.err, DeadlineExceeded)
        with background().with_deadline(103) as ctx, ctx.with_deadline(102) as child:
            assert (ctx.deadline, child.deadline) == (103, 102)
            await child.wait()
            assert now() == 102
            assert not ctx.is_done

    bubble(main)


def test_cancel_before_the_deadline_stops_its_timer() -> None:
    """The error is ContextCancelled for good, and no timer is left in the loop."""

    async def main() -> None:
        with background().with_timeout(5) as ctx:
            ctx.cancel()
        await asyncio.sleep(10)
        assert isinstance(ctx.err, ContextCancelled)
        assert not [timer for timer in asyncio.get_running_loop()._scheduled if not timer.cancelled()]  # type: ignore[attr-defined]  # asyncio's own heap

    bubble(main)


def test_timer_of_a_loop_is_stopped_from_another_thread() -> None:
    """Cancelling a context with a deadline elsewhere cancels the timer in its loop; after its loop has closed, too."""

    async def main(pool: ThreadPoolExecutor) -> Context:
        ctx, other = background().with_timeout(3600), background().with_timeout(3600)
        await asyncio.wrap_future(pool.submit(ctx.cancel))
        await asyncio.sleep(0)
        (left,) = [timer for timer in asyncio.get_running_loop()._scheduled if not timer.cancelled()]  # type: ignore[attr-defined]  # asyncio's own heap
        assert left.when() == other.deadline
        return other

    with ThreadPoolExecutor(1) as pool:
        other = asyncio.run(main(pool))
    other.cancel()
    assert other.is_done


def test_parent_that_ends_while_a_child_is_born_takes_the_timer_along() -> None:
    """A timer that is set after the end is stopped again."""

    async def main() -> None:
        with background().with_timeout(5) as ctx:
            ctx.cancel()
            ctx._scope.start_timer()
        assert not [timer for timer in asyncio.get_running_loop()._scheduled if not timer.cancelled()]  # type: ignore[attr-defined]  # asyncio's own heap

    bubble(main)


def test_deadline_that_is_no_number_is_refused() -> None:
    """NaN would stay at the head of all timers; the parent of what was refused keeps nothing."""
    with background().with_cancel() as ctx:
        for derive in (ctx.with_timeout, ctx.with_deadline):
            with pytest.raises(ValueError, match="nan"):
                derive(math.nan)
        assert ctx.statistics().children == 0
