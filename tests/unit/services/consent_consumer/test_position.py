"""The ledger of a stream, against a plain model of it and at its bounds."""

import asyncio
from dataclasses import dataclass, field

import pytest
from bson import Timestamp
from hypothesis import given
from hypothesis import strategies as st

from patterns import WouldBlock, bubble
from services.consent_consumer.position import StreamLedger
from services.consent_consumer.store import Position


def place(number: int, *, seconds: int = 100, is_invalidate: bool = False) -> Position:
    """Return the position of the n-th event."""
    return Position(Timestamp(seconds, number), {"_data": f"e{number}"}, is_invalidate)


@dataclass
class Model:
    """What a ledger is in the fewest words: the events in order, which are done, and the quiet tokens between them."""

    events: list[Position] = field(default_factory=list)
    done: set[int] = field(default_factory=set)
    quiet: dict[int, dict[str, str]] = field(default_factory=dict)

    @property
    def prefix(self) -> int:
        """How many events there are before the first one that is not done."""
        return next((n for n in range(len(self.events)) if n not in self.done), len(self.events))

    @property
    def farthest(self) -> tuple[dict[str, str] | None, Timestamp | None]:
        """The token and the time that may be saved."""
        prefix = self.prefix
        time = self.events[prefix - 1].cluster_time if prefix else None
        if prefix in self.quiet:
            return self.quiet[prefix], time
        return (dict(self.events[prefix - 1].token or {}) if prefix else None), time


steps = st.lists(
    st.one_of(
        st.just(("read", 0)),
        st.just(("quiet", 0)),
        st.just(("save", 0)),
        st.tuples(st.just("settle"), st.integers(0, 50)),
    ),
    max_size=80,
)


@given(steps=steps, in_flight_max=st.integers(1, 8))
def test_ledger_agrees_with_its_model_after_every_step(steps: list[tuple[str, int]], in_flight_max: int) -> None:
    """Whatever is read, settled in any order, and quiet in between: what may be saved, what is held, what is full."""
    ledger, model = StreamLedger(in_flight_max), Model()
    saved: Position | None = None
    for step, (kind, choice) in enumerate(steps):
        unsettled = [n for n in range(len(model.events)) if n not in model.done]
        if kind == "read":
            event = place(len(model.events) + 1)
            if len(model.events) - model.prefix >= in_flight_max:
                with pytest.raises(WouldBlock):
                    ledger.register_nowait(event)
            else:
                assert ledger.register_nowait(event) == len(model.events)
                model.events.append(event)
        elif kind == "settle" and unsettled:
            number = unsettled[choice % len(unsettled)]
            ledger.settle(number)
            model.done.add(number)
        elif kind == "quiet":
            quiet_token = {"_data": f"q{step}"}
            ledger.quiet(quiet_token)
            model.quiet[len(model.events)] = quiet_token
        elif kind == "save" and (position := ledger.savable()) is not None:
            ledger.saved(position)
            saved = position

        token, time = model.farthest
        position = ledger.savable() or saved
        assert (position.token if position else None) == token
        assert position is None or time in {None, position.cluster_time}
        shown = ledger.statistics()
        assert shown.held == len(model.events) - model.prefix <= in_flight_max
        assert shown.unsettled == len(model.events) - len(model.done)
        assert (shown.registered, shown.settled) == (len(model.events), len(model.done))


def test_nothing_is_savable_before_anything_is_known() -> None:
    """A ledger without a beginning has none; one with it has nothing to save that was not read from there."""
    assert StreamLedger(1).savable() is None
    assert StreamLedger(1, place(7)).savable() is None


def test_what_is_saved_is_not_savable_again_until_the_stream_moves() -> None:
    """A save that failed is asked for again, one that went through is not."""
    ledger = StreamLedger(10, place(1))
    ledger.settle(ledger.register_nowait(place(2)))
    assert ledger.savable() == ledger.savable() == place(2)
    ledger.saved(place(2))
    assert ledger.savable() is None
    ledger.settle(ledger.register_nowait(place(3)))
    assert ledger.savable() == place(3)


