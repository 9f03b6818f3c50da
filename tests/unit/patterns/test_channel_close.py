"""Channel: what a close ends, and what it lets happen."""

import asyncio

import pytest

from patterns import Channel, ChannelClosedError, EndOfChannel
from patterns.bubble import bubble, wait_idle
from tests.support.running_loop import outcome_of


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
