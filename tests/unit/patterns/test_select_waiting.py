"""select that waits: what it meets, and what a close or a cancel does to it."""

import asyncio
from itertools import permutations
from random import Random

import pytest

from patterns import Channel, ChannelClosedError, Outcome, WouldBlock, receive, select, send
from patterns.bubble import bubble, wait_idle
from tests.support.seeds import thousand_seeds
from tests.support.shuffling_loop import ShufflingLoop, run_shuffled


def test_two_channels_filled_in_the_same_tick_keep_the_losers_value() -> None:
    """A waiting select that could have had either value takes one and leaves the other, 200 times of 200."""

    async def main() -> None:
        for _ in range(200):
            first: Channel[int] = Channel(1)
            second: Channel[int] = Channel(1)
            cases = receive(first), receive(second)
            selecting = asyncio.create_task(select(*cases))
            await wait_idle()
            first.send_nowait(1)
            second.send_nowait(2)
            chosen = await selecting
            left = [channel.receive_nowait() for channel in (first, second) if len(channel)]
            assert isinstance(chosen, type(cases[0]))
            assert sorted([chosen.value, *left]) == [1, 2]
            assert first.statistics().waiting_receivers == second.statistics().waiting_receivers == 0

    bubble(main)


@pytest.mark.parametrize("capacity", [0, 1])
def test_select_does_not_talk_to_itself(capacity: int) -> None:
    """A send and a receive of the same channel in one select wait for a third party at capacity 0."""

    async def main() -> None:
        channel: Channel[int] = Channel(capacity)
        receiving, sending = receive(channel), send(channel, 1)
        selecting = asyncio.create_task(select(receiving, sending))
        await wait_idle()
        if capacity:
            assert await selecting is sending
            return
        assert not selecting.done()
        await channel.send(2)
        assert await selecting is receiving
        assert receiving.value == 2
        assert channel.statistics().waiting_senders == channel.statistics().waiting_receivers == 0

    bubble(main)


@thousand_seeds
def test_two_selects_meet_at_a_rendezvous(seeds: range) -> None:
    """Two tasks that each offer to send and to receive agree on one direction, with 1,000 seeds."""

    async def main() -> None:
        channel: Channel[str] = Channel()

        async def meet(name: str) -> str | None:
            receiving = receive(channel)
            return receiving.value if await select(receiving, send(channel, name)) is receiving else None

        assert sorted(filter(None, await asyncio.gather(meet("a"), meet("b")))) in (["a"], ["b"])

    run_shuffled(main, seeds=seeds)


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_waiting_select_takes_the_first_that_comes(order: tuple[int, ...]) -> None:
    """What a waiting select receives does not depend on the order of its cases."""

    async def main() -> None:
        channels: list[Channel[int]] = [Channel(1) for _ in range(3)]
        selecting = asyncio.create_task(select(*(receive(channel) for channel in channels)))
        await wait_idle()
        for index in order:
            channels[index].send_nowait(index)
        chosen = await selecting
        assert not isinstance(chosen, Outcome)
        assert chosen.value == order[0]

    bubble(main)


@pytest.mark.parametrize("capacity", [0, 1])
def test_waiting_select_sees_a_close(capacity: int) -> None:
    """A waiting receive case is chosen without a value; a waiting send case raises."""

    async def main() -> None:
        empty, full = Channel[int](capacity), Channel[int](capacity)
        if capacity:
            full.send_nowait(1)
        receiving = receive(empty)
        selecting = asyncio.create_task(select(receiving, receive(None)))
        sending = asyncio.create_task(select(send(full, 2), receive(None)))
        await wait_idle()
        empty.close()
        full.close()
        assert await selecting is receiving
        assert not receiving.ok
        with pytest.raises(ChannelClosedError):
            await sending

    bubble(main)


def test_close_ends_a_select_that_would_send_and_receive_by_itself() -> None:
    """It ends in either way, since both are ready, and never with the value that it offers: 100 seeds see both."""

    async def main() -> str:
        channel: Channel[int] = Channel()
        receiving = receive(channel)
        selecting = asyncio.create_task(select(receiving, send(channel, 1), random=Random(next(seeds))))
        await wait_idle()
        channel.close()
        try:
            assert await selecting is receiving
        except ChannelClosedError:
            return "closed"
        assert not receiving.ok
        return "end"

    seeds = iter(range(100))
    assert {bubble(main) for _ in range(100)} == {"closed", "end"}


def test_cancelled_select_leaves_every_queue() -> None:
    """After a cancel no channel knows the select, and values sent later are not lost to it."""

    async def main() -> None:
        channel, other = Channel[int](1), Channel[int]()
        selecting = asyncio.create_task(select(receive(channel), receive(other), send(other, 1)))
        await wait_idle()
        assert other.statistics().waiting_senders == other.statistics().waiting_receivers == 1
        selecting.cancel()
        channel.send_nowait(5)
        with pytest.raises(asyncio.CancelledError):
            await selecting
        assert channel.receive_nowait() == 5
        assert other.statistics().waiting_senders == other.statistics().waiting_receivers == 0

    bubble(main)


