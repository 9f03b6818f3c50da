"""Channels whose senders, receivers and selects are cancelled at random: what went in comes out, once."""

import asyncio
from collections import Counter
from collections.abc import Coroutine
from itertools import count
from typing import Any

import pytest

from patterns import Channel, ChannelClosedError, Outcome, WouldBlock, receive, select, send
from patterns.bubble import wait_idle
from tests.support.seeds import thousand_seeds
from tests.support.shuffling_loop import ShufflingLoop, run_shuffled

CAPACITIES = [0, 1, 3]


class Traffic:
    """Senders and receivers on two channels, with what they have tried, what they know, and what has arrived."""

    def __init__(self, capacity: int) -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, ShufflingLoop)
        self.dice = loop.random
        self.channels: list[Channel[int]] = [Channel(capacity), Channel(capacity)]
        self.values = count()
        self.attempted: set[int] = set()
        self.sent: set[int] = set()
        self.arrived: list[int] = []

    async def send_alone(self) -> None:
        """Send two values, one after the other, to the same channel."""
        channel = self.dice.choice(self.channels)
        for _ in range(2):
            value = next(self.values)
            self.attempted.add(value)
            await channel.send(value)
            self.sent.add(value)

    async def send_to_either(self) -> None:
        """Send two values, each to one of the channels."""
        for _ in range(2):
            value = next(self.values)
            self.attempted.add(value)
            await select(*(send(channel, value) for channel in self.channels))
            self.sent.add(value)

    async def receive_alone(self) -> None:
        """Receive one value."""
        self.arrived.append(await self.dice.choice(self.channels).receive())

    async def receive_from_either(self) -> None:
        """Receive one value from one of the channels."""
        chosen = await select(*map(receive, self.channels))
        assert not isinstance(chosen, Outcome)
        self.arrived.append(chosen.value)

    async def send_or_receive(self) -> None:
        """Do whichever is possible first; nobody is to meet himself."""
        value = next(self.values)
        self.attempted.add(value)
        one, other = self.dice.sample(self.channels, 2)
        receiving = receive(other)
        if await select(send(one, value), receiving) is receiving:
            self.attempted.remove(value)
            self.arrived.append(receiving.value)
        else:
            self.sent.add(value)

    async def flow(self) -> None:
        """Let them all come and go, cancel one at random in every tick, and take what is left."""
        kinds = [self.send_alone, self.send_to_either, self.receive_alone, self.receive_from_either]
        kinds.append(self.send_or_receive)
        tasks: list[asyncio.Task[None]] = []
        for _ in range(12):
            make: Coroutine[Any, Any, None] = self.dice.choice(kinds)()
            tasks.append(asyncio.create_task(make))
            await asyncio.sleep(0)
            self.dice.choice(tasks).cancel()
        await wait_idle()
        for task in tasks:
            task.cancel()
        await wait_idle()
        for channel in self.channels:
            while len(channel):
                self.arrived.append(channel.receive_nowait())
            with pytest.raises(WouldBlock):
                channel.receive_nowait()
            statistics = channel.statistics()
            assert statistics.waiting_senders == statistics.waiting_receivers == 0
        assert self.sent <= set(self.arrived) <= self.attempted
        assert max(Counter(self.arrived).values(), default=0) <= 1


@thousand_seeds
@pytest.mark.parametrize("capacity", CAPACITIES)
def test_whoever_is_cancelled_what_was_sent_arrives_once_and_nothing_else(capacity: int, seeds: range) -> None:
    """Sends, receives and selects of both, one cancelled in every tick, with 1,000 seeds: no value lost or doubled."""

    async def main() -> None:
        await Traffic(capacity).flow()

    run_shuffled(main, seeds=seeds)


@thousand_seeds
@pytest.mark.parametrize("capacity", CAPACITIES)
def test_close_in_the_middle_refuses_or_delivers_each_value(capacity: int, seeds: range) -> None:
    """Each send that a close surprises raises or its value arrives, in the order of sending, with 1,000 seeds."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, ShufflingLoop)
        channel: Channel[tuple[int, int]] = Channel(capacity)
        sent: set[tuple[int, int]] = set()
        arrived: list[tuple[int, int]] = []

        async def produce(name: int) -> None:
            for number in range(4):
                await channel.send((name, number))
                sent.add((name, number))

        async def consume() -> None:
            async for value in channel:
                arrived.append(value)  # noqa: PERF401  # at once, even if cancelled later

        producers = [asyncio.create_task(produce(name)) for name in range(3)]
        consumers = [asyncio.create_task(consume()) for _ in range(2)]
        for _ in range(loop.random.randrange(6)):
            await asyncio.sleep(0)
        loop.random.choice(consumers).cancel()
        channel.close()
        await wait_idle()
        consumers.append(asyncio.create_task(consume()))
        results = await asyncio.gather(*producers, return_exceptions=True)
        await asyncio.gather(*consumers, return_exceptions=True)
        assert all(result is None or isinstance(result, ChannelClosedError) for result in results)
        assert sorted(arrived) == sorted(sent)
        for name in range(3):
            assert [number for other, number in arrived if other == name] == list(
                range(sum(other == name for other, _ in arrived))
            )

    run_shuffled(main, seeds=seeds)
