"""select: exactly one case, a fair choice, defaults, timeouts, cancels."""

import asyncio
import random
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from itertools import permutations

import pytest

from patterns import (
    Case,
    Channel,
    ChannelClosedError,
    EndOfChannel,
    Outcome,
    WouldBlock,
    after,
    receive,
    select,
    select_sync,
    send,
)
from patterns.bubble import bubble, wait_idle
from tests.support.shuffling_loop import ShufflingLoop, run_shuffled
from tests.support.spinning import spin_until

thousand_seeds = pytest.mark.parametrize(
    "seeds", [range(start, start + 200) for start in range(0, 1_000, 200)], ids=str
)


def filled(*values: int) -> Channel[int]:
    """A channel with some values in it."""
    channel: Channel[int] = Channel(max(1, len(values)))
    for value in values:
        channel.send_nowait(value)
    return channel


def test_ready_case_is_chosen_and_carries_its_value() -> None:
    """Of several cases the one that is ready happens, and says what it received."""

    async def main() -> None:
        empty: Channel[int] = Channel(1)
        full = filled(7)
        waiting, ready = receive(empty), receive(full)
        assert await select(waiting, ready) is ready
        assert ready.ok
        assert ready.value == 7
        assert not waiting.ok
        with pytest.raises(EndOfChannel):
            _ = waiting.value
        assert len(full) == 0

    bubble(main)


def test_loser_of_two_ready_cases_is_untouched() -> None:
    """With a send and a receive ready, one has happened and the other has not, 200 times of 200."""

    async def main() -> None:
        for _ in range(200):
            source, target = filled(1), Channel[int](1)
            chosen = await select(receiving := receive(source), sending := send(target, 2))
            assert (len(source), len(target)) == ((0, 0) if chosen is receiving else (1, 1))
            assert chosen in (receiving, sending)

    bubble(main)


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


def test_choice_among_ready_cases_is_uniform() -> None:
    """Over 6,000 rounds with three ready cases, chi-square stays below its 0.1 % bound for two degrees of freedom."""

    async def main() -> Counter[int]:
        dice = random.Random(7)
        channels = [filled(0), filled(1), filled(2)]
        counts: Counter[int] = Counter()
        for _ in range(6_000):
            chosen = await select(*(receive(channel) for channel in channels), random=dice)
            assert not isinstance(chosen, Outcome)
            counts[chosen.value] += 1
            channels[chosen.value].send_nowait(chosen.value)
        return counts

    counts = bubble(main)
    assert sum((counts[index] - 2_000) ** 2 / 2_000 for index in range(3)) < 13.8


def test_choice_is_repeated_by_its_seed() -> None:
    """The same seed makes the same choices."""

    async def choices(seed: int) -> list[int]:
        dice = random.Random(seed)
        closed = [Channel[int](), Channel[int]()]
        for channel in closed:
            channel.close()
        cases = [receive(channel) for channel in closed]
        return [cases.index(await select(*cases, random=dice)) for _ in range(50)]  # type: ignore[arg-type]  # no outcome

    assert bubble(choices, 3) == bubble(choices, 3) != bubble(choices, 4)


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


@pytest.mark.parametrize(
    ("is_ready", "options", "expected", "seconds"),
    [
        (True, {"default": True}, None, 0),
        (True, {"timeout_seconds": 0}, None, 0),
        (True, {"timeout_seconds": -1}, None, 0),
        (True, {"timeout_seconds": 5}, None, 0),
        (False, {"default": True}, Outcome.DEFAULT, 0),
        (False, {"default": True, "timeout_seconds": 5}, Outcome.DEFAULT, 0),
        (False, {"timeout_seconds": 0}, Outcome.TIMEOUT, 0),
        (False, {"timeout_seconds": -1}, Outcome.TIMEOUT, 0),
        (False, {"timeout_seconds": 5}, Outcome.TIMEOUT, 5),
    ],
)
def test_default_and_timeout(
    is_ready: bool, options: dict[str, float], expected: Outcome | None, seconds: float
) -> None:
    """A ready case beats default and a timeout of 0; default never waits; a timeout takes its time."""

    async def main() -> None:
        channel = filled(*([1] if is_ready else []))
        case = receive(channel)
        chosen = await select(case, **options)  # type: ignore[arg-type]  # a table of keyword arguments
        assert chosen is (case if expected is None else expected)
        assert asyncio.get_running_loop().time() == seconds
        assert channel.statistics().waiting_receivers == 0

    bubble(main)


