"""Channel among the tasks of one loop: order, bounds, closing and cancelling."""

import asyncio
import random
from collections import deque

import pytest

from patterns import Channel, ChannelClosedError, ChannelStatistics, EndOfChannel, WouldBlock
from patterns.bubble import bubble, wait_idle
from tests.support.shuffling_loop import ShufflingLoop, run_shuffled

thousand_seeds = pytest.mark.parametrize(
    "seeds", [range(start, start + 200) for start in range(0, 1_000, 200)], ids=str
)


async def outcome_of(task: asyncio.Task[object]) -> object:
    """What a task returned, or the type of what it raised."""
    (result,) = await asyncio.gather(task, return_exceptions=True)
    return type(result) if isinstance(result, BaseException) else result


def test_rendezvous_send_without_a_receiver_stays_pending() -> None:
    """At capacity 0 a send waits, however long, until somebody receives."""

    async def main() -> None:
        channel: Channel[int] = Channel()
        sending = asyncio.create_task(channel.send(1))
        await asyncio.sleep(3600)
        assert not sending.done()
        assert len(channel) == 0
        assert await channel.receive() == 1
        await sending

    bubble(main)


def test_rendezvous_send_ends_after_its_receiver_has_resumed() -> None:
    """A send to a receiver that waits does not return before that receiver has the value, in any interleaving."""

    async def main() -> list[str]:
        channel: Channel[int] = Channel()
        events = []

        async def receive() -> None:
            await channel.receive()
            events.append("received")

        receiving = asyncio.create_task(receive())
        await wait_idle()
        await channel.send(1)
        events.append("sent")
        await receiving
        return events

    assert all(events == ["received", "sent"] for events in run_shuffled(main))


def test_receiver_cancelled_in_the_tick_of_its_match_sends_the_sender_back_to_the_head() -> None:
    """At capacity 0 the un-matched sender is pending again, and is served before the one that came after it."""

    async def main() -> None:
        channel: Channel[int] = Channel()
        receiving = asyncio.create_task(channel.receive())
        await wait_idle()
        first = asyncio.create_task(channel.send(1))
        second = asyncio.create_task(channel.send(2))
        asyncio.get_running_loop().call_soon(receiving.cancel)
        await wait_idle()
        assert receiving.cancelled()
        assert not first.done()
        assert channel.statistics().waiting_senders == 2
        assert [await channel.receive(), await channel.receive()] == [1, 2]
        await asyncio.gather(first, second)

    bubble(main)


def test_several_receivers_cancelled_after_their_match_keep_the_order_of_their_senders() -> None:
    """Four un-matched senders are served in the order in which they sent."""

    async def main() -> None:
        channel: Channel[int] = Channel()
        receiving = [asyncio.create_task(channel.receive()) for _ in range(4)]
        await wait_idle()
        sending = [asyncio.create_task(channel.send(value)) for value in range(4)]
        loop = asyncio.get_running_loop()
        loop.call_soon(lambda: [task.cancel() for task in receiving])
        await wait_idle()
        assert [await channel.receive() for _ in range(4)] == [0, 1, 2, 3]
        await asyncio.gather(*sending)

    bubble(main)


def test_unmatched_sender_goes_to_the_next_receiver_in_line() -> None:
    """When the matched receiver is cancelled, one that waits behind it gets the value and the send ends."""

    async def main() -> None:
        channel: Channel[int] = Channel()
        doomed = asyncio.create_task(channel.receive())
        next_in_line = asyncio.create_task(channel.receive())
        await wait_idle()
        sending = asyncio.create_task(channel.send(1))
        asyncio.get_running_loop().call_soon(doomed.cancel)
        assert await next_in_line == 1
        await sending
        assert doomed.cancelled()

    bubble(main)


@pytest.mark.parametrize("capacity", [1, 3])
def test_send_waits_when_full_and_refills_in_order(capacity: int) -> None:
    """A channel takes as many values as its capacity; senders beyond that follow in the order in which they came."""

    async def main() -> None:
        channel: Channel[int] = Channel(capacity)
        sending = [asyncio.create_task(channel.send(value)) for value in range(capacity + 3)]
        await wait_idle()
        assert [task.done() for task in sending] == [True] * capacity + [False] * 3
        assert len(channel) == channel.capacity == capacity
        with pytest.raises(WouldBlock):
            channel.send_nowait(99)
        assert [await channel.receive() for _ in sending] == list(range(capacity + 3))
        await asyncio.gather(*sending)
        with pytest.raises(WouldBlock):
            channel.receive_nowait()

    bubble(main)


