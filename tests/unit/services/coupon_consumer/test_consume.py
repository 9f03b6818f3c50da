"""Reading and storing on a virtual clock: clean exits, tries, lost ownership, floods."""

import asyncio
from collections.abc import Callable

import pytest

from loyalty.event import encode
from patterns import bubble
from runtime.errors import DependencyUnavailable
from runtime.kafka_batch import Batch, KafkaReadError
from services.coupon_consumer.consume import consume_messages
from services.coupon_consumer.decode import Decoded
from services.coupon_consumer.errors import PoisonFloodError
from services.coupon_consumer.settings import RetrySettings
from services.coupon_consumer.store import Saved, Work
from tests.support.coupon_events import some_event
from tests.support.fake_coupon_store import FakeCouponStore
from tests.support.fake_kafka_client import record
from tests.unit.services.coupon_consumer.member import Member

LONG_AWAY = 20


def test_ended_context_is_a_clean_exit_after_the_batch_in_hand() -> None:
    """Whatever was read is stored before the loop returns; what still waits in the channel is not."""

    async def scenario() -> None:
        member = Member()

        class Stopping(FakeCouponStore):
            """Is told to stop while it stores."""

            async def save(self, work: Work) -> Saved:
                """Store slowly."""
                member.ctx.cancel()
                await asyncio.sleep(1)
                return await super().save(work)

        member.store = member.handler._store = member.positions._store = Stopping()
        await member.place(0)
        events = [some_event(), some_event()]
        member.hand_over(member.batch(events[:1]))
        member.hand_over(member.batch(events[1:], first=1))
        await consume_messages(member.ctx, member.consumer, member.handler, batch_records=1)
        assert set(member.store.coupons) == {events[0].coupon.code}

    bubble(scenario)


class SlowStore(FakeCouponStore):
    """Takes a second to store, and then does what it was told."""

    def __init__(self, then: Callable[[], object]) -> None:
        super().__init__()
        self._then = then

    async def save(self, work: Work) -> Saved:
        """Store slowly."""
        await asyncio.sleep(1)
        self._then()
        return await super().save(work)


def test_next_batch_is_decoded_while_one_is_stored() -> None:
    """When a slow store has done its work the next batch waits ready; a stop leaves it to the next owner."""

    async def scenario() -> None:
        left: list[int] = []

        def look_and_stop() -> None:
            left.append(len(ahead.content.waiting))
            member.ctx.cancel()

        member = Member(store=SlowStore(look_and_stop))
        await member.place(0)
        events = [some_event(), some_event()]
        ahead = member.batch(events[1:], first=1)
        ahead.content.waiting = [record(0, 1, encode(events[1]), events[1].coupon.code.encode())]
        member.hand_over(member.batch(events[:1]))
        member.hand_over(ahead)
        await consume_messages(member.ctx, member.consumer, member.handler, batch_records=1)
        assert left == [0]
        assert set(member.store.coupons) == {events[0].coupon.code}

    bubble(scenario)


def test_batch_in_hand_is_stored_before_a_failed_read_is_raised() -> None:
    """A read that fails while a batch is being stored does not take it along."""

    async def scenario() -> None:
        member = Member(store=SlowStore(lambda: None))
        await member.place(0)
        event = some_event()
        member.hand_over(member.batch([event]))
        member.consumer._reader.failure = LookupError("in a callback")
        member.consumer._channel.close()
        with pytest.raises(KafkaReadError):
            await consume_messages(member.ctx, member.consumer, member.handler, batch_records=1)
        assert set(member.store.coupons) == {event.coupon.code}

    bubble(scenario)


def test_failed_read_is_no_clean_exit() -> None:
    """The loop raises the read's own error."""

    async def scenario() -> None:
        member = Member()
        member.consumer._reader.failure = LookupError("in a callback")
        member.consumer._channel.close()
        with pytest.raises(KafkaReadError):
            await consume_messages(member.ctx, member.consumer, member.handler, batch_records=1)

    bubble(scenario)