@pytest.mark.parametrize("cases", [(), (None,), (None, None)])
def test_select_of_none_waits_for_its_timeout_or_a_cancel(cases: tuple[None, ...]) -> None:
    """Cases of None never happen: default and timeout apply, and without them only a cancel ends the select."""

    async def main() -> None:
        assert await select(*map(receive, cases), default=True) is Outcome.DEFAULT
        assert await select(*map(receive, cases), timeout_seconds=5) is Outcome.TIMEOUT
        selecting: asyncio.Task[Case | Outcome] = asyncio.create_task(select(*map(receive, cases)))
        await asyncio.sleep(3600)
        assert not selecting.done()
        selecting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await selecting

    bubble(main)


def test_case_of_none_is_skipped() -> None:
    """A select goes by its other cases."""

    async def main() -> None:
        ready = receive(filled(1))
        assert await select(receive(None), send(None, 1), ready) is ready
        waiting = receive(channel := Channel[int]())
        selecting = asyncio.create_task(select(send(None, 1), waiting))
        await wait_idle()
        await channel.send(1)
        assert await selecting is waiting

    bubble(main)


def test_receive_from_a_closed_channel_is_ready_and_says_so() -> None:
    """Against another ready case both outcomes occur within 1,000 rounds, and the closed one has no value."""

    async def main() -> None:
        closed: Channel[int] = Channel()
        closed.close()
        seen = set()
        for _ in range(1_000):
            ended, other = receive(closed), receive(filled(1))
            chosen = await select(ended, other)
            seen.add(chosen is ended)
            assert not ended.ok
            with pytest.raises(EndOfChannel):
                _ = ended.value
        assert seen == {True, False}

    bubble(main)


def test_send_to_a_closed_channel_raises_when_it_is_chosen() -> None:
    """Against another ready case both outcomes occur within 1,000 rounds: ChannelClosedError, or the other case."""

    async def main() -> None:
        for capacity in (0, 1):
            closed: Channel[int] = Channel(capacity)
            closed.close()
            seen = set()
            for _ in range(1_000):
                other = receive(filled(1))
                try:
                    seen.add(await select(send(closed, 1), other) is other)
                except ChannelClosedError:
                    seen.add(False)
            assert seen == {True, False}

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


def test_select_with_default_hands_over_as_send_nowait_does() -> None:
    """A select that may not wait sends to a receiver that waits, and does not wait for it to resume."""

    async def main() -> None:
        channel: Channel[int] = Channel()
        assert await select(send(channel, 1), default=True) is Outcome.DEFAULT
        taking = asyncio.create_task(channel.receive())
        await wait_idle()
        sending = send(channel, 2)
        assert await select(sending, default=True) is sending
        assert not taking.done()
        assert await taking == 2

    bubble(main)


def test_case_can_be_used_again() -> None:
    """A case made once serves select after select, and holds the latest value."""

    async def main() -> None:
        channel = filled(1, 2)
        case = receive(channel)
        values = []
        for _ in range(2):
            assert await select(case) is case
            values.append(case.value)
        channel.close()
        assert await select(case) is case
        assert values == [1, 2]
        assert not case.ok

    bubble(main)


def test_after_is_a_timeout_that_selects_share() -> None:
    """One ``after`` limits a whole loop of selects."""

    async def main() -> int:
        channel: Channel[int] = Channel()
        limit = receive(after(10))
        rounds = 0
        while await select(limit, receive(channel), timeout_seconds=3) is not limit:
            rounds += 1
        assert asyncio.get_running_loop().time() == 10
        return rounds

    assert bubble(main) == 3


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