@pytest.mark.parametrize("value", [None, 0, "", False, ()])
@pytest.mark.parametrize("capacity", [0, 1])
def test_falsy_values_travel(capacity: int, value: object) -> None:
    """None and whatever else is false arrives as it was sent."""

    async def main() -> None:
        channel: Channel[object] = Channel(capacity)
        sending = asyncio.create_task(channel.send(value))
        assert await channel.receive() is value
        await sending

    bubble(main)


class Model:
    """What a channel is, said with a deque and two lines of waiting tasks."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.buffer: deque[int] = deque()
        self.senders: deque[tuple[int, int]] = deque()
        self.receivers: deque[int] = deque()
        self.done: dict[int, int | None] = {}

    def send(self, value: int, name: int | None) -> bool:
        """Send from a task, or without waiting; say whether it is done."""
        if self.receivers:
            self.done[self.receivers.popleft()] = value
        elif len(self.buffer) < self.capacity:
            self.buffer.append(value)
        else:
            if name is not None:
                self.senders.append((name, value))
            return False
        if name is not None:
            self.done[name] = None
        return True

    def receive(self, name: int | None) -> int | None:
        """Receive in a task, or without waiting; return the value if there was one."""
        if not self.buffer and not self.senders:
            if name is not None:
                self.receivers.append(name)
            return None
        if self.senders:
            sender, sent = self.senders.popleft()
            self.done[sender] = None
            self.buffer.append(sent)
        value = self.buffer.popleft()
        if name is not None:
            self.done[name] = value
        return value

    def cancel(self, name: int) -> None:
        """Cancel a task that waits."""
        self.senders = deque(entry for entry in self.senders if entry[0] != name)
        self.receivers = deque(entry for entry in self.receivers if entry != name)


@pytest.mark.timeout(60)  # 10,000 steps take their time under a coverage tracer
@pytest.mark.parametrize("capacity", [0, 1, 5])
def test_channel_does_what_its_model_does(capacity: int) -> None:
    """Through 10,000 random sends, receives and cancels, by tasks and without waiting, channel and deque agree."""

    async def main() -> None:
        dice = random.Random(capacity)
        channel: Channel[int] = Channel(capacity)
        model = Model(capacity)
        tasks: dict[int, asyncio.Task[int | None]] = {}
        for step in range(10_000):
            match dice.choice(["send", "send", "receive", "receive", "send_nowait", "receive_nowait", "cancel"]):
                case "send":
                    tasks[step] = asyncio.create_task(channel.send(step))
                    model.send(step, step)
                case "receive":
                    tasks[step] = asyncio.create_task(channel.receive())
                    model.receive(step)
                case "send_nowait":
                    try:
                        channel.send_nowait(step)
                        sent = True
                    except WouldBlock:
                        sent = False
                    assert sent == model.send(step, None)
                case "receive_nowait":
                    try:
                        received = channel.receive_nowait()
                    except WouldBlock:
                        received = None
                    assert received == model.receive(None)
                case "cancel" if tasks:
                    name = dice.choice(list(tasks))
                    tasks.pop(name).cancel()
                    model.cancel(name)
            await wait_idle()
            ended = {name: task.result() for name, task in tasks.items() if task.done()}
            assert ended == model.done
            for name in ended:
                del tasks[name]
            model.done.clear()
            assert channel.statistics() == ChannelStatistics(
                capacity, len(model.buffer), len(model.senders), len(model.receivers), is_closed=False
            )
        for task in tasks.values():
            task.cancel()

    bubble(main)


def test_receive_cancelled_in_the_tick_of_its_value_gives_it_back() -> None:
    """The value is the first to be received, before one that was sent later."""

    async def main() -> None:
        channel: Channel[int] = Channel(5)
        receiving = asyncio.create_task(channel.receive())
        await wait_idle()
        channel.send_nowait(1)
        channel.send_nowait(2)
        receiving.cancel()
        assert await outcome_of(receiving) is asyncio.CancelledError
        assert len(channel) == 2
        assert [channel.receive_nowait(), channel.receive_nowait()] == [1, 2]

    bubble(main)


def test_newcomer_does_not_take_what_a_waiting_receiver_was_promised() -> None:
    """With one value and a receiver that has been woken for it, there is nothing for anybody else."""

    async def main() -> None:
        channel: Channel[int] = Channel(5)
        receiving = asyncio.create_task(channel.receive())
        await wait_idle()
        channel.send_nowait(1)
        assert len(channel) == 0
        with pytest.raises(WouldBlock):
            channel.receive_nowait()
        assert await receiving == 1

    bubble(main)


def test_value_handed_over_without_waiting_stays_when_its_receiver_is_cancelled() -> None:
    """At capacity 0 a value from send_nowait outlives its receiver, and the next one gets it."""

    async def main() -> None:
        channel: Channel[int] = Channel()
        receiving = asyncio.create_task(channel.receive())
        await wait_idle()
        channel.send_nowait(1)
        receiving.cancel()
        await wait_idle()
        assert len(channel) == 1
        with pytest.raises(WouldBlock):
            channel.send_nowait(2)
        assert await channel.receive() == 1

    bubble(main)


@thousand_seeds
@pytest.mark.parametrize("capacity", [0, 1, 4])
def test_no_cancelled_receive_loses_doubles_or_reorders_a_value(capacity: int, seeds: range) -> None:
    """With receivers cancelled in the very ticks of their values, all arrive once and in order, with 1,000 seeds."""

    async def main() -> None:
        channel: Channel[int] = Channel(capacity)
        loop = asyncio.get_running_loop()
        assert isinstance(loop, ShufflingLoop)
        received: list[int] = []

        async def receive() -> None:
            received.append(await channel.receive())

        async def produce() -> None:
            for value in range(6):
                await channel.send(value)

        producing = asyncio.create_task(produce())
        receivers = [asyncio.create_task(receive()) for _ in range(3)]
        for _ in range(6):
            await asyncio.sleep(0)
            loop.random.choice(receivers).cancel()
            receivers.append(asyncio.create_task(receive()))
        for task in receivers:
            task.cancel()
        await wait_idle()
        while len(received) < 6:
            received.append(channel.receive_nowait())
            await wait_idle()
        assert received == list(range(6))
        assert producing.done()

    run_shuffled(main, seeds=seeds)


@pytest.mark.parametrize("capacity", [0, 1])
def test_send_cancelled_before_a_match_has_not_happened(capacity: int) -> None:
    """Its value never arrives, and the sender behind it is next."""

    async def main() -> None:
        channel: Channel[int] = Channel(capacity)
        for value in range(capacity):
            channel.send_nowait(value)
        doomed = asyncio.create_task(channel.send(10))
        other = asyncio.create_task(channel.send(11))
        await wait_idle()
        doomed.cancel()
        values = [channel.receive_nowait() for _ in range(capacity + 1)]
        assert values == [*range(capacity), 11]
        assert await outcome_of(doomed) is asyncio.CancelledError
        await other
        with pytest.raises(WouldBlock):
            channel.receive_nowait()

    bubble(main)


def test_send_cancelled_after_its_value_moved_into_the_buffer_is_delivered() -> None:
    """The send raises CancelledError, and its value arrives exactly once."""

    async def main() -> None:
        channel: Channel[int] = Channel(1)
        channel.send_nowait(1)
        sending = asyncio.create_task(channel.send(2))
        await wait_idle()
        assert channel.receive_nowait() == 1
        sending.cancel()
        assert await outcome_of(sending) is asyncio.CancelledError
        assert channel.receive_nowait() == 2
        with pytest.raises(WouldBlock):
            channel.receive_nowait()

    bubble(main)


@pytest.mark.parametrize("is_receiver_cancelled_too", [False, True])
def test_rendezvous_send_cancelled_after_its_match_is_delivered(is_receiver_cancelled_too: bool) -> None:
    """The send raises CancelledError; its value reaches the receiver or, if that is cancelled too, the next one."""

    async def main() -> None:
        channel: Channel[int] = Channel()
        receiving = asyncio.create_task(channel.receive())
        await wait_idle()
        sending = asyncio.create_task(channel.send(1))

        def cancel() -> None:
            if is_receiver_cancelled_too:
                receiving.cancel()
            sending.cancel()

        asyncio.get_running_loop().call_soon(cancel)
        assert await outcome_of(sending) is asyncio.CancelledError
        await wait_idle()
        assert len(channel) == is_receiver_cancelled_too
        assert (await channel.receive() if is_receiver_cancelled_too else await receiving) == 1

    bubble(main)


@pytest.mark.parametrize("capacity", [0, 2])
def test_close_ends_waiting_senders_with_an_error(capacity: int) -> None:
    """Four blocked sends raise ChannelClosedError, and what was in the buffer before is still received."""

    async def main() -> None:
        channel: Channel[int] = Channel(capacity)
        for value in range(capacity):
            await channel.send(value)
        sending = [asyncio.create_task(channel.send(9)) for _ in range(4)]
        await wait_idle()
        channel.close()
        assert [await outcome_of(task) for task in sending] == [ChannelClosedError] * 4
        assert [value async for value in channel] == list(range(capacity))

    bubble(main)


@pytest.mark.parametrize("capacity", [0, 2])
def test_close_ends_waiting_receivers(capacity: int) -> None:
    """Four blocked receives raise EndOfChannel."""

    async def main() -> None:
        channel: Channel[int] = Channel(capacity)
        receiving = [asyncio.create_task(channel.receive()) for _ in range(4)]
        await wait_idle()
        channel.close()
        assert [await outcome_of(task) for task in receiving] == [EndOfChannel] * 4

    bubble(main)


@pytest.mark.parametrize("capacity", [0, 1])
def test_use_after_close_raises(capacity: int) -> None:
    """Sends and a second close raise ChannelClosedError, receives EndOfChannel."""

    async def main() -> None:
        channel: Channel[int] = Channel(capacity)
        channel.close()
        assert channel.is_closed
        with pytest.raises(ChannelClosedError):
            await channel.send(1)
        with pytest.raises(ChannelClosedError):
            channel.send_nowait(1)
        with pytest.raises(ChannelClosedError):
            channel.close()
        with pytest.raises(ChannelClosedError):
            channel.sync.close()
        with pytest.raises(EndOfChannel):
            await channel.receive()
        with pytest.raises(EndOfChannel):
            channel.receive_nowait()

    bubble(main)


def test_close_after_a_match_lets_the_receiver_have_its_value() -> None:
    """A rendezvous that was agreed on before the close takes place."""

    async def main() -> None:
        channel: Channel[int] = Channel()
        receiving = asyncio.create_task(channel.receive())
        await wait_idle()
        sending = asyncio.create_task(channel.send(1))
        asyncio.get_running_loop().call_soon(channel.close)
        assert await receiving == 1
        await sending

    bubble(main)


def test_sender_unmatched_after_a_close_raises() -> None:
    """When close and a cancel of the receiver undo a match, the send raises instead of waiting for ever."""

    async def main() -> None:
        channel: Channel[int] = Channel()
        receiving = asyncio.create_task(channel.receive())
        await wait_idle()
        sending = asyncio.create_task(channel.send(1))

        def close_and_cancel() -> None:
            channel.close()
            receiving.cancel()

        asyncio.get_running_loop().call_soon(close_and_cancel)
        assert await outcome_of(sending) is ChannelClosedError

    bubble(main)


def test_iteration_ends_when_the_channel_is_closed_and_drained() -> None:
    """``async for`` gives every value in order, then ends."""

    async def main() -> None:
        channel: Channel[int] = Channel(2)

        async def produce() -> None:
            for value in range(5):
                await channel.send(value)
            channel.close()

        producing = asyncio.create_task(produce())
        assert [value async for value in channel] == list(range(5))
        await producing

    bubble(main)


def test_lone_receive_from_none_is_an_error() -> None:
    """Where Go would block for ever on a nil channel, there is no channel to receive from."""
    channel: Channel[int] | None = None
    with pytest.raises(AttributeError):
        channel.receive_nowait()  # type: ignore[union-attr]  # the type checker says so too


@pytest.mark.parametrize(("capacity", "error"), [(-1, ValueError), (float("inf"), TypeError), (1.5, TypeError)])
def test_capacity_that_is_no_count_is_refused(capacity: int, error: type[Exception]) -> None:
    """A capacity is a whole number, 0 or more."""
    with pytest.raises(error):
        Channel(capacity)


def test_an_empty_channel_is_true() -> None:
    """``if channel`` asks whether there is a channel, not whether it holds something."""
    assert Channel(1)


def test_statistics_show_who_waits() -> None:
    """Length, waiting senders and receivers, and the close are visible from outside."""

    async def main() -> None:
        full: Channel[int] = Channel(1)
        empty: Channel[int] = Channel(1)
        full.send_nowait(1)
        sending = asyncio.create_task(full.send(2))
        receiving = asyncio.create_task(empty.receive())
        await wait_idle()
        assert full.statistics() == ChannelStatistics(1, 1, 1, 0, is_closed=False)
        assert empty.statistics() == ChannelStatistics(1, 0, 0, 1, is_closed=False)
        for task in (sending, receiving):
            task.cancel()
        await wait_idle()
        empty.close()
        assert full.statistics() == ChannelStatistics(1, 1, 0, 0, is_closed=False)
        assert empty.statistics() == ChannelStatistics(1, 0, 0, 0, is_closed=True)

    bubble(main)
