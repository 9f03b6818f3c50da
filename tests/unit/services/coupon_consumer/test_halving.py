"""Rows that Postgres refuses: what is found, what is kept, and in which order, whatever ends it in the middle."""

import asyncio
from random import Random

import pytest

from loyalty.event import encode
from patterns import bubble
from runtime.kafka_batch import Batch
from services.coupon_consumer.decode import Decoded, Poison
from services.coupon_consumer.errors import OwnershipLostError
from services.coupon_consumer.event_row import EventRow, decode_row
from services.coupon_consumer.store import Progress, Saved, Work, save_by_halves
from tests.support.coupon_events import some_event
from tests.support.fake_coupon_store import FakeCouponStore
from tests.support.fake_kafka_client import record
from tests.support.seeds import thousand_seeds
from tests.unit.services.coupon_consumer.member import Member

Place = tuple[int | None, int | None]


def row(reward_id: str = "rw-1", **fields: object) -> EventRow:
    """Return a row of a coupon of its own."""
    event = some_event(reward_id=reward_id, **fields)
    return decode_row(encode(event), event.coupon.code.encode())


def some_work(chance: Random) -> Work:
    """Return work of some partitions with good rows, refused ones, poison and gaps, in any numbers."""
    progress, rows, records, poison = [], [], [], []
    for partition in chance.sample(range(6), chance.randint(1, 4)):
        first = offset = chance.randint(0, 50)
        for _ in range(chance.choice([0, 1, 2, 7, 30])):
            offset += chance.choice([0, 0, 0, 5])
            kind = chance.choice(["good", "good", "bad", "poison"])
            if kind == "poison":
                poison.append(Poison(record(partition, offset), "NotJsonError", "why"))
            else:
                rows.append(row(f"rw-{kind}"))
                records.append(record(partition, offset))
            offset += 1
        progress.append(Progress("id-1", partition, first, offset + chance.randint(1, 3)))
    return Work(progress, rows, records, poison)


def places(poison: list[Poison]) -> list[Place]:
    """Return where poison was read, sorted."""
    return sorted((each.record.partition() or 0, each.record.offset() or 0) for each in poison)


@thousand_seeds
def test_each_refused_row_is_a_dead_letter_and_everything_else_is_stored(seeds: range) -> None:
    """Whatever is refused where: each partition moves by parts that follow on one another, each with its own rows."""

    async def scenario(chance: Random) -> None:
        store, work = FakeCouponStore(), some_work(chance)
        begins = {("id-1", step.partition): step.expected for step in work.progress}
        store.offsets = dict(begins)
        total = Saved(0, 0, 0)

        def note(part: Work, saved: Saved) -> None:
            nonlocal total
            total = Saved(*(sum(pair) for pair in zip(_counts(total), _counts(saved), strict=True)))
            steps = {step.partition: step for step in part.progress}
            for step in part.progress:
                assert begins["id-1", step.partition] == step.expected
                begins["id-1", step.partition] = step.next_offset
            for each in [*part.records, *(letter.record for letter in part.poison)]:
                step = steps[each.partition() or 0]
                assert step.expected <= (each.offset() or 0) < step.next_offset

        await save_by_halves(store, work, note)
        refused = [index for index, each in enumerate(work.rows) if each.reward_id == "rw-bad"]
        good = {each.code for each in work.rows if each.reward_id == "rw-good"}
        expected = [*work.poison, *(Poison(work.records[index], "", "") for index in refused)]
        assert places(store.dead_letters) == places(expected)
        assert set(store.coupons) == good
        assert store.offsets == begins == {("id-1", step.partition): step.next_offset for step in work.progress}
        assert total == Saved(len(good), 0, len(expected))

    for seed in seeds:
        asyncio.run(scenario(Random(seed)))


def _counts(saved: Saved) -> tuple[int, int, int]:
    return saved.stored, saved.skipped, saved.dead_lettered


def test_batch_without_a_refused_row_is_one_transaction() -> None:
    """Several partitions and their poison are one call of the store, as they came."""

    async def scenario() -> None:
        store, noted = FakeCouponStore(), []
        store.offsets = {("id-1", 0): 0, ("id-1", 1): 5}
        progress = [Progress("id-1", 0, 0, 2), Progress("id-1", 1, 5, 6)]
        poison = [Poison(record(1, 5), "NotJsonError", "why")]
        work = Work(progress, [row(), row()], [record(0, 0), record(0, 1)], poison)
        await save_by_halves(store, work, lambda part, _: noted.append(part))
        assert noted == [work]
        assert store.tries == 1

    asyncio.run(scenario())


def test_refused_newer_version_leaves_the_older_one() -> None:
    """Of two versions of a coupon the newer one is found and the older one is stored."""

    async def scenario() -> None:
        store = FakeCouponStore()
        store.offsets = {("id-1", 0): 0}
        old = row()
        rows = [old, old._replace(version="2", reward_id="rw-bad")]
        work = Work([Progress("id-1", 0, 0, 2)], rows, [record(0, 0), record(0, 1)], [])
        await save_by_halves(store, work, lambda _, __: None)
        assert list(store.coupons.values()) == [old]
        assert places(store.dead_letters) == [(0, 1)]

    asyncio.run(scenario())


