"""Channel between tasks of several loops and threads."""

import asyncio
import gc
import itertools
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from patterns import (
    Channel,
    ChannelClosedError,
    ContextCancelled,
    DeadlineExceeded,
    EndOfChannel,
    ReceiveChannel,
    WouldBlock,
    _waiter,
    background,
)
from tests.support.spinning import spin_until

Sender = Callable[[Channel[int], int], None]
Receiver = Callable[[Channel[int]], int]


def send_in_task(channel: Channel[int], value: int) -> None:
    """Send from a loop of its own."""
    asyncio.run(channel.send(value))


def send_in_thread(channel: Channel[int], value: int) -> None:
    """Send without a loop."""
    channel.sync.send(value)


def receive_in_task(channel: Channel[int]) -> int:
    """Receive in a loop of its own."""
    return asyncio.run(channel.receive())


def receive_in_thread(channel: Channel[int]) -> int:
    """Receive without a loop."""
    return channel.sync.receive()


pairs = pytest.mark.parametrize("send", [send_in_task, send_in_thread])
both_ends = pytest.mark.parametrize("receive", [receive_in_task, receive_in_thread])


@pairs
@both_ends
def test_waiting_receiver_gets_the_value(send: Sender, receive: Receiver) -> None:
    """A receiver that came first is woken by a sender in another thread, whichever of them is a task."""
    channel: Channel[int] = Channel()
    with ThreadPoolExecutor(1) as pool:
        receiving = pool.submit(receive, channel)
        spin_until(lambda: channel.statistics().waiting_receivers == 1)
        send(channel, 7)
        assert receiving.result() == 7


@pairs
@both_ends
def test_waiting_sender_is_released(send: Sender, receive: Receiver) -> None:
    """A sender that came first is woken by a receiver in another thread, whichever of them is a task."""
    channel: Channel[int] = Channel()
    with ThreadPoolExecutor(1) as pool:
        sending = pool.submit(send, channel, 7)
        spin_until(lambda: channel.statistics().waiting_senders == 1)
        assert receive(channel) == 7
        sending.result()


@pytest.mark.parametrize("capacity", [0, 1, 10])
def test_tasks_and_threads_share_a_channel(capacity: int) -> None:
    """Two sending and two receiving threads and two loops of each lose and double nothing."""
    channel: Channel[int] = Channel(capacity)

    def send_all(start: int) -> None:
        for value in range(start, start + 100):
            channel.sync.send(value)

    async def send_all_async(start: int) -> None:
        for value in range(start, start + 100):
            await channel.send(value)

    async def receive_all_async() -> list[int]:
        return [value async for value in channel]

    with ThreadPoolExecutor(8) as pool:
        receivers = [pool.submit(lambda: list(channel.sync)) for _ in range(2)]
        receivers += [pool.submit(lambda: asyncio.run(receive_all_async())) for _ in range(2)]
        senders = [pool.submit(send_all, start) for start in (0, 100)]
        senders += [pool.submit(lambda start=start: asyncio.run(send_all_async(start))) for start in (200, 300)]  # type: ignore[misc]  # bound early
        for sender in senders:
            sender.result()
        channel.close()
        received = [receiver.result() for receiver in receivers]
    assert sorted(value for values in received for value in values) == list(range(400))
    for values in received:
        for start in range(0, 400, 100):
            from_one = [value for value in values if start <= value < start + 100]
            assert from_one == sorted(from_one)


def test_cancelled_tasks_lose_nothing_to_threads() -> None:
    """Values sent by a thread while receiving tasks are being cancelled all arrive, once."""
    channel: Channel[int] = Channel()
    values = list(range(100))

    async def receive_and_cancel() -> list[int]:
        received: list[int] = []
        pauses = itertools.cycle((0, 0, 0.0002, 0.001))  # where the loop only spins, the thread hardly gets to run
        while len(received) < len(values):
            receiving = asyncio.create_task(channel.receive())
            await asyncio.sleep(0)
            await asyncio.sleep(next(pauses))
            receiving.cancel()
            (result,) = await asyncio.gather(receiving, return_exceptions=True)
            if not isinstance(result, BaseException):
                received.append(result)
        return received

    with ThreadPoolExecutor(1) as pool:
        receiving = pool.submit(lambda: asyncio.run(receive_and_cancel()))
        for value in values:
            channel.sync.send(value)
        assert receiving.result() == values


