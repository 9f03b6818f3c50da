"""The thread's side, on a fake at the client's edge: positions, bounds, rebalances, errors."""

import threading
from collections.abc import Callable
from typing import Any, cast

import pytest
from confluent_kafka import OFFSET_BEGINNING, KafkaError

from runtime.kafka_batch import Assigned, Batch, KafkaReadError
from tests.support.fake_kafka_client import FakeKafkaClient, error_event, record
from tests.support.fault_report import FaultReport
from tests.support.kafka_world import (
    Offsets,
    World,
    assign,
    batches,
    fill,
    judge_offsets,
    nothing,
    raise_in_callback,
)


def test_assigned_partition_stands_still_until_it_is_placed() -> None:
    """It is paused and reported; after the place the thread seeks, resumes, and delivers from there."""
    world = World(assign(0, 1), nothing)
    fill(world, 0, range(10))
    fill(world, 1, range(10))
    world.script(world.place(0, 7), nothing, nothing)
    items = world.run()
    assigned = items[0]
    assert isinstance(assigned, Assigned)
    assert assigned.generations.keys() == {0, 1}
    assert not assigned.is_out_of_range
    assert batches(items) == [(0, [7, 8, 9])]
    assert 1 in world.client.paused
    assert world.client.is_closed


def test_reading_goes_on_where_it_was_placed_with_gaps() -> None:
    """Offsets may have gaps; the next offset is the one behind the last record."""
    world = World(assign(0), chunk_records=2)
    fill(world, 0, [3, 5, 9, 10])
    world.script(world.place(0, 4), nothing, nothing, nothing, nothing)
    found = [item for item in world.run() if isinstance(item, Batch)]
    assert [(item.first_offset, item.next_offset, item.records) for item in found] == [(5, 10, 2), (10, 11, 1)]


def test_seek_that_comes_too_early_is_tried_again() -> None:
    """Right after an assignment the client refuses a seek; the order is kept and no record is delivered before it."""
    world = World(assign(0))
    world.client.unready_seeks = 2
    fill(world, 0, range(3))
    world.script(world.place(0, 1), nothing, nothing, nothing, nothing)
    assert batches(world.run()) == [(0, [1, 2])]


