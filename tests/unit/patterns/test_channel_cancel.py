"""Channel: a send or a receive that is cancelled loses and doubles no value."""

import asyncio

import pytest

from patterns import Channel, WouldBlock
from patterns.bubble import bubble, wait_idle
from tests.support.running_loop import outcome_of
from tests.support.seeds import thousand_seeds
from tests.support.shuffling_loop import ShufflingLoop, run_shuffled


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


@pytest.mark.parametrize("capacity", [1, 3])
def test_channel_that_got_a_value_back_is_as_full_as_before(capacity: int) -> None:
    """A value that its receiver gave back takes its room: no more values than the capacity are held."""

    async def main() -> None:
        channel: Channel[int] = Channel(capacity)
        receiving = asyncio.create_task(channel.receive())
        await wait_idle()
        channel.send_nowait(0)
        receiving.cancel()
        await wait_idle()
        sending = [asyncio.create_task(channel.send(value)) for value in range(1, capacity + 1)]
        await wait_idle()
        assert [task.done() for task in sending] == [True] * (capacity - 1) + [False]
        assert len(channel) == capacity
        assert [await channel.receive() for _ in range(capacity + 1)] == list(range(capacity + 1))
        await asyncio.gather(*sending)

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
