"""Where a partition begins, and what the watch beside the reading notices."""

import asyncio
import time
from collections.abc import Collection, Mapping

import pytest

from patterns import bubble
from runtime.errors import DependencyUnavailable
from runtime.kafka_batch import Assigned
from services.coupon_consumer.errors import OffsetOutOfRangeError
from services.coupon_consumer.position import Start
from tests.support.coupon_events import some_event
from tests.unit.services.coupon_consumer.member import Member


@pytest.mark.parametrize(("start", "offset"), [("earliest", 4), ("latest", 90)])
def test_first_start_is_where_the_settings_say(start: Start, offset: int) -> None:
    """A group that never saw the topic begins at its beginning or end, and that is stored."""

    async def scenario() -> None:
        member = Member(start=start)
        member.topic.first, member.topic.end = 4, 90
        await member.place(0)
        assert member.orders() == {0: offset}
        assert member.store.offsets["id-1", 0] == offset

    bubble(scenario)


def test_stored_offset_goes_before_the_settings() -> None:
    """A partition that has one goes on there, others of the same assignment begin."""

    async def scenario() -> None:
        member = Member()
        member.store.offsets["id-1", 1] = 17
        await member.place(0, 1)
        assert member.orders() == {0: 0, 1: 17}

    bubble(scenario)


def test_group_that_begins_at_the_end_does_so_in_all_partitions_at_once() -> None:
    """What is written before another member reads its partition is not skipped."""

    async def scenario() -> None:
        member = Member(start="latest")
        await member.place(0)
        member.topic.end = 140
        await member.place(1, 2)
        assert member.orders() == {0: 100, 1: 100, 2: 100}

    bubble(scenario)


def test_partition_that_is_added_later_is_read_from_its_beginning() -> None:
    """The group's first start was before it: to begin at its end would skip what nobody has seen. The lag counts it."""

    async def scenario() -> None:
        member = Member(start="latest")
        await member.place(0, 1, 2)
        member.orders()
        member.topic.partitions = (0, 1, 2, 3)
        member.topic.end = 140
        await member.watch.look()
        assert member.metric("lp_consumer_lag_records", partition="3") == 140
        await member.place(3)
        assert member.orders() == {3: 0}
        assert member.store.offsets["id-1", 3] == 0

    bubble(scenario)


def test_two_members_that_begin_at_once_agree() -> None:
    """Whoever stores its beginning first decides, for all partitions; the other one reads on from there."""

    async def scenario() -> None:
        late = Member(start="latest")
        first_offsets = late.positions.first_offsets

        async def ask_and_be_overtaken(
            topic_id: str, partitions: Collection[int], stored: Mapping[int, int]
        ) -> dict[int, int]:
            offsets = await first_offsets(topic_id, partitions, stored)
            early = Member(start="latest", store=late.store)
            early.topic.end = 90
            await early.place(0)
            assert early.orders() == {0: 90}
            return offsets

        late.positions.first_offsets = ask_and_be_overtaken  # type: ignore[method-assign] # the interleaving, forced
        await late.place(1, 2)
        assert late.orders() == {1: 90, 2: 90}

    bubble(scenario)


def test_topic_made_anew_is_read_from_its_beginning() -> None:
    """Its old offsets mean nothing, and starting at its end would skip what nobody has seen."""

    async def scenario() -> None:
        member = Member(start="latest")
        await member.place(0)
        member.topic.topic_id = "id-2"
        await member.place(0)
        assert member.orders() == {0: 0}
        assert member.store.offsets == {("id-1", p): 100 for p in range(3)} | {("id-2", p): 0 for p in range(3)}

    bubble(scenario)


def test_offset_out_of_range_ends_the_reading_unless_the_topic_was_made_anew() -> None:
    """Records that are gone unread are never jumped over in silence; the error names the way out."""

    async def scenario() -> None:
        member = Member()
        await member.place(0)
        member.orders()
        lost = Assigned(member.consumer._ledger.assign([0]), is_out_of_range=True)
        with pytest.raises(OffsetOutOfRangeError, match="reset-offsets"):
            await member.handler.handle(member.ctx, lost)
        assert member.orders() == {}
        member.topic.topic_id = "id-2"
        await member.handler.handle(member.ctx, lost)
        assert member.orders() == {0: 0}

    bubble(scenario)


def test_partition_that_is_taken_away_before_it_is_placed_keeps_nothing_waiting() -> None:
    """A topic made anew with fewer partitions: the lost one is tried until the group takes it, the rest is placed."""

    async def scenario() -> None:
        member = Member()
        await member.place(0, 1)
        member.orders()
        member.topic.topic_id, member.topic.partitions = "id-2", (0,)
        placing = asyncio.create_task(member.place(0, 1))
        await asyncio.sleep(60)
        assert not placing.done()
        with pytest.raises(DependencyUnavailable):
            await member.handler.check()
        member.consumer._ledger.revoke([1])
        await asyncio.wait_for(placing, 60)
        assert member.orders() == {0: 0}
        assert member.store.offsets == {("id-1", 0): 0, ("id-1", 1): 0, ("id-2", 0): 0}
        await member.handler.check()

    bubble(scenario)