def test_context_that_ends_between_tries_leaves_the_batch_to_the_next_owner() -> None:
    """The loop returns at once, and nothing of the batch is stored."""

    async def scenario() -> float:
        member = Member()
        await member.place(0)
        member.store.failures = 10_000
        member.hand_over(member.batch([some_event()]))
        loop = asyncio.get_running_loop()
        loop.call_later(60, member.ctx.cancel)
        await consume_messages(member.ctx, member.consumer, member.handler, batch_records=1)
        assert member.store.coupons == {}
        return loop.time()

    assert bubble(scenario) == 60


def test_database_away_is_waited_out_with_at_most_one_try_a_second() -> None:
    """Nothing is lost or dead-lettered, tries are few and never in step, readiness is red meanwhile and then green."""

    async def scenario() -> None:
        member = Member()
        await member.place(0)
        await member.handler.check()
        member.store.failures = LONG_AWAY
        event = some_event()
        loop = asyncio.get_running_loop()
        began = loop.time()
        storing = asyncio.create_task(member.handler.handle(member.ctx, [member.batch([event])]))
        await asyncio.sleep(10)
        with pytest.raises(DependencyUnavailable):
            await member.handler.check()
        await storing
        waited = loop.time() - began
        retry = RetrySettings()
        assert member.store.tries == LONG_AWAY + 1
        assert LONG_AWAY <= waited <= LONG_AWAY * retry.most_seconds
        assert set(member.store.coupons) == {event.coupon.code}
        assert member.store.dead_letters == []
        await member.handler.check()
        assert member.metric("lp_consumer_tries_total", outcome="unavailable") == LONG_AWAY
        assert member.bytes_held() == 0

    bubble(scenario)


def test_try_that_gets_no_answer_is_given_up_and_repeated() -> None:
    """A frozen server costs a try its time and no more; if the work was done all the same, the guard finds out."""

    async def scenario() -> float:
        member = Member()

        class Frozen(FakeCouponStore):
            """Does the work of the first try and never answers it."""

            async def save(self, work: Work) -> Saved:
                """Store, and hang the first time."""
                saved = await super().save(work)
                if self.tries == 1:
                    await asyncio.sleep(10_000)
                return saved

        member.store = member.handler._store = member.positions._store = Frozen()
        await member.place(0)
        member.orders()
        event = some_event()
        loop = asyncio.get_running_loop()
        began = loop.time()
        await member.handler.handle(member.ctx, [member.batch([event])])
        assert set(member.store.coupons) == {event.coupon.code}
        assert member.store.tries == 2
        assert member.orders() == {0: None}
        assert member.bytes_held() == 0
        return loop.time() - began

    assert 10 <= bubble(scenario) <= 14


def test_placing_that_gets_no_answer_blames_whoever_may_be_to_blame() -> None:
    """Placing asks the brokers and the database: the name of one alone would send the operator to the wrong one."""

    async def scenario() -> None:
        member = Member()
        member.topic.silent_seconds = 30
        placing = asyncio.create_task(member.place(0))
        await asyncio.sleep(11)
        with pytest.raises(DependencyUnavailable, match="kafka or postgres: no answer in time"):
            await member.handler.check()
        member.topic.silent_seconds = 0
        await placing
        assert member.orders() == {0: 0}
        await member.handler.check()

    bubble(scenario)


def test_placing_is_tried_again_too() -> None:
    """A partition that comes while the database is away is placed when it is back."""

    async def scenario() -> None:
        member = Member()
        member.store.failures = 3
        await member.place(0)
        assert member.orders() == {0: 0}

    bubble(scenario)


def test_revoke_between_tries_drops_the_batch() -> None:
    """A partition that is given up while its batch waits is not stored by us, and its bytes come back."""

    async def scenario() -> None:
        member = Member()
        await member.place(0, 1)
        member.store.failures = 3
        events = [some_event(), some_event()]
        work = [member.batch(events[:1]), member.batch(events[1:], partition=1)]
        storing = asyncio.create_task(member.handler.handle(member.ctx, work))
        await asyncio.sleep(0.5)
        assert not member.consumer.is_in_work(0)
        member.consumer._ledger.revoke([0])
        await storing
        assert set(member.store.coupons) == {events[1].coupon.code}
        assert member.bytes_held() == 0

    bubble(scenario)