class SlowStore(FakeCouponStore):
    """Takes a second for each transaction, and is away for the one whose number it is told."""

    def __init__(self, away_at: int = 0) -> None:
        super().__init__()
        self._away_at = away_at

    async def save(self, work: Work) -> Saved:
        """Store slowly."""
        await asyncio.sleep(1)
        if self.tries + 1 == self._away_at:
            self.failures = 1
        return await super().save(work)


def refused_batches(member: Member) -> list[Batch[Decoded]]:
    """Return what is left of two partitions' batches of which every fourth row is refused, with poison at the end."""
    rewards = ["rw-1", "rw-1", "rw-1", "rw-bad"] * 4
    return [
        member.batch([some_event(reward_id=reward) for reward in rewards], partition=partition, poison=1)
        for partition in (0, 1)
    ]


async def assert_stored_once(member: Member) -> None:
    """Check that what `refused_batches` made is settled, each record once, and counted so."""
    assert places(member.store.dead_letters) == [(p, offset) for p in (0, 1) for offset in (3, 7, 11, 15, 16)]
    assert len(member.store.coupons) == 24
    assert member.store.offsets == {("id-1", 0): 17, ("id-1", 1): 17}
    assert member.metric("lp_consumer_records_total", outcome="stored") == 24
    assert member.metric("lp_consumer_records_total", outcome="skipped") == 0
    assert member.metric("lp_consumer_records_total", outcome="dead_lettered") == 10
    assert member.bytes_held() == 0
    assert member.consumer._ledger.take_stored() == {0: 17, 1: 17}
    await member.handler.check()


def test_batch_that_takes_longer_than_a_try_is_stored_over_several() -> None:
    """Each try keeps what it stored and the next one goes on behind it; nothing is read again, nothing counts twice."""

    async def scenario() -> None:
        member = Member(store=SlowStore())
        await member.place(0, 1)
        member.orders()
        await asyncio.wait_for(member.handler.handle(member.ctx, refused_batches(member)), 1_000)
        assert (member.metric("lp_consumer_tries_total", outcome="unavailable") or 0) >= 2
        assert member.metric("lp_consumer_tries_total", outcome="ownership_lost") == 0
        assert member.orders() == {}
        await assert_stored_once(member)

    bubble(scenario)


@pytest.mark.parametrize("away_at", range(1, 40, 3))
def test_database_that_goes_away_in_the_middle_costs_nothing(away_at: int) -> None:
    """Wherever in the halving it goes, what is stored by then stays, and the rest follows once."""

    async def scenario() -> None:
        member = Member(store=SlowStore(away_at))
        member.handler._try_seconds = 1_000
        await member.place(0, 1)
        await member.handler.handle(member.ctx, refused_batches(member))
        assert member.metric("lp_consumer_tries_total", outcome="unavailable") == 1
        await assert_stored_once(member)

    bubble(scenario)


def test_partition_lost_in_the_middle_costs_the_others_nothing() -> None:
    """What was stored of them stays, the rest is stored; the lost one is to be placed again, and nothing more of it."""

    async def scenario() -> None:
        class Losing(FakeCouponStore):
            """Gives partition 1 to another member as soon as something of partition 0 is stored."""

            async def save(self, work: Work) -> Saved:
                """Store, and lose the other partition."""
                saved = await super().save(work)
                self.offsets["id-1", 1] = 3
                return saved

        member = Member(store=Losing())
        await member.place(0, 1, 2)
        member.orders()
        batches = [*refused_batches(member), member.batch([some_event()], partition=2)]
        await member.handler.handle(member.ctx, batches)
        assert member.store.offsets == {("id-1", 0): 17, ("id-1", 1): 3, ("id-1", 2): 1}
        assert places(member.store.dead_letters) == [(0, offset) for offset in (3, 7, 11, 15, 16)]
        assert member.orders() == {1: None}
        assert member.metric("lp_consumer_records_total", outcome="dead_lettered") == 5
        assert member.metric("lp_consumer_records_total", outcome="stored") == 13
        assert member.bytes_held() == 0

    bubble(scenario)


def test_refused_row_is_never_blamed_for_a_database_that_lost_ownership() -> None:
    """An error that is no refusal comes out at once, and nothing is buried."""

    async def scenario() -> None:
        store = FakeCouponStore()
        store.offsets = {("id-1", 0): 9}
        work = Work([Progress("id-1", 0, 0, 1)], [row("rw-bad")], [record(0, 0)], [])
        with pytest.raises(OwnershipLostError):
            await save_by_halves(store, work, lambda _, __: None)
        assert (store.tries, store.dead_letters) == (1, [])

    asyncio.run(scenario())
