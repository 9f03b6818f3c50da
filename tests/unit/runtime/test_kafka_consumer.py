"""The thread and the loop's side of it, on a fake at the client's edge: positions, bounds, generations, errors."""

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Self, cast

import pytest
from confluent_kafka import Consumer, KafkaError

from patterns import Channel, Context, ContextCancelled, EndOfChannel, WouldBlock, background
from runtime.consumer_settings import ConsumerSettings
from runtime.kafka_batch import Assigned, Batch, KafkaReadError
from runtime.kafka_consumer import KafkaConsumer
from runtime.kafka_reader import KafkaReader, Record
from runtime.partition_ledger import PartitionLedger
from tests.support.fake_kafka_client import FakeKafkaClient, Step, error_event, record

Offsets = list[int | None]


def offsets_of(records: Sequence[Record]) -> Offsets:
    """Stand in for decoding: a batch's content is its offsets."""
    return [each.offset() for each in records]


def some_settings(settings: dict[str, object]) -> ConsumerSettings:
    """Return settings with these, and short times."""
    return ConsumerSettings.model_validate({"topic": "events", "poll_timeout_seconds": 0.001, **settings})


def nothing(_: FakeKafkaClient) -> None:
    """Let one poll pass."""


class World:
    """A reader that runs in the test's own thread over a scripted client: nothing is left to timing."""

    def __init__(self, *script: Step, capacity: int = 100, **settings: object) -> None:
        self.settings = some_settings(settings)
        self.ctx: Context = background().with_cancel()
        self.client = FakeKafkaClient(script, self.ctx.cancel)
        self.ledger = PartitionLedger(self.settings.queue_bytes)
        self.channel: Channel[Batch[Offsets] | Assigned] = Channel(capacity)
        self.points: list[str] = []
        self.reader = KafkaReader(
            self.settings,
            {},
            self.ledger,
            self.channel,
            offsets_of,
            build=self.client.build,
            reach=self.points.append,
        )

    def run(self) -> "list[Batch[Offsets] | Assigned]":
        """Run the reader to the end of its script and return what it handed over; it must not fail."""
        self.reader.run(self.ctx)
        assert self.reader.failure is None
        return self.handed_over()

    def run_to_failure(self) -> Exception:
        """Run the reader until it fails and return with what; it must have closed everything."""
        self.reader.run(self.ctx)
        assert self.reader.failure is not None
        assert self.channel.is_closed
        return self.reader.failure

    def handed_over(self) -> "list[Batch[Offsets] | Assigned]":
        """Take what is in the channel."""
        taken: list[Batch[Offsets] | Assigned] = []
        while True:
            try:
                taken.append(self.channel.receive_nowait())
            except (WouldBlock, EndOfChannel):
                return taken

    def place(self, partition: int, offset: int) -> Step:
        """Return a step in which the loop places a partition under its current generation."""

        def step(_: FakeKafkaClient) -> None:
            generation = self.ledger.generation(partition)
            assert generation is not None
            self.reader.order(partition, generation, offset)

        return step

    def script(self, *steps: Step) -> None:
        """Add steps that refer to this world."""
        self.client._script.extend(steps)


def fill(world: World, partition: int, offsets: Sequence[int]) -> None:
    """Put records into a partition's log."""
    world.client.logs[partition] = [record(partition, offset) for offset in offsets]


def batches(items: "Sequence[Batch[Offsets] | Assigned]") -> list[tuple[int, Offsets]]:
    """Return partition and offsets of each batch."""
    return [(item.partition, item.content) for item in items if isinstance(item, Batch)]


def assign(*partitions: int) -> Step:
    """Return a step in which partitions are assigned."""
    return lambda client: client.assign_to_us(*partitions)


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


def test_fatal_error_of_the_client_ends_the_reading() -> None:
    """After it the client reads nothing more, so neither do we: the failure says so."""
    world = World(lambda client: client.settings["error_cb"](KafkaError(KafkaError._FATAL, "fenced", True)))
    assert isinstance(world.run_to_failure(), KafkaReadError)
    assert world.client.is_closed


@pytest.mark.parametrize("code", [KafkaError.ILLEGAL_GENERATION, KafkaError.REBALANCE_IN_PROGRESS, KafkaError._STATE])
def test_failed_kafka_commit_affects_nothing(code: int) -> None:
    """Whether it fails at once or later, reading goes on."""
    world = World(assign(0), commit_interval_seconds=0.000_001)
    fill(world, 0, range(2))
    world.client.commit_error = KafkaError(code)

    def store(client: FakeKafkaClient) -> None:
        world.ledger.stored(0, 1)
        client.settings["on_commit"](KafkaError(code), [])

    world.script(store, world.place(0, 0), nothing, nothing)
    assert batches(world.run()) == [(0, [0, 1])]
    assert world.reader.statistics().commits_failed == 2