@pytest.fixture
def quick_seeks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refused seeks are borne for no longer than a moment."""
    monkeypatch.setattr("runtime.kafka_reader._SEEK_SECONDS_FIRST", 1e-6)
    monkeypatch.setattr("runtime.kafka_reader._SEEK_SECONDS_MOST", 1e-6)


def stop_first(client: FakeKafkaClient) -> None:
    """Stand in for the answer to a fetch from an offset that is gone."""
    client.stopped = {0}


@pytest.mark.usefixtures("quick_seeks")
def test_partition_in_which_no_seek_works_any_more_is_got_anew() -> None:
    """The group is left and joined once: each partition is assigned anew, placed anew, and read from there."""
    world = World(assign(0, 1), stop_first)
    fill(world, 0, range(3))
    fill(world, 1, range(3))
    world.script(world.place(1, 1), world.place(0, 1), nothing, assign(0, 1), world.place(0, 1), world.place(1, 3))
    world.script(nothing, nothing)
    items = world.run()
    assert [call[0] for call in world.client.calls if "subscribe" in call[0]] == [
        "subscribe",
        "unsubscribe",
        "subscribe",
    ]
    assert batches(items) == [(1, [1, 2]), (0, [1, 2])]
    assert [sorted(item.generations) for item in items if isinstance(item, Assigned)] == [[0, 1], [0, 1]]


@pytest.mark.usefixtures("quick_seeks")
def test_partition_in_which_no_seek_works_in_new_assignments_either_ends_the_reading() -> None:
    """After five times anew the reading fails, so that whoever keeps the process starts it with a new client."""
    world = World()
    for _ in range(7):
        world.script(assign(0), stop_first, world.place(0, 1), nothing)
    failure = world.run_to_failure()
    assert isinstance(failure, KafkaReadError)
    assert "refuses to seek" in str(failure)
    assert world.client.calls.count(("unsubscribe",)) == 5


@pytest.mark.parametrize("assignor", ["cooperative-sticky", "range"])
def test_partition_is_assigned_at_whatever_it_begins_with(assignor: str) -> None:
    """A number might be gone from the broker by now, and then a real client never lets anybody seek there again."""
    begins: list[int] = []
    world = World(assign(0), assignor=assignor)
    world.script(lambda client: begins.append(client.positions[0]), nothing)
    world.run()
    assert begins == [OFFSET_BEGINNING]


def test_place_of_an_older_generation_is_ignored() -> None:
    """An answer that comes after the partition went and came back moves nothing."""
    world = World(assign(0))
    stale: list[int] = []
    fill(world, 0, range(3))
    world.script(
        lambda _: stale.append(cast("int", world.ledger.generation(0))),
        lambda client: client.lose(0),
        assign(0),
        lambda _: world.reader.order(0, stale[0], 2),
        nothing,
        nothing,
    )
    assert batches(world.run()) == []
    assert not [call for call in world.client.calls if call[0] == "seek"]


def test_step_backwards_is_refused_and_the_partition_placed_anew() -> None:
    """Records at offsets that were read before are dropped; the partition is reported to be placed again."""
    world = World(assign(0))
    fill(world, 0, range(5))

    def rewind(client: FakeKafkaClient) -> None:
        client.positions[0] = 2

    world.script(world.place(0, 0), nothing, rewind, nothing, world.place(0, 5), nothing)
    items = world.run()
    assert batches(items) == [(0, [0, 1, 2, 3, 4])]
    assert [type(item) for item in items] == [Assigned, Batch, Assigned]
    assert world.reader.statistics().records_dropped == 3


def test_offsets_that_do_not_rise_within_a_chunk_are_refused() -> None:
    """A chunk with a doubled offset is dropped whole: none of it is handed over."""
    world = World(assign(0))
    fill(world, 0, [0, 1, 1, 2])

    def doubled(client: FakeKafkaClient) -> None:
        client.events.extend([record(0, 0), record(0, 1), record(0, 1)])

    world.client.logs.clear()
    world.script(world.place(0, 0), nothing, doubled, nothing)
    assert batches(world.run()) == []


def test_full_channel_pauses_and_polling_goes_on() -> None:
    """While nobody takes batches the partitions stand still, every poll is made, and nothing is lost or doubled."""
    taken: list[Batch[Offsets] | Assigned] = []
    world = World(assign(0), capacity=1, chunk_records=1)
    fill(world, 0, range(6))
    paused: list[bool] = []

    def take(_: FakeKafkaClient) -> None:
        paused.append(world.reader.statistics().is_paused)
        taken.extend(world.handed_over())

    look = [lambda _: paused.append(world.reader.statistics().is_paused)] * 5
    world.script(take, world.place(0, 0), nothing, *look, *[take] * 20)
    taken += world.run()
    assert batches(taken) == [(0, [offset]) for offset in range(6)]
    assert True in paused
    assert paused[-1] is False
    assert world.client.paused == set()


def test_bytes_out_stop_the_reading_until_they_come_back() -> None:
    """Batches handed over and not settled count against the bound in bytes, even if the channel has room."""
    world = World(assign(0), chunk_records=1, queue_bytes=65_536)
    world.client.logs[0] = [record(0, offset, value=b"x" * 40_000) for offset in range(3)]
    seen: list[int] = []

    def look(_: FakeKafkaClient) -> None:
        seen.append(world.ledger.statistics().bytes_held)

    def settle(_: FakeKafkaClient) -> None:
        world.ledger.give_bytes(40_259)

    world.script(
        world.place(0, 0), nothing, nothing, nothing, look, settle, nothing, look, settle, nothing, nothing, look
    )
    assert batches(world.run()) == [(0, [0]), (0, [1]), (0, [2])]
    assert seen == [40_259] * 3
    assert world.ledger.statistics().bytes_peak == 40_259


def test_revoked_partition_is_given_up_after_its_work_and_committed() -> None:
    """The revoke waits for the work under way, tells Kafka how far it came, and later batches are dropped."""
    world = World(assign(0, 1), capacity=2, chunk_records=1)
    fill(world, 0, range(4))

    def finish_while_revoking() -> None:
        world.ledger.stored(0, 1)
        world.ledger.end(0)

    def revoke(client: FakeKafkaClient) -> None:
        assert world.ledger.begin(0, cast("int", world.ledger.generation(0)))
        finisher = threading.Timer(0.0, finish_while_revoking)
        finisher.start()
        client.revoke(0)
        finisher.join()

    world.script(world.place(0, 0), nothing, nothing, nothing, revoke, nothing)
    world.run()
    calls = [call for call in world.client.calls if call[0] in {"commit", "unassign"}]
    assert calls[:2] == [("commit", (0, 1)), ("unassign", 0)]
    assert world.reader.statistics().revoked == 2  # the other one when the consumer closes
    assert "in-revoke" in world.points


def test_revoke_waits_no_longer_than_its_bound() -> None:
    """Work that does not end is left behind; the partition is given up all the same."""
    world = World(assign(0), revoke_wait_seconds=0.01)

    def revoke(client: FakeKafkaClient) -> None:
        assert world.ledger.begin(0, cast("int", world.ledger.generation(0)))
        client.revoke(0)

    world.script(revoke)
    world.run()
    assert ("unassign", 0) in world.client.calls
    assert world.ledger.is_in_work(0)


def test_lost_partition_is_given_up_at_once_without_a_commit() -> None:
    """Somebody else may own it already: nothing is waited for, nothing committed."""
    world = World(assign(0), revoke_wait_seconds=5, commit_interval_seconds=80_000)

    def lose(client: FakeKafkaClient) -> None:
        assert world.ledger.begin(0, cast("int", world.ledger.generation(0)))
        world.ledger.stored(0, 3)
        client.lose(0)

    world.script(nothing, lose)
    world.run()
    assert not [call for call in world.client.calls if call[0] == "commit"]
    assert world.reader.statistics().lost == 1


def test_eager_assignor_takes_and_gives_up_everything() -> None:
    """With an assignor of the older kind the client's older calls are used."""
    world = World(assign(0, 1), lambda client: client.revoke(0, 1), assignor="range")
    world.run()
    assert [call for call in world.client.calls if "assign" in call[0]] == [("assign all", 0, 1), ("unassign all",)]


