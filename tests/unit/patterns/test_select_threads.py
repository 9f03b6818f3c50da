"""select in threads."""

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from patterns import Case, Channel, ChannelClosedError, Outcome, receive, select_sync, send
from tests.support.spinning import spin_until


def test_thread_selects() -> None:
    """In a thread: a ready case, default, a timeout, and a case served by another thread."""
    first, second = Channel[int](1), Channel[int]()
    first.send_nowait(1)
    one, two = receive(first), receive(second)
    assert select_sync(one, two) is one
    assert select_sync(one, two, default=True) is Outcome.DEFAULT
    assert select_sync(one, two, timeout_seconds=0.001) is Outcome.TIMEOUT
    with ThreadPoolExecutor(1) as pool:
        sending = pool.submit(second.sync.send, 2)
        assert select_sync(one, two, timeout_seconds=5) is two
        sending.result()
    assert two.value == 2
    assert first.statistics().waiting_receivers == 0


@pytest.mark.parametrize("is_cancelled", [False, True])
def test_thread_that_is_matched_waits_for_its_receiver_beyond_its_timeout(is_cancelled: bool) -> None:
    """A blocked select whose send was matched ends by what becomes of the receiver, not by the clock."""
    channel: Channel[int] = Channel()
    sending = send(channel, 1)

    def select_in_time() -> Case | Outcome:
        return select_sync(sending, receive(None), timeout_seconds=0.001)

    with ThreadPoolExecutor(1) as pool, asyncio.Runner() as runner:
        taking = runner.get_loop().create_task(channel.receive())
        runner.run(asyncio.sleep(0))
        selecting = pool.submit(select_in_time)
        spin_until(lambda: channel.statistics().waiting_receivers == 0)  # matched, while the receiver's loop rests
        time_is_up = time.monotonic() + 0.005
        spin_until(lambda: time.monotonic() > time_is_up)
        assert not selecting.done()
        if is_cancelled:
            taking.cancel()
        runner.run(asyncio.wait([taking]))
        assert selecting.result() is (Outcome.TIMEOUT if is_cancelled else sending)
        assert taking.cancelled() == is_cancelled


def test_thread_select_raises_when_a_chosen_send_is_closed() -> None:
    """ChannelClosedError comes out of a select in a thread, and nothing stays behind."""
    closed, other = Channel[int](), Channel[int]()
    closed.close()
    with pytest.raises(ChannelClosedError):
        select_sync(send(closed, 1), receive(other))
    assert other.statistics().waiting_receivers == 0