@thousand_seeds
def test_select_cancelled_in_the_tick_of_its_choice_gives_the_value_back(seeds: range) -> None:
    """The value is the first to be received again, with 1,000 seeds and cancels at random moments."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, ShufflingLoop)
        channels = [Channel[int](), Channel[int](2)]
        received: list[int] = []

        async def take() -> None:
            chosen = await select(*(receive(channel) for channel in channels))
            assert not isinstance(chosen, Outcome)
            received.append(chosen.value)

        async def give(channel: Channel[int], start: int) -> None:
            for value in range(start, start + 3):
                await channel.send(value)

        givers = [asyncio.create_task(give(channel, 10 * index)) for index, channel in enumerate(channels)]
        takers = [asyncio.create_task(take()) for _ in range(2)]
        for _ in range(4):
            await asyncio.sleep(0)
            loop.random.choice(takers).cancel()
            takers.append(asyncio.create_task(take()))
        for taker in takers:
            taker.cancel()
        await wait_idle()
        for channel in channels:
            while True:
                try:
                    received.append(channel.receive_nowait())
                except WouldBlock:
                    break
                await wait_idle()
        assert sorted(received) == [0, 1, 2, 10, 11, 12]
        for start in (0, 10):
            assert [value for value in received if value // 10 * 10 == start] == list(range(start, start + 3))
        assert all(giver.done() for giver in givers)

    run_shuffled(main, seeds=seeds)


def test_select_that_sends_ends_when_its_receiver_has_resumed() -> None:
    """At capacity 0 a chosen send has really been received, in any interleaving."""

    async def main() -> list[str]:
        channel: Channel[int] = Channel()
        events = []

        async def take() -> None:
            await channel.receive()
            events.append("received")

        taking = asyncio.create_task(take())
        await wait_idle()
        sending = send(channel, 1)
        assert await select(sending, receive(None)) is sending
        events.append("sent")
        await taking
        return events

    assert all(events == ["received", "sent"] for events in run_shuffled(main))


def test_select_whose_receiver_is_cancelled_looks_at_all_its_cases_again() -> None:
    """A send that was matched and un-matched has not happened, and another case can."""

    async def main() -> None:
        channel, other = Channel[int](), Channel[int](1)
        taking = asyncio.create_task(channel.receive())
        await wait_idle()
        alternative = receive(other)
        selecting = asyncio.create_task(select(send(channel, 1), alternative))
        asyncio.get_running_loop().call_soon(taking.cancel)
        await wait_idle()
        assert not selecting.done()
        other.send_nowait(2)
        assert await selecting is alternative
        with pytest.raises(WouldBlock):
            channel.receive_nowait()

    bubble(main)


def test_select_whose_match_was_undone_waits_for_the_rest_of_its_time() -> None:
    """It ends with its timeout and not before, and in between another case may happen."""

    async def main(other_comes: bool) -> None:
        channel, other = Channel[int](), Channel[int](1)
        taking = asyncio.create_task(channel.receive())
        await wait_idle()
        alternative = receive(other)
        selecting = asyncio.create_task(select(send(channel, 1), alternative, timeout_seconds=10))
        loop = asyncio.get_running_loop()
        loop.call_soon(taking.cancel)
        if other_comes:
            loop.call_later(4, other.send_nowait, 2)
        assert await selecting is (alternative if other_comes else Outcome.TIMEOUT)
        assert loop.time() == (4 if other_comes else 10)
        assert channel.statistics().waiting_senders == other.statistics().waiting_receivers == 0

    bubble(main, True)
    bubble(main, False)


def test_select_of_one_send_keeps_its_place_when_its_match_is_undone() -> None:
    """Like a lone send it is served before one that came after it."""

    async def main() -> None:
        channel: Channel[int] = Channel()
        taking = asyncio.create_task(channel.receive())
        await wait_idle()
        sending = send(channel, 1)
        selecting = asyncio.create_task(select(sending))
        later = asyncio.create_task(channel.send(2))
        asyncio.get_running_loop().call_soon(taking.cancel)
        await wait_idle()
        assert [await channel.receive(), await channel.receive()] == [1, 2]
        assert await selecting is sending
        await later

    bubble(main)


@pytest.mark.parametrize("ends_by_a_cancel", [False, True])
def test_select_that_ends_before_its_time_leaves_no_timer(ends_by_a_cancel: bool) -> None:
    """The loop does not keep what nobody waits for any more."""

    async def main() -> None:
        channel: Channel[int] = Channel()
        selecting = asyncio.create_task(select(receive(channel), timeout_seconds=10))
        await wait_idle()
        if ends_by_a_cancel:
            selecting.cancel()
        else:
            await channel.send(1)
        await asyncio.wait([selecting])
        scheduled: list[asyncio.TimerHandle] = asyncio.get_running_loop()._scheduled  # type: ignore[attr-defined]  # asyncio's own heap
        assert all(timer.cancelled() for timer in scheduled)

    bubble(main)


def test_timeout_of_a_matched_select_counts_again_after_the_match_was_undone() -> None:
    """A send that is matched when its time is up goes through, or, if its receiver is cancelled, times out."""

    async def main(is_undone: bool) -> None:
        channel: Channel[int] = Channel()
        loop = asyncio.get_running_loop()
        taking = asyncio.create_task(channel.receive())
        await wait_idle()
        sending = send(channel, 1)

        def time_is_up() -> None:
            loop._now += 10  # type: ignore[attr-defined]  # the bubble's clock, as if the receiver's loop were slow
            if is_undone:
                taking.cancel()

        selecting = asyncio.create_task(select(sending, timeout_seconds=5))
        loop.call_soon(time_is_up)
        assert await selecting is (Outcome.TIMEOUT if is_undone else sending)
        if not is_undone:
            assert await taking == 1

    bubble(main, True)
    bubble(main, False)


def test_matched_select_that_is_cancelled_has_sent() -> None:
    """Like a lone send it raises CancelledError, and its value arrives once."""

    async def main() -> None:
        channel: Channel[int] = Channel()
        taking = asyncio.create_task(channel.receive())
        await wait_idle()
        selecting = asyncio.create_task(select(send(channel, 1), receive(None)))
        asyncio.get_running_loop().call_soon(selecting.cancel)
        assert await taking == 1
        with pytest.raises(asyncio.CancelledError):
            await selecting

    bubble(main)
