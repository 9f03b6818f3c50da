"""Channels and selects, whatever is done with them: they do what a model of plain lists does."""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from random import Random
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from patterns import (
    Case,
    Channel,
    ChannelClosedError,
    EndOfChannel,
    Outcome,
    Receive,
    WouldBlock,
    receive,
    select,
    select_sync,
    send,
)
from patterns.bubble import BubbleLoop, wait_idle
from tests.unit.patterns.channel_model import ChannelModel, Ending, Party, Want

TIMEOUT_SECONDS = 10.0
NUMBERS = st.integers(0, 2)
WANTS = st.lists(st.tuples(NUMBERS, st.booleans()), min_size=1, max_size=3)


class ChannelMachine(RuleBasedStateMachine):
    """Do one thing at a time to some channels, let everybody come to rest, and compare with the model.

    Whoever could have had several things may have any one of them; the model follows what really happened.
    """

    def __init__(self) -> None:
        super().__init__()
        self.loop = BubbleLoop()
        self.faults: list[object] = []
        self.loop.set_exception_handler(lambda _, fault: self.faults.append(fault))
        self.tasks: dict[int, asyncio.Task[Ending]] = {}
        self.channels: list[Channel[int]] = []
        self.model = ChannelModel([])
        self.dice = Random(0)
        self.next_name = 0

    @initialize(capacities=st.lists(st.sampled_from([0, 1, 3]), min_size=1, max_size=3), seed=st.integers(0, 99))
    def open(self, capacities: list[int], seed: int) -> None:
        """Begin with one, two or three channels."""
        self.dice.seed(seed)
        self.channels = [Channel(capacity) for capacity in capacities]
        self.model = ChannelModel(capacities)

    @rule(number=NUMBERS, is_send=st.booleans())
    def wait_for_one(self, number: int, is_send: bool) -> None:
        """Send or receive in a task."""
        self.arrive(self.party([(number, is_send)]), self.alone)

    @rule(wants=WANTS, has_timeout=st.booleans())
    def wait_for_any(self, wants: list[tuple[int, bool]], has_timeout: bool) -> None:
        """Select in a task, with or without a timeout."""
        self.arrive(self.party(wants, has_timeout), self.choose)

    @rule(number=NUMBERS, is_send=st.booleans(), is_blocking_form=st.booleans())
    def try_one(self, number: int, is_send: bool, is_blocking_form: bool) -> None:
        """Send or receive without waiting, outside the loop: by the form for any thread, or by the blocking one."""
        (want,) = wants = self.party([(number, is_send)]).wants
        self.tried(wants, self.attempt_blocking(want) if is_blocking_form else self.attempt(want))

    @rule(wants=WANTS, is_in_loop=st.booleans())
    def try_any(self, wants: list[tuple[int, bool]], is_in_loop: bool) -> None:
        """Select with a default, in the loop or outside it."""
        party = self.party(wants)
        cases = self.cases(party)
        try:
            if is_in_loop:
                chosen = self.loop.run_until_complete(select(*cases, default=True, random=self.dice))
            else:
                chosen = select_sync(*cases, default=True, random=self.dice)
        except ChannelClosedError:
            self.tried(party.wants, Ending("closed"))
            return
        assert chosen is not Outcome.TIMEOUT
        self.tried(party.wants, None if chosen is Outcome.DEFAULT else ending_of(chosen, cases, party.wants))

    @rule(number=NUMBERS)
    def close(self, number: int) -> None:
        """Close a channel, perhaps again."""
        number %= len(self.channels)
        if self.model.channels[number].is_closed:
            with pytest.raises(ChannelClosedError):
                self.channels[number].close()
            return
        self.channels[number].close()
        self.model.close(number)
        self.settle()

    @rule()
    def pass_time(self) -> None:
        """Let more time pass than any select waits."""
        self.loop.run_until_complete(asyncio.sleep(TIMEOUT_SECONDS))
        self.model.pass_time()
        self.settle()

    @precondition(lambda self: self.model.waiting)
    @rule(index=st.integers(0, 9))
    def cancel(self, index: int) -> None:
        """Cancel somebody who waits."""
        party = self.model.waiting[index % len(self.model.waiting)]
        self.tasks[party.name].cancel()
        self.model.cancel(party)
        self.settle()

    # Cancels in the tick of a match.

    @precondition(lambda self: self.model.waiting)
    @rule(index=st.integers(0, 9), wants=WANTS, is_alone=st.booleans())
    def send_as_somebody_is_cancelled(self, index: int, wants: list[tuple[int, bool]], is_alone: bool) -> None:
        """Send, and cancel a waiting party before it can resume: the send finds somebody else, or waits itself."""
        victim = self.model.waiting[index % len(self.model.waiting)]
        party = self.party([(number, True) for number, _ in wants[: 1 if is_alone else None]])
        self.model.cancel(victim)
        self.arrive(party, self.alone if is_alone else self.choose, self.tasks[victim.name].cancel)

    @precondition(lambda self: any(self.model.first_receiver(number) for number in range(len(self.channels))))
    @rule(number=NUMBERS)
    def hand_over_as_the_receiver_is_cancelled(self, number: int) -> None:
        """Send without waiting and cancel the receiver at once: the value is for the next, or stays."""
        number %= len(self.channels)
        if (victim := self.model.first_receiver(number)) is None:
            return
        value = self.new_name()
        self.channels[number].send_nowait(value)
        self.tasks[victim.name].cancel()
        self.model.cancel(victim)
        self.model.give(number, value)
        self.settle()

    @precondition(lambda self: any(self.model.first_sender(number) for number in range(len(self.channels))))
    @rule(number=NUMBERS)
    def take_as_the_sender_is_cancelled(self, number: int) -> None:
        """Receive without waiting and cancel the sender that this lets go on: its value has been sent."""
        number %= len(self.channels)
        if (victim := self.model.first_sender(number)) is None:
            return
        (ending,) = self.model.endings_at_once([Want(number)])
        assert self.channels[number].receive_nowait() == ending.value
        self.model.happen(ending)
        if victim.name in self.model.ended:
            self.tasks[victim.name].cancel()
            self.model.ended[victim.name] = [Ending("cancelled")]
        self.settle()

    @rule(number=NUMBERS, is_receiver_cancelled_too=st.booleans())
    def send_and_be_cancelled(self, number: int, is_receiver_cancelled_too: bool) -> None:
        """Cancel a send right after its first step: too late for one that was matched, not for one that has to wait."""
        party = self.party([(number, True)])
        (want,) = party.wants
        assert want.value is not None
        victim = self.model.first_receiver(want.channel) if is_receiver_cancelled_too else None
        endings = self.model.endings_at_once(party.wants)
        task = self.loop.create_task(self.alone(party))
        self.loop.call_soon(task.cancel)
        if victim is not None:
            self.loop.call_soon(self.tasks[victim.name].cancel)
            self.model.cancel(victim)
        if endings and endings[0].how == "sent":
            self.model.give(want.channel, want.value)
        self.settle()
        is_done_at_once = endings and (self.model.channels[want.channel].capacity or endings[0].how == "closed")
        assert self.result(task) == (endings[0] if is_done_at_once else Ending("cancelled"))

    # What must hold at any time.

    @invariant()
    def statistics_agree(self) -> None:
        """Each channel holds, and is waited for, as the model says; nothing has failed unheard."""
        assert [channel.statistics() for channel in self.channels] == self.model.statistics()
        assert not self.faults

    def teardown(self) -> None:
        """Take what is left: the very values that the model holds; then end everybody."""
        for task in self.tasks.values():
            task.cancel()
        self.rest()
        for channel, model in zip(self.channels, self.model.channels, strict=True):
            assert [channel.receive_nowait() for _ in range(len(channel))] == model.values
            with pytest.raises((WouldBlock, EndOfChannel)):
                channel.receive_nowait()
        self.loop.close()

    # How things are done.

    def party(self, wants: list[tuple[int, bool]], has_timeout: bool = False) -> Party:
        """Make a party whose every send has a value of its own."""
        numbers = [(number % len(self.channels), is_send) for number, is_send in wants]
        return Party(
            self.new_name(),
            [Want(number, self.new_name() if is_send else None) for number, is_send in numbers],
            has_timeout,
        )

    def new_name(self) -> int:
        """Give a number that was not given before."""
        self.next_name += 1
        return self.next_name

    def arrive(
        self,
        party: Party,
        operation: Callable[[Party], Coroutine[Any, Any, Ending]],
        then: Callable[[], object] = lambda: None,
    ) -> None:
        """Let a party do something in a task of its own, and something else happen after the task's first step."""
        endings = self.model.endings_at_once(party.wants)
        task = self.tasks[party.name] = self.loop.create_task(operation(party))
        self.loop.call_soon(then)
        self.rest()
        if endings:
            ending = self.result(self.tasks.pop(party.name))
            assert ending in endings
            self.model.happen(ending)
        else:
            assert not task.done()
            self.model.waiting.append(party)
        self.settle()

    def tried(self, wants: Sequence[Want], ending: Ending | None) -> None:
        """Compare what somebody who would not wait has got, None for nothing."""
        endings = self.model.endings_at_once(wants)
        if ending is None:
            assert not endings
        else:
            assert ending in endings
            self.model.happen(ending)
        self.settle()

    def settle(self) -> None:
        """Let everybody come to rest; exactly those have ended who should have, and as they should."""
        self.rest()
        ended = {name: task for name, task in self.tasks.items() if task.done()}
        assert ended.keys() == self.model.ended.keys()
        for name, endings in self.model.ended.items():
            assert self.result(self.tasks.pop(name)) in endings
        self.model.ended.clear()

    def rest(self) -> None:
        """Run the loop until everybody waits."""
        self.loop.run_until_complete(wait_idle())

    def result(self, task: asyncio.Task[Ending]) -> Ending:
        """Return how a task ended, and that it was cancelled if it was."""
        assert task.done()
        return Ending("cancelled") if task.cancelled() else task.result()

    async def alone(self, party: Party) -> Ending:
        """Do the one thing that a party wants by itself."""
        (want,) = party.wants
        channel = self.channels[want.channel]
        try:
            if want.value is None:
                return Ending("received", want.channel, await channel.receive())
            await channel.send(want.value)
        except EndOfChannel:
            return Ending("end", want.channel)
        except ChannelClosedError:
            return Ending("closed")
        return Ending("sent", *want)

    async def choose(self, party: Party) -> Ending:
        """Do one of the things that a party wants."""
        cases = self.cases(party)
        try:
            timeout_seconds = TIMEOUT_SECONDS if party.has_timeout else None
            chosen = await select(*cases, timeout_seconds=timeout_seconds, random=self.dice)
        except ChannelClosedError:
            return Ending("closed")
        return Ending("timeout") if isinstance(chosen, Outcome) else ending_of(chosen, cases, party.wants)

    def cases(self, party: Party) -> list[Case]:
        """Make a select's cases of what a party wants."""
        return [
            receive(self.channels[number]) if value is None else send(self.channels[number], value)
            for number, value in party.wants
        ]

    def attempt(self, want: Want) -> Ending | None:
        """Do one thing by the form that never waits."""
        channel = self.channels[want.channel]
        try:
            if want.value is None:
                return Ending("received", want.channel, channel.receive_nowait())
            channel.send_nowait(want.value)
        except WouldBlock:
            return None
        except EndOfChannel:
            return Ending("end", want.channel)
        except ChannelClosedError:
            return Ending("closed")
        return Ending("sent", *want)

    def attempt_blocking(self, want: Want) -> Ending | None:
        """Do one thing by the form that blocks, for no time."""
        channel = self.channels[want.channel].sync
        try:
            if want.value is None:
                return Ending("received", want.channel, channel.receive(timeout_seconds=0))
            channel.send(want.value, timeout_seconds=0)
        except TimeoutError:
            return None
        except EndOfChannel:
            return Ending("end", want.channel)
        except ChannelClosedError:
            return Ending("closed")
        return Ending("sent", *want)


def ending_of(chosen: Case, cases: Sequence[Case], wants: Sequence[Want]) -> Ending:
    """Say what has happened when this case was chosen."""
    (index,) = [index for index, case in enumerate(cases) if case is chosen]
    want = wants[index]
    if isinstance(chosen, Receive):
        return Ending("received", want.channel, chosen.value) if chosen.ok else Ending("end", want.channel)
    return Ending("sent", *want)


@pytest.mark.timeout(60)  # a busy machine, or a coverage tracer, takes its time
def test_channels_and_selects_do_what_their_model_does() -> None:
    """Any 30 sends, receives, selects, closes, cancels and timeouts on one to three channels agree with the model."""
    run_state_machine_as_test(ChannelMachine, settings=settings(max_examples=100, stateful_step_count=30))


@pytest.mark.thorough
@pytest.mark.timeout(300)
def test_channels_and_selects_do_what_their_model_does_for_long() -> None:
    """The same with 1,000 runs of 50 steps."""
    run_state_machine_as_test(ChannelMachine, settings=settings(max_examples=1_000, stateful_step_count=50))
