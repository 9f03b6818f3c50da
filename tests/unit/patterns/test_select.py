"""select: exactly one case, a fair choice, defaults, timeouts, closed channels."""

import asyncio
import random
from collections import Counter

import pytest

from patterns import Case, Channel, ChannelClosedError, EndOfChannel, Outcome, after, receive, select, send
from patterns.bubble import bubble, wait_idle


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


def test_case_that_lost_forgets_what_it_received_before() -> None:
    """A case that is used again and not chosen says so, whether or not it was looked at."""

    async def main() -> Counter[bool]:
        losses: Counter[bool] = Counter()
        channels = filled(0), filled(1)
        cases = [receive(channel) for channel in channels]
        for _ in range(100):
            chosen = await select(*cases)
            is_second = chosen is cases[1]
            assert [case.ok for case in cases] == [not is_second, is_second]
            with pytest.raises(EndOfChannel):
                _ = cases[not is_second].value
            losses[is_second] += 1
            channels[is_second].send_nowait(is_second)
        return losses

    assert bubble(main).keys() == {True, False}


def test_loser_of_two_ready_cases_is_untouched() -> None:
    """With a send and a receive ready, one has happened and the other has not, 200 times of 200."""

    async def main() -> None:
        for _ in range(200):
            source, target = filled(1), Channel[int](1)
            chosen = await select(receiving := receive(source), sending := send(target, 2))
            assert (len(source), len(target)) == ((0, 0) if chosen is receiving else (1, 1))
            assert chosen in (receiving, sending)

    bubble(main)


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
        (False, {"timeout_seconds": 0.5}, Outcome.TIMEOUT, 0.5),
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


@pytest.mark.parametrize("options", [{"default": True}, {"timeout_seconds": 0}, {"timeout_seconds": -1}])
def test_select_that_may_not_wait_hands_over_as_send_nowait_does(options: dict[str, float]) -> None:
    """It sends to a receiver that waits, and does not wait for it to resume."""

    async def main() -> None:
        channel: Channel[int] = Channel()
        outcome = await select(send(channel, 1), **options)  # type: ignore[arg-type]  # as above
        assert outcome is (Outcome.DEFAULT if "default" in options else Outcome.TIMEOUT)
        taking = asyncio.create_task(channel.receive())
        await wait_idle()
        sending = send(channel, 2)
        assert await select(sending, **options) is sending  # type: ignore[arg-type]  # as above
        assert not taking.done()
        assert await taking == 2

    bubble(main)


def test_case_that_no_select_has_seen_has_received_nothing() -> None:
    """It may be asked all the same."""
    case = receive(filled(1))
    assert not case.ok
    with pytest.raises(EndOfChannel):
        _ = case.value


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