def test_event_that_is_settled_while_an_earlier_save_is_under_way_is_savable_after_it() -> None:
    """To note what was saved notes that and nothing newer."""
    ledger = StreamLedger(10)
    ledger.settle(ledger.register_nowait(place(1)))
    under_way = ledger.savable()
    ledger.settle(ledger.register_nowait(place(2)))
    assert under_way == place(1)
    ledger.saved(under_way)

    assert ledger.savable() == place(2)


def test_invalidate_stays_one_when_the_quiet_token_is_its_own() -> None:
    """Behind an invalidate the stream's token is that event's, which opens a stream by startAfter alone."""
    ledger = StreamLedger(10)
    ledger.settle(ledger.register_nowait(place(1, is_invalidate=True)))
    ledger.quiet({"_data": "e1"}, Timestamp(200, 1))
    assert ledger.savable() == place(1, is_invalidate=True)
    ledger.quiet({"_data": "q"})

    assert ledger.savable() == Position(Timestamp(100, 1), {"_data": "q"})


def test_quiet_time_moves_the_cluster_time_forward_and_never_back() -> None:
    """The time that is saved with a quiet token is the later one of the last event's and the given one."""
    ledger = StreamLedger(10, place(5))
    ledger.quiet({"_data": "q1"}, Timestamp(50, 1))
    assert ledger.savable() == Position(Timestamp(100, 5), {"_data": "q1"})
    ledger.quiet({"_data": "q2"}, Timestamp(300, 1))
    assert ledger.savable() == Position(Timestamp(300, 1), {"_data": "q2"})


def test_event_older_than_the_one_before_is_refused() -> None:
    """A step back would make a save of it a step back; events of one transaction have the same time."""
    ledger = StreamLedger(10, place(5))
    ledger.register_nowait(place(5))
    with pytest.raises(ValueError, match="behind one of"):
        ledger.register_nowait(place(4))


def test_event_is_settled_once() -> None:
    """Who settles what is settled, or was never read, is told so."""
    ledger = StreamLedger(10)
    number = ledger.register_nowait(place(1))
    ledger.settle(number)
    for wrong in (number, number + 1, -1):
        with pytest.raises(ValueError, match="not unsettled"):
            ledger.settle(wrong)


def test_bound_below_one_is_refused() -> None:
    """A ledger that holds nothing would wait for ever."""
    with pytest.raises(ValueError, match="in_flight_max"):
        StreamLedger(0)
    with pytest.raises(ValueError, match="unsaved_max"):
        StreamLedger(1, unsaved_max=0)


def test_reader_waits_until_what_is_settled_is_saved() -> None:
    """While no save goes through no more is read than the bound; a save makes room for what it covers, and no more."""

    async def scene() -> None:
        ledger = StreamLedger(10, unsaved_max=2)
        for number in (1, 2):
            ledger.settle(await ledger.register(place(number)))
        reader = asyncio.create_task(ledger.register(place(3)))
        await asyncio.sleep(3_600)
        assert not reader.done()
        saving = ledger.savable()
        assert saving == place(2)
        ledger.saved(saving)
        ledger.settle(await reader)
        ledger.settle(await ledger.register(place(4)))
        with pytest.raises(WouldBlock):
            ledger.register_nowait(place(5))

    bubble(scene)


def test_what_a_death_has_read_again_is_less_than_both_bounds_together() -> None:
    """All that was read may be settled when the first save goes through, and none of it saved."""
    ledger = StreamLedger(3, unsaved_max=3)
    for number in (1, 2):
        ledger.settle(ledger.register_nowait(place(number)))
    held = [ledger.register_nowait(place(number)) for number in (3, 4, 5)]
    with pytest.raises(WouldBlock):
        ledger.register_nowait(place(6))
    ledger.settle(*held)
    with pytest.raises(WouldBlock):
        ledger.register_nowait(place(6))
    assert ledger.statistics().settled == 5