def test_lost_records_of_a_partition_that_is_no_longer_ours_do_not_end_the_reading() -> None:
    """What an older generation asked for is its next owner's to judge."""

    async def scenario() -> None:
        member = Member()
        await member.place(0)
        member.orders()
        lost = Assigned(member.consumer._ledger.assign([0]), is_out_of_range=True)
        member.consumer._ledger.revoke([0])
        await member.handler.handle(member.ctx, lost)
        assert member.orders() == {}

    bubble(scenario)


def test_watch_notices_a_topic_made_anew() -> None:
    """All its partitions are to be placed again."""

    async def scenario() -> None:
        member = Member()
        await member.place(0, 1)
        member.orders()
        member.topic.topic_id = "id-2"
        await member.watch.look()
        assert member.orders() == {0: None, 1: None}

    bubble(scenario)


def test_watch_follows_offsets_that_were_moved() -> None:
    """Only the partition whose stored offset changed under us is placed again, and not while it is in work."""

    async def scenario() -> None:
        member = Member()
        await member.place(0, 1)
        member.orders()
        member.store.offsets["id-1", 1] = 50
        batch = member.batch([some_event()], partition=1)
        with member.consumer.working([batch]):
            await member.watch.look()
            assert member.orders() == {}
        await member.watch.look()
        assert member.orders() == {1: None}

    bubble(scenario)


def test_watch_does_not_mistake_our_own_progress_for_a_move() -> None:
    """A batch that is stored between the question and its answer repositions nothing."""

    async def scenario() -> None:
        member = Member()
        await member.place(0)
        member.orders()
        load_offsets = member.store.load_offsets

        async def load_and_progress(topic_id: str, partitions: "object") -> dict[int, int]:
            offsets = await load_offsets(topic_id, partitions)  # type: ignore[arg-type] # passed on
            await member.handler.handle(member.ctx, [member.batch([some_event()])])
            return offsets

        member.store.load_offsets = load_and_progress  # type: ignore[method-assign] # the interleaving, forced
        await member.watch.look()
        assert member.orders() == {}

    bubble(scenario)


def test_watch_measures_the_lag_of_the_whole_group() -> None:
    """Lag is the end less what is stored, for partitions of ours, of another member, of nobody and never begun."""

    async def scenario() -> None:
        member = Member()

        async def lag() -> list[float | None]:
            await member.watch.look()
            return [member.metric("lp_consumer_lag_records", partition=str(partition)) for partition in range(3)]

        member.topic.first = 7
        assert await lag() == [93, 93, 93]
        member.topic.first = 0
        await member.place(0, 1)
        await member.handler.handle(member.ctx, [member.batch([some_event()])])
        member.store.offsets["id-1", 2] = 40
        assert await lag() == [99, 100, 60]
        member.consumer._ledger.revoke([0, 1])
        member.topic.end = 110
        assert await lag() == [109, 110, 70]

    bubble(scenario)


def test_end_that_a_fetch_told_counts_while_the_partition_is_ours() -> None:
    """The brokers may name a lower one; after a revoke only they are asked."""

    async def scenario() -> None:
        member = Member()
        await member.place(0)
        member.consumer._reader._ends[0] = 104
        await member.watch.look()
        assert member.metric("lp_consumer_lag_records", partition="0") == 104
        member.consumer._ledger.revoke([0])
        await member.watch.look()
        assert member.metric("lp_consumer_lag_records", partition="0") == 100

    bubble(scenario)


def test_partition_that_the_topic_has_no_more_has_no_lag() -> None:
    """A topic made anew with fewer partitions leaves no old numbers behind."""

    async def scenario() -> None:
        member = Member()
        await member.watch.look()

        member.topic.topic_id, member.topic.partitions = "id-2", (0, 1)
        await member.watch.look()
        assert member.metric("lp_consumer_lag_records", partition="1") == 100
        assert member.metric("lp_consumer_lag_records", partition="2") is None

    bubble(scenario)


def test_silent_brokers_make_it_not_ready_after_their_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A short silence passes; a long one is told by readiness; an answer ends it."""

    async def scenario() -> None:
        member = Member()
        await member.watch.look()
        member.topic.is_silent = True
        with pytest.raises(DependencyUnavailable):
            await member.watch.look()
        await member.watch.check()
        now = time.monotonic()
        monkeypatch.setattr("services.coupon_consumer.watch.time.monotonic", lambda: now + 11)
        with pytest.raises(DependencyUnavailable):
            await member.watch.check()
        member.topic.is_silent = False
        await member.watch.look()
        await member.watch.check()

    bubble(scenario)