async def test_thread_keeps_its_place_when_its_receiver_is_cancelled() -> None:
    """A sending thread whose match is undone stands before a thread that came after it."""
    channel: Channel[int] = Channel()
    cancelled = asyncio.create_task(channel.receive())
    await asyncio.sleep(0)
    with ThreadPoolExecutor(2) as pool:
        sending = [pool.submit(channel.sync.send, 1)]
        spin_until(lambda: channel.statistics().waiting_receivers == 0)
        sending.append(pool.submit(channel.sync.send, 2))
        spin_until(lambda: channel.statistics().waiting_senders == 1)
        cancelled.cancel()
        await asyncio.gather(cancelled, return_exceptions=True)
        assert channel.statistics().waiting_senders == 2
        assert [await channel.receive(), await channel.receive()] == [1, 2]
        for sender in sending:
            sender.result()


def test_blocked_thread_is_released_by_close() -> None:
    """A receive raises EndOfChannel and a send ChannelClosedError when another thread closes the channel."""
    empty: Channel[int] = Channel()
    full: Channel[int] = Channel()
    with ThreadPoolExecutor(2) as pool:
        receiving = pool.submit(empty.sync.receive)
        sending = pool.submit(full.sync.send, 1)
        spin_until(lambda: empty.statistics().waiting_receivers + full.statistics().waiting_senders == 2)
        empty.sync.close()
        full.sync.close()
        with pytest.raises(EndOfChannel):
            receiving.result()
        with pytest.raises(ChannelClosedError):
            sending.result()


@pytest.mark.parametrize("seconds", [0, -1, 0.001])
def test_blocked_thread_gives_up_in_time(seconds: float) -> None:
    """Send and receive raise TimeoutError, and leave nothing behind."""
    channel: Channel[int] = Channel()
    with pytest.raises(TimeoutError):
        channel.sync.receive(timeout_seconds=seconds)
    with pytest.raises(TimeoutError):
        channel.sync.send(1, timeout_seconds=seconds)
    assert channel.statistics().waiting_senders == channel.statistics().waiting_receivers == 0
    with pytest.raises(WouldBlock):
        channel.receive_nowait()


def test_ready_operation_beats_a_timeout_of_zero() -> None:
    """What can be done at once is done, however short the time."""
    channel: Channel[int] = Channel(1)
    channel.sync.send(1, timeout_seconds=0)
    assert channel.sync.receive(timeout_seconds=0) == 1


def test_blocked_thread_sees_its_context_end() -> None:
    """A cancel from another thread ends send and receive with the context's error and cause; nothing was sent."""
    channel: Channel[int] = Channel()
    cause = ValueError("enough")
    with background().with_cancel() as ctx, ThreadPoolExecutor(1) as pool:
        receiving = pool.submit(channel.sync.receive, ctx=ctx)
        spin_until(lambda: channel.statistics().waiting_receivers == 1)
        ctx.cancel(cause)
        with pytest.raises(ContextCancelled) as raised:
            receiving.result()
        assert raised.value.__cause__ is cause
        with pytest.raises(ContextCancelled):
            channel.sync.send(1, ctx=ctx)
    assert channel.statistics().waiting_receivers == 0


def test_deadline_of_a_thread_is_kept_without_a_loop() -> None:
    """A context made in a thread ends by the timer thread, which ends when no timer is left."""
    channel: Channel[int] = Channel()
    with background().with_timeout(0.01) as ctx, pytest.raises(DeadlineExceeded):
        channel.sync.receive(ctx=ctx)
    spin_until(lambda: all(thread.name != "patterns-timers" for thread in threading.enumerate()))


def test_operation_in_time_with_a_context_returns() -> None:
    """A context that does not end changes nothing."""
    channel: Channel[int] = Channel(1)
    with background().with_cancel() as ctx:
        channel.sync.send(1, ctx=ctx)
        assert channel.sync.receive(timeout_seconds=5, ctx=ctx) == 1


async def test_blocking_wait_in_a_loop_is_refused() -> None:
    """In the thread of an event loop a blocking receive that would have to wait raises, and leaves nothing behind."""
    channel: Channel[int] = Channel(1)
    with pytest.raises(RuntimeError, match="event loop"):
        channel.sync.receive()
    assert channel.statistics().waiting_receivers == 0
    channel.sync.send(1)
    assert channel.sync.receive() == 1


