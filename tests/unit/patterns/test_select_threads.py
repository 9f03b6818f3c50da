"""select in threads."""

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from patterns import Case, Channel, ChannelClosedError, Outcome, background, receive, select, select_sync, send
from patterns._case import Attempt
from patterns._waiter import ThreadWaiter
from tests.support.spinning import spin_until


def send_when_awaited(channel: Channel[int]) -> None:
    """Send once somebody waits to receive."""
    spin_until(lambda: channel.statistics().waiting_receivers == 1)
    channel.sync.send(2)


def test_thread_selects() -> None:
    """In a thread: a ready case, default, a timeout, and a case served by another thread."""
    first, second = Channel[int](1), Channel[int]()
    first.send_nowait(1)
    one, two = receive(first), receive(second)
    assert select_sync(one, two) is one
    assert select_sync(one, two, default=True) is Outcome.DEFAULT
    assert select_sync(one, two, timeout_seconds=0.001) is Outcome.TIMEOUT
    with ThreadPoolExecutor(1) as pool:
        sending = pool.submit(send_when_awaited, second)
        assert select_sync(one, two, timeout_seconds=5) is two
        sending.result()
    assert two.value == 2
    assert first.statistics().waiting_receivers == 0


@pytest.mark.parametrize("timeout_seconds", [None, 5, 0.001])
async def test_select_that_would_block_a_loop_is_refused(timeout_seconds: float | None) -> None:
    """However short its wait would be, and it leaves nothing behind; one that may not wait is fine."""
    channel: Channel[int] = Channel()
    with pytest.raises(RuntimeError, match="event loop"):
        select_sync(receive(channel), timeout_seconds=timeout_seconds)
    assert select_sync(receive(channel), timeout_seconds=0) is Outcome.TIMEOUT
    assert channel.statistics().waiting_receivers == 0


@pytest.mark.parametrize("options", [{"default": True}, {"timeout_seconds": 0}, {"timeout_seconds": -1}])
async def test_thread_select_that_may_not_wait_hands_over(options: dict[str, float]) -> None:
    """It sends to a receiver that waits, and does not wait for it to resume."""
    channel: Channel[int] = Channel()
    taking = asyncio.create_task(channel.receive())
    await asyncio.sleep(0)
    sending = send(channel, 2)
    assert select_sync(sending, **options) is sending  # type: ignore[arg-type]  # a table of keyword arguments
    assert not taking.done()
    assert await taking == 2


def select_in_thread(*cases: Case) -> Case | Outcome:
    """Select without a loop, in a millisecond."""
    return select_sync(*cases, timeout_seconds=0.001)


def select_in_task(*cases: Case) -> Case | Outcome:
    """Do the same in a loop of its own."""
    return asyncio.run(select(*cases, timeout_seconds=0.001))


@pytest.mark.parametrize("is_cancelled", [False, True])
@pytest.mark.parametrize("others", [(), (None,)])
@pytest.mark.parametrize("select_in_time", [select_in_thread, select_in_task])
def test_select_that_is_matched_waits_for_its_receiver_beyond_its_timeout(
    select_in_time: Callable[..., Case | Outcome], others: tuple[None, ...], is_cancelled: bool
) -> None:
    """A select whose send was matched, be it alone, ends by what becomes of the receiver, then by the clock."""
    channel: Channel[int] = Channel()
    sending = send(channel, 1)

    with ThreadPoolExecutor(1) as pool, asyncio.Runner() as runner:
        taking = runner.get_loop().create_task(channel.receive())
        runner.run(asyncio.sleep(0))
        selecting = pool.submit(select_in_time, sending, *map(receive, others))
        spin_until(lambda: channel.statistics().waiting_receivers == 0)  # matched, while the receiver's loop rests
        time_is_up = time.monotonic() + 0.01
        spin_until(lambda: time.monotonic() > time_is_up)
        assert not selecting.done()
        if is_cancelled:
            taking.cancel()
        runner.run(asyncio.wait([taking]))
        assert selecting.result() is (Outcome.TIMEOUT if is_cancelled else sending)
        assert taking.cancelled() == is_cancelled