def test_lost_ownership_costs_only_the_partition_that_was_lost() -> None:
    """The others' records of the same batch are stored; the lost one is to be placed again, and its batch is gone."""

    async def scenario() -> None:
        member = Member()
        await member.place(0, 1)
        member.orders()
        events = [some_event(), some_event()]
        work = [member.batch(events[:1]), member.batch(events[1:], partition=1)]
        member.store.offsets["id-1", 0] = 7
        before = member.consumer.owned()
        await member.handler.handle(member.ctx, work)
        assert set(member.store.coupons) == {events[1].coupon.code}
        assert member.store.offsets == {("id-1", 0): 7, ("id-1", 1): 1}
        assert member.orders() == {0: None}
        assert member.consumer.owned()[0] > before[0]
        assert member.bytes_held() == 0
        assert member.metric("lp_consumer_tries_total", outcome="ownership_lost") == 1

    bubble(scenario)


def test_several_batches_of_a_partition_are_one_step() -> None:
    """Batches that follow on one another are stored in one transaction, from the first offset to the last."""

    async def scenario() -> None:
        member = Member()
        await member.place(0)
        events = [some_event() for _ in range(3)]
        work = [member.batch(events[:2]), member.batch(events[2:], first=5, poison=2)]
        await member.handler.handle(member.ctx, work)
        assert member.store.tries == 1
        assert member.store.offsets == {("id-1", 0): 8}
        assert set(member.store.coupons) == {event.coupon.code for event in events}
        assert [each.record.offset() for each in member.store.dead_letters] == [6, 7]
        assert member.metric("lp_consumer_records_total", outcome="stored") == 3
        assert member.metric("lp_consumer_records_total", outcome="dead_lettered") == 2
        assert member.metric("lp_consumer_batch_records_sum") == 5

    bubble(scenario)


@pytest.mark.parametrize("of", ["the decoder's", "the database's"])
def test_flood_of_poison_opens_the_breaker_and_a_healthy_batch_closes_it(of: str) -> None:
    """Once it is seen each batch waits longer than the last, readiness is red, nothing is skipped; a good one ends it.

    A row that Postgres refuses is poison as much as one that nobody understands.
    """

    async def scenario() -> None:
        member = Member()
        await member.place(0)
        loop = asyncio.get_running_loop()
        waits: list[float] = []

        def flood(first: int) -> Batch[Decoded]:
            if of == "the decoder's":
                return member.batch([], first=first, poison=10)
            return member.batch([some_event(reward_id="rw-bad") for _ in range(10)], first=first)

        async def wait_for(batch: Batch[Decoded]) -> None:
            began = loop.time()
            await member.handler.handle(member.ctx, [batch])
            waits.append(loop.time() - began)

        for number in range(4):
            await wait_for(flood(10 * number))
            with pytest.raises(PoisonFloodError):
                await member.handler.check()
        assert member.metric("lp_consumer_breaker_open") == 1
        assert len(member.store.dead_letters) == 40
        await wait_for(member.batch([some_event() for _ in range(10)], first=40))
        await member.handler.check()
        assert member.metric("lp_consumer_breaker_open") == 0
        await wait_for(member.batch([some_event()], first=50))
        assert waits[0] == waits[-1] == 0
        assert all(5 * 2**n / 2 <= wait <= 5 * 2**n for n, wait in enumerate(waits[1:-1]))
        assert member.store.offsets == {("id-1", 0): 51}

    bubble(scenario)


def test_flood_that_no_try_comes_to_the_end_of_opens_the_breaker_too() -> None:
    """What a try stored before it was given up counts."""

    async def scenario() -> None:
        member = Member(store=SlowStore(lambda: None))
        member.handler._try_seconds = 50
        await member.place(0)
        events = [some_event(reward_id="rw-bad") for _ in range(40)]
        storing = asyncio.create_task(member.handler.handle(member.ctx, [member.batch(events)]))
        await asyncio.wait({storing}, timeout=50.5)
        assert member.metric("lp_consumer_tries_total", outcome="unavailable") == 1
        assert member.metric("lp_consumer_breaker_open") == 1
        await storing

    bubble(scenario)


def test_programming_error_is_not_waited_out() -> None:
    """Anything that is not a state of a server ends the reading at once."""

    async def scenario() -> None:
        member = Member()
        await member.place(0)
        member.store.tries = None  # type: ignore[assignment] # the mistake
        with pytest.raises(TypeError):
            await member.handler.handle(member.ctx, [member.batch([some_event()])])

    bubble(scenario)
