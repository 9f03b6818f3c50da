"""Channel among the tasks of one loop: order, bounds and statistics."""

import asyncio
import random
from collections import deque

import pytest

from patterns import Channel, ChannelStatistics, WouldBlock
from patterns.bubble import bubble, wait_idle
from tests.support.shuffling_loop import run_shuffled


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


@pytest.mark.parametrize("capacity", [0, 1, 5])
def test_receive_that_comes_before_a_woken_receiver_resumes_waits_behind_it(capacity: int) -> None:
    """A task that asks while the promised value still lies there gets the next one."""

    async def main() -> None:
        channel: Channel[int] = Channel(capacity)
        receiving = asyncio.create_task(channel.receive())
        await wait_idle()
        channel.send_nowait(1)
        asyncio.get_running_loop().call_later(1, channel.send_nowait, 2)
        assert await channel.receive() == 2
        assert await receiving == 1

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