@pytest.fixture
def interrupted() -> Iterator[list[int]]:
    """Let the first SIGUSR1 raise KeyboardInterrupt, and note it."""
    seen: list[int] = []

    def interrupt(number: int, _: object) -> None:
        seen.append(number)
        if len(seen) == 1:
            raise KeyboardInterrupt

    before = signal.signal(signal.SIGUSR1, interrupt)
    yield seen
    signal.signal(signal.SIGUSR1, before)


def test_interrupted_thread_leaves_nothing_behind(interrupted: list[int]) -> None:
    """KeyboardInterrupt ends a blocked receive, and a value sent later is not lost to it."""
    channel: Channel[int] = Channel(1)
    main = threading.get_ident()

    def interrupt() -> None:
        spin_until(lambda: channel.statistics().waiting_receivers == 1)
        while not interrupted:  # a signal that comes just before the thread blocks does not wake it
            signal.pthread_kill(main, signal.SIGUSR1)
            time.sleep(0)

    with ThreadPoolExecutor(1) as pool:
        interrupting = pool.submit(interrupt)
        with pytest.raises(KeyboardInterrupt):
            channel.sync.receive()
        interrupting.result()
    channel.send_nowait(1)
    assert channel.receive_nowait() == 1


async def test_thread_interrupted_after_its_match_has_sent() -> None:
    """Like a task's send that is cancelled then: the value stays even when its receiver is cancelled as well."""
    channel: Channel[int] = Channel()
    receiving = asyncio.create_task(channel.receive())
    await asyncio.sleep(0)

    def send_and_be_interrupted() -> None:
        waiter = _waiter.ThreadWaiter(looks_again=False)
        with _waiter.matching:
            assert channel._core.meet(waiter, 1)
        with _waiter.matching:
            waiter.withdraw()  # as select_sync does on KeyboardInterrupt

    with ThreadPoolExecutor(1) as pool:
        pool.submit(send_and_be_interrupted).result()
    receiving.cancel()
    await asyncio.gather(receiving, return_exceptions=True)
    assert channel.statistics().waiting_senders == 0
    assert channel.receive_nowait() == 1


def start_receive_and_stop_loop(channel: Channel[int]) -> tuple[asyncio.AbstractEventLoop, asyncio.Task[int]]:
    """Let a task wait in a loop that then stops."""
    loop = asyncio.new_event_loop()
    task = loop.create_task(channel.receive())
    task._log_destroy_pending = False  # type: ignore[attr-defined]  # asyncio's own switch, not in its stubs
    loop.run_until_complete(asyncio.sleep(0))
    assert channel.statistics().waiting_receivers == 1
    return loop, task


def test_receiver_whose_loop_is_closed_is_passed_over() -> None:
    """A value goes into the buffer rather than to a task that can never run again."""
    channel: Channel[int] = Channel(1)
    loop, task = start_receive_and_stop_loop(channel)
    loop.close()
    channel.send_nowait(1)
    assert channel.receive_nowait() == 1
    assert not task.done()


def test_receiver_whose_loop_closes_while_it_is_woken_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """A loop that was open when asked and closed when called does not swallow a value."""
    channel: Channel[int] = Channel(1)
    loop, task = start_receive_and_stop_loop(channel)
    loop.close()
    with monkeypatch.context() as patch:
        answers = iter([False])  # the moment between asking and calling
        patch.setattr(loop, "is_closed", lambda: next(answers, True))
        channel.send_nowait(1)
    assert channel.receive_nowait() == 1
    assert not task.done()


def test_value_promised_to_a_lost_task_comes_back() -> None:
    """When a loop is closed after the task was woken and before it ran, collecting the task frees the value."""
    channel: Channel[int] = Channel(1)
    loop, task = start_receive_and_stop_loop(channel)
    channel.send_nowait(1)
    with pytest.raises(WouldBlock):
        channel.receive_nowait()
    loop.close()
    del task
    gc.collect()
    assert channel.receive_nowait() == 1


def test_receiving_end_for_threads_only_receives() -> None:
    """What a receive-only channel gives to threads has no send."""
    channel: Channel[int] = Channel(1)
    end: ReceiveChannel[int] = ReceiveChannel(channel._core)
    channel.send_nowait(1)
    assert end.sync.receive() == 1
    assert not hasattr(end.sync, "send")
    assert not hasattr(end, "send")