def raise_in_callback(client: FakeKafkaClient) -> None:
    """Stand in for an exception in a callback, which the client raises out of the poll, losing what it held."""
    client.consume(5, 0)
    raise LookupError("in a callback")


def test_exception_in_a_callback_ends_the_reading_and_skips_nothing() -> None:
    """The error is kept, the consumer is closed, and no later record was handed over in the place of a lost one."""
    world = World(assign(0))
    fill(world, 0, range(5))
    world.script(world.place(0, 0), raise_in_callback, nothing)
    assert isinstance(world.run_to_failure(), LookupError)
    assert world.client.is_closed
    assert batches(world.handed_over()) == []


def test_client_that_cannot_be_built_is_a_failure_of_the_reading() -> None:
    """Settings that the client refuses come out as the failure, and the channel is closed."""
    world = World()
    world.reader._build = cast("Callable[..., Any]", lambda _: (_ for _ in ()).throw(ValueError("no such setting")))
    assert isinstance(world.run_to_failure(), ValueError)


def test_client_may_neither_commit_nor_reset_by_itself() -> None:
    """Where to read is ours to say, and the group's protocol and membership are settings."""
    classic = ConsumerSettings(group_instance_id="one").client_settings()
    assert classic["enable.auto.commit"] is False
    assert classic["enable.auto.offset.store"] is False
    assert classic["auto.offset.reset"] == "error"
    assert classic["partition.assignment.strategy"] == "cooperative-sticky"
    assert classic["group.instance.id"] == "one"
    newer = ConsumerSettings(group_protocol="consumer").client_settings()
    assert newer["group.protocol"] == "consumer"
    assert not {"partition.assignment.strategy", "session.timeout.ms"} & newer.keys()


# The loop's side, with the thread running.


class Member:
    """A consumer with its real thread over the scripted client, which goes on polling after its script."""

    def __init__(self, *script: Step, **settings: object) -> None:
        self.client = FakeKafkaClient(script, lambda: None)
        self.ctx: Context = background().with_cancel()
        self.consumer: KafkaConsumer[Offsets] = KafkaConsumer(
            some_settings(settings), {}, offsets_of, build=self.client.build
        )

    async def __aenter__(self) -> Self:
        self.consumer.start(self.ctx)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.consumer.aclose()

    async def assigned(self) -> Assigned:
        """Read what must be an assignment."""
        item = await self.consumer.read(self.ctx, records_max=100)
        assert isinstance(item, Assigned)
        return item

    async def place_all(self, offset: int) -> Assigned:
        """Read an assignment and place all of it."""
        assigned = await self.assigned()
        for partition, generation in assigned.generations.items():
            self.consumer.place(partition, generation, offset)
        return assigned

    async def batches(self) -> list[Batch[Offsets]]:
        """Read what must be batches."""
        item = await self.consumer.read(self.ctx, records_max=100)
        assert isinstance(item, list)
        return item


async def test_read_returns_what_waits_from_all_partitions() -> None:
    """Batches come in the order of each partition's offsets, several partitions in one read."""
    member = Member(assign(0, 1))
    for partition in (0, 1):
        member.client.logs[partition] = [record(partition, offset) for offset in range(3)]
    async with member:
        await member.place_all(0)
        seen: dict[int, Offsets] = {0: [], 1: []}
        while sum(map(len, seen.values())) < 6:
            found = await member.batches()
            with member.consumer.working(found):
                for batch in found:
                    seen[batch.partition] += batch.content
                member.consumer.settle(found)
        assert seen == {0: [0, 1, 2], 1: [0, 1, 2]}
        assert member.consumer.statistics().ledger.bytes_held == 0


async def test_ended_context_ends_the_read_and_the_thread() -> None:
    """A read that waits raises the context's error; the thread leaves the group by itself."""
    member = Member(assign(0))
    async with member:
        await member.assigned()
        waiting = asyncio.create_task(member.consumer.read(member.ctx, records_max=1))
        await asyncio.sleep(0)
        member.ctx.cancel()
        with pytest.raises(ContextCancelled):
            await waiting
    assert member.client.is_closed