def test_offset_out_of_range_is_reported_for_a_placed_partition() -> None:
    """The partition stands still and is reported as out of range; before it was placed the error means nothing."""
    world = World(assign(0))

    def out_of_range(client: FakeKafkaClient) -> None:
        client.events.append(error_event(KafkaError._AUTO_OFFSET_RESET, 0))

    world.script(out_of_range, nothing, world.place(0, 50), nothing, out_of_range, nothing)
    items = [item for item in world.run() if isinstance(item, Assigned)]
    assert [item.is_out_of_range for item in items] == [False, True]
    assert 0 in world.client.paused


def test_passing_error_of_the_client_is_no_end() -> None:
    """Brokers that are away, or a topic not there yet, leave the reading as it is."""
    world = World(assign(0))
    fill(world, 0, range(2))

    def trouble(client: FakeKafkaClient) -> None:
        client.events.append(error_event(KafkaError._ALL_BROKERS_DOWN))
        client.settings["error_cb"](KafkaError(KafkaError._TRANSPORT))

    world.script(trouble, world.place(0, 0), nothing, nothing, nothing)
    assert batches(world.run()) == [(0, [0, 1])]
    assert world.reader.statistics().errors == 2
    assert world.client.settings["log_level"] == 2  # the client's own lines on them, tens a second, are off


@pytest.mark.parametrize("is_marked", [True, False], ids=["marked", "by its code alone"])
def test_fatal_error_of_the_client_ends_the_reading(is_marked: bool) -> None:
    """After it the client reads nothing more, so neither do we: the failure says so. A real one has no mark."""
    world = World(lambda client: client.settings["error_cb"](KafkaError(KafkaError._FATAL, "fenced", is_marked)))
    assert isinstance(world.run_to_failure(), KafkaReadError)
    assert world.client.is_closed


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.fault("K8", f"each commit to Kafka fails: {name}"))
        for name in ("ILLEGAL_GENERATION", "REBALANCE_IN_PROGRESS", "COORDINATOR_NOT_AVAILABLE", "_STATE")
    ],
)
def test_failed_kafka_commit_affects_nothing(name: str, fault_report: FaultReport) -> None:
    """Whether it fails at once or later, reading goes on."""
    code = getattr(KafkaError, name)
    world = World(assign(0), commit_interval_seconds=0.000_001)
    fill(world, 0, range(2))
    world.client.commit_error = KafkaError(code)

    def store(client: FakeKafkaClient) -> None:
        world.ledger.stored(0, 1)
        client.settings["on_commit"](KafkaError(code), [])

    world.script(store, world.place(0, 0), nothing, nothing)
    items = world.run()
    assert batches(items) == [(0, [0, 1])]
    fault_report.judge(judge_offsets(world, items))
    assert world.reader.statistics().commits_failed == 2


@pytest.mark.fault("K14", "an exception in a callback, out of a poll that held records")
def test_exception_in_a_callback_ends_the_reading_and_skips_nothing(fault_report: FaultReport) -> None:
    """The error is kept, the consumer is closed, and no later record was handed over: the next member has them all."""
    world = World(assign(0))
    fill(world, 0, range(5))
    world.script(world.place(0, 0), raise_in_callback, nothing)
    assert isinstance(world.run_to_failure(), LookupError)
    assert world.client.is_closed
    assert batches(world.handed_over()) == []
    successor = World(assign(0))
    fill(successor, 0, range(5))
    successor.script(successor.place(0, 0), nothing, nothing)
    fault_report.judge(judge_offsets(successor, successor.run()))


def test_client_that_cannot_be_built_is_a_failure_of_the_reading() -> None:
    """Settings that the client refuses come out as the failure, and the channel is closed."""
    world = World()
    world.reader._build = cast("Callable[..., Any]", lambda _: (_ for _ in ()).throw(ValueError("no such setting")))
    assert isinstance(world.run_to_failure(), ValueError)
