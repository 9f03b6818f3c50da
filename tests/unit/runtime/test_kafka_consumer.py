"""The loop's side, with the thread running on a fake at the client's edge: reads, generations, failures, the end."""

import asyncio
import threading
import time
from typing import Self, cast

import pytest

from patterns import Context, ContextCancelled, background
from runtime.kafka_batch import Assigned, Batch, KafkaReadError
from runtime.kafka_consumer import KafkaConsumer
from tests.support.fake_kafka_client import FakeKafkaClient, Step, record
from tests.support.fault_report import FaultReport
from tests.support.kafka_world import Offsets, assign, offsets_of, raise_in_callback, some_settings
from tests.support.ledger import judge_units
from tests.support.seeds import seeded


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


@pytest.mark.fault("K14", "reads cancelled at random, before and after they were answered")
async def test_cancelled_reads_lose_no_record(fault_report: FaultReport) -> None:
    """A read that is cancelled has taken nothing: each record comes out once, in order, from one that is not."""
    random = seeded("cancel")
    records = [record(0, offset) for offset in range(300)]
    member = Member(assign(0), chunk_records=1, queue_batches=2)
    member.client.logs[0] = records
    seen: list[tuple[str, str]] = []
    cancelled = 0
    async with member:
        await member.place_all(0)
        while len(seen) < len(records):
            reading = asyncio.create_task(member.batches())
            for _ in range(random.randrange(5)):
                await asyncio.sleep(0)
            if random.random() < 0.5:
                reading.cancel()
            await asyncio.wait({reading})
            if reading.cancelled():
                cancelled += 1
                continue
            found = reading.result()
            with member.consumer.working(found):
                seen += [(str(offset), "") for batch in found for offset in batch.content]
                member.consumer.settle(found)
    assert cancelled
    produced = [(str(each.offset()), "") for each in records]
    assert seen == produced
    fault_report.judge(judge_units(produced, produced, seen))


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