def test_reader_waits_on_when_room_is_gone_before_its_turn() -> None:
    """A save makes room and what was held takes it, both before the reader that waits can run."""

    async def scene() -> None:
        ledger = StreamLedger(10, unsaved_max=1)
        ledger.settle(await ledger.register(place(1)))
        reader = asyncio.create_task(ledger.register(place(3)))
        await asyncio.sleep(1)
        saving = ledger.savable()
        assert saving is not None
        ledger.saved(saving)
        ledger.settle(ledger.register_nowait(place(2)))
        await asyncio.sleep(1)
        assert not reader.done()
        saving = ledger.savable()
        assert saving is not None
        ledger.saved(saving)
        assert await reader == 2

    bubble(scene)


def test_a_save_covers_nothing_that_was_settled_while_it_was_under_way() -> None:
    """That still counts as unsaved afterwards."""
    ledger = StreamLedger(10, unsaved_max=2)
    ledger.settle(ledger.register_nowait(place(1)))
    saving = ledger.savable()
    assert saving is not None
    ledger.settle(ledger.register_nowait(place(2)))
    ledger.saved(saving)
    ledger.settle(ledger.register_nowait(place(3)))
    with pytest.raises(WouldBlock):
        ledger.register_nowait(place(4))


def test_a_save_is_due_when_half_of_what_may_be_unsaved_is() -> None:
    """So a stream at full speed is saved before it has to wait; where nothing is saved it never is due."""

    async def scene() -> None:
        ledger, unbounded = StreamLedger(10, unsaved_max=4), StreamLedger(10)
        due = [asyncio.create_task(each.wait_due()) for each in (ledger, unbounded)]
        for number in (1, 2):
            assert not due[0].done()
            for each in (ledger, unbounded):
                each.settle(each.register_nowait(place(number)))
            await asyncio.sleep(1)
        assert [task.done() for task in due] == [True, False]
        due[1].cancel()
        saving = ledger.savable()
        assert saving is not None
        ledger.saved(saving)
        again = asyncio.create_task(ledger.wait_due())
        await asyncio.sleep(1)
        assert not again.done()
        again.cancel()
        await asyncio.wait([again, due[1]])

    bubble(scene)


def test_reader_waits_until_the_first_event_is_settled() -> None:
    """To settle a later one makes no room: it would be read again after a death as well."""

    async def scene() -> None:
        ledger = StreamLedger(2)
        first, second = [await ledger.register(place(n)) for n in (1, 2)]
        reader = asyncio.create_task(ledger.register(place(3)))
        ledger.settle(second)
        await asyncio.sleep(3_600)
        assert not reader.done()
        ledger.settle(first)
        assert await reader == 2

    bubble(scene)


def test_cancelled_reader_has_read_nothing() -> None:
    """The event that waited for room is not in the ledger."""

    async def scene() -> None:
        ledger = StreamLedger(1)
        number = await ledger.register(place(1))
        reader = asyncio.create_task(ledger.register(place(2)))
        await asyncio.sleep(1)
        reader.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reader
        ledger.settle(number)
        assert ledger.statistics().registered == 1
        assert ledger.savable() == place(1)

    bubble(scene)


def test_oldest_age_is_that_of_the_first_event_held() -> None:
    """It is told in seconds, and 0 when none is held."""
    now = 1_000.0
    ledger = StreamLedger(10, clock=lambda: now)
    first = ledger.register_nowait(place(1))
    now += 5
    second = ledger.register_nowait(place(2))
    now += 2
    assert ledger.statistics().oldest_seconds == 7
    ledger.settle(first)
    assert ledger.statistics().oldest_seconds == 2
    ledger.settle(second)
    assert ledger.statistics().oldest_seconds == 0