async def test_failed_reading_is_told_apart_from_a_clean_exit() -> None:
    """The read raises its own error with the cause, whoever asks, and so does the close."""
    member = Member(raise_in_callback)
    member.consumer.start(member.ctx)
    with pytest.raises(KafkaReadError) as raised:
        await member.consumer.read(member.ctx, records_max=1)
    assert isinstance(raised.value.__cause__, LookupError)
    with pytest.raises(KafkaReadError, match="thread failed"):
        await member.consumer.aclose()


async def test_failure_while_the_group_is_left_is_raised_by_the_close() -> None:
    """A stop whose last revoke fails is no clean stop."""
    error = LookupError("the coordinator")

    def fail() -> None:
        raise error

    member = Member()
    member.client.close = fail  # type: ignore[method-assign] # the fault under test
    member.consumer.start(member.ctx)
    with pytest.raises(KafkaReadError) as raised:
        await member.consumer.aclose()
    assert raised.value.__cause__ is error


async def test_batch_of_an_older_generation_is_dropped_before_the_work() -> None:
    """A batch read before its partition was repositioned never reaches the work; its bytes come back once."""
    member = Member(assign(0))
    member.client.logs[0] = [record(0, 0)]
    async with member:
        assigned = await member.place_all(0)
        found = await member.batches()
        member.consumer.reposition(assigned.generations)
        for _ in range(2):
            with member.consumer.working(found):
                assert found == []
        assert member.consumer.statistics().ledger.bytes_held == 0
        again = await member.assigned()
        assert again.generations[0] > assigned.generations[0]


async def test_without_the_generation_check_a_late_batch_is_stored() -> None:
    """The guard is what drops it: with the check removed the very same batch goes through."""
    member = Member(assign(0))
    member.client.logs[0] = [record(0, 0)]
    async with member:
        assigned = await member.place_all(0)
        found = await member.batches()
        member.consumer.reposition(assigned.generations)
        member.consumer._ledger.begin = lambda *_: True  # type: ignore[method-assign] # the guard, removed
        member.consumer._ledger.end = lambda *_: None  # type: ignore[method-assign] # its other half
        with member.consumer.working(found):
            assert [batch.content for batch in found] == [[0]]
        await member.assigned()


async def test_dropped_batches_are_read_again_from_where_they_are_placed() -> None:
    """After a drop nothing read earlier comes out; reading goes on from the new position."""
    member = Member(assign(0), chunk_records=1)
    member.client.logs[0] = [record(0, offset) for offset in range(4)]
    async with member:
        await member.place_all(0)
        first = await member.batches()
        with member.consumer.working(first):
            member.consumer.drop(first)
        found: list[Batch[Offsets]] = []
        while True:  # what was read under the old generation is dropped on the way
            item = await member.consumer.read(member.ctx, records_max=100)
            if isinstance(item, Assigned):
                member.consumer.place(0, item.generations[0], 2)
                break
            with member.consumer.working(item):
                assert item == []
        while sum(batch.records for batch in found) < 2:
            found += await member.batches()
        assert [offset for batch in found for offset in batch.content] == [2, 3]


async def test_thread_that_does_not_poll_is_not_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of the poll interval without a poll is told by readiness, before the group evicts the member."""
    member = Member()
    await member.consumer.check()
    now = time.monotonic()
    monkeypatch.setattr("runtime.kafka_consumer.time.monotonic", lambda: now + 151)
    with pytest.raises(KafkaReadError):
        await member.consumer.check()


@pytest.mark.parametrize(
    "settings",
    [{}, {"assignor": "range"}, {"group_protocol": "consumer"}, {"group_instance_id": "one"}],
    ids=["classic", "eager", "newer protocol", "static membership"],
)
def test_real_client_takes_the_settings(settings: dict[str, object]) -> None:
    """Every protocol and membership that can be set is one that the client knows how to be configured with."""
    client = Consumer({"bootstrap.servers": "127.0.0.1:1", "log_level": 0, **some_settings(settings).client_settings()})
    client.close()


async def test_start_twice_is_refused() -> None:
    """A consumer has one thread."""
    member = Member()
    async with member:
        with pytest.raises(RuntimeError, match="once"):
            member.consumer.start(member.ctx)


async def test_thread_that_hangs_is_left_behind_after_its_time() -> None:
    """A client that does not come out of its close costs the stop no more than its bound."""
    released = threading.Event()
    member = Member(close_timeout_seconds=0.02, revoke_wait_seconds=0.01)
    member.client.close = lambda: cast("None", released.wait())  # type: ignore[method-assign] # it hangs
    member.consumer.start(member.ctx)
    with pytest.raises(KafkaReadError, match="left behind"):
        await member.consumer.aclose()
    released.set()
    await member.consumer.aclose()