def test_thread_select_whose_receiver_is_cancelled_looks_at_all_its_cases_again() -> None:
    """A send that was matched and un-matched has not happened, and the other of two cases can."""
    channel, other = Channel[int](), Channel[int](1)
    alternative = receive(other)

    def select_one() -> Case | Outcome:
        return select_sync(send(channel, 1), alternative, timeout_seconds=10)

    with ThreadPoolExecutor(1) as pool, asyncio.Runner() as runner:
        taking = runner.get_loop().create_task(channel.receive())
        runner.run(asyncio.sleep(0))
        selecting = pool.submit(select_one)
        spin_until(lambda: channel.statistics().waiting_receivers == 0)  # matched, while the receiver's loop rests
        taking.cancel()
        runner.run(asyncio.wait([taking]))
        spin_until(lambda: other.statistics().waiting_receivers == 1)
        other.send_nowait(2)
        assert selecting.result() is alternative
    assert channel.statistics().waiting_senders == 0


def test_thread_select_raises_when_a_chosen_send_is_closed() -> None:
    """ChannelClosedError comes out of a select in a thread, and nothing stays behind."""
    closed, other = Channel[int](), Channel[int]()
    closed.close()
    with pytest.raises(ChannelClosedError):
        select_sync(send(closed, 1), receive(other))
    assert other.statistics().waiting_receivers == 0


def test_thread_select_with_several_cases_at_one_channel_is_woken_once_by_its_close() -> None:
    """The close raises nothing, and the select sees it by either of its cases."""
    channel: Channel[int] = Channel()
    receiving = receive(channel)
    with ThreadPoolExecutor(1) as pool:
        selecting = pool.submit(select_sync, receiving, send(channel, 1))
        spin_until(lambda: channel.statistics().waiting_senders == 1)
        channel.close()
        if isinstance(selecting.exception(), ChannelClosedError):
            return
        assert selecting.result() is receiving
        assert not receiving.ok


def test_context_that_a_thread_waits_for_by_two_names_ends_with_its_whole_tree() -> None:
    """A context and the one with a value that was derived from it share an end: the cancel still reaches everybody."""
    with background().with_cancel() as parent, ThreadPoolExecutor(2) as pool:
        ctx, sibling = parent.with_cancel(), parent.with_cancel()
        child = ctx.with_cancel()
        cases = receive(ctx.done), receive(ctx.with_value("user", "m-1").done)
        selecting = pool.submit(select_sync, *cases, timeout_seconds=5)
        waiting = pool.submit(child.wait_sync, 5)
        spin_until(lambda: ctx.done.statistics().waiting_receivers == 2)
        spin_until(lambda: child.done.statistics().waiting_receivers == 1)
        parent.cancel()
        assert selecting.result() in cases
        assert waiting.result() is True
        assert sibling.is_done


def test_select_that_is_interrupted_when_its_case_has_happened_leaves_the_channel_in_order(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What was received is gone, once: the next receiver gets the next value."""
    channel: Channel[int] = Channel(1)
    finish = Attempt.finish

    def finish_and_interrupt(attempt: Attempt[Case, ThreadWaiter]) -> None:
        finish(attempt)
        raise KeyboardInterrupt

    monkeypatch.setattr(Attempt, "finish", finish_and_interrupt)
    with ThreadPoolExecutor(1) as pool:
        selecting = pool.submit(select_sync, receive(channel))
        spin_until(lambda: channel.statistics().waiting_receivers == 1)
        channel.send_nowait(1)
        assert isinstance(selecting.exception(), KeyboardInterrupt)
    channel.send_nowait(2)
    assert len(channel) == 1
    assert channel.receive_nowait() == 2
