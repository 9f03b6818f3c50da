"""The relay on a fake outbox and a fake broker, on virtual time."""

import asyncio
import math
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from uuid import UUID

import pytest
from prometheus_client import CollectorRegistry

from loyalty.identifier import new_id
from patterns import background
from patterns.bubble import bubble
from runtime.errors import DeliveryUnknown, DependencyUnavailable, RecordRefusedError
from runtime.kafka_producer import Delivery, Outcome, Record
from services.reward_store.metrics import RelayMetrics
from services.reward_store.outbox import Backlog, Claim, OutboxRow
from services.reward_store.relay import Relay
from services.reward_store.settings import RelaySettings
from tests.support.fake_reward_store import FakeOutbox
from tests.support.shuffling_loop import run_shuffled

SETTINGS = RelaySettings(
    batch_rows=10,
    lease_seconds=30,
    poll_interval_seconds=5,
    backoff_first_seconds=1,
    backoff_most_seconds=8,
    refused_most_seconds=300,
)
START = datetime(2026, 11, 1, tzinfo=UTC)


def virtual_now() -> datetime:
    """Return the loop's virtual time as a date."""
    return START + timedelta(seconds=asyncio.get_running_loop().time())


def some_row(key: str = "K", text: str = "") -> OutboxRow:
    """Make a row."""
    return OutboxRow(new_id(), "coupon-events", key, (text or key).encode(), {"traceparent": "00-a-b-01"})


class FakeBroker:
    """A producer whose broker answers after a time, fails while it is down, and refuses some payloads."""

    def __init__(self, *, answer_seconds: float = 0.01) -> None:
        self.answer_seconds = answer_seconds
        self.up_at = 0.0
        self.refused: set[bytes] = set()
        self.log: list[Record] = []
        self.tries: list[float] = []
        self.tried: list[list[bytes | None]] = []

    async def publish_many(self, records: Sequence[Record]) -> list[Outcome]:
        """Keep the records, and answer for each."""
        now = asyncio.get_running_loop().time()
        self.tries.append(now)
        self.tried.append([record.value for record in records])
        if now < self.up_at:
            await asyncio.sleep(self.answer_seconds)
            return [DeliveryUnknown("kafka", "no answer") for _ in records]
        self.log += [record for record in records if record.value not in self.refused]
        await asyncio.sleep(self.answer_seconds)
        return [
            RecordRefusedError("too large") if record.value in self.refused else Delivery(record.topic, 0, 0)
            for record in records
        ]

    def times(self, payload: bytes) -> list[float]:
        """Return when a payload was handed over."""
        return [at for at, payloads in zip(self.tries, self.tried, strict=True) if payload in payloads]

    def payloads(self) -> list[bytes]:
        """Return what was published, in order."""
        return [record.value or b"" for record in self.log]


class Scene:
    """An outbox, a broker and a relay between them."""

    def __init__(self, outbox: FakeOutbox | None = None, broker: FakeBroker | None = None) -> None:
        self.outbox = outbox or FakeOutbox(virtual_now)
        self.broker = broker or FakeBroker()
        self.registry = CollectorRegistry()
        self.points: list[str] = []
        self.relay = Relay(self.outbox, self.broker, SETTINGS, RelayMetrics(self.registry), self.points.append)

    def put(self, *rows: OutboxRow) -> None:
        """Let rows wait."""
        for row in rows:
            self.outbox.put(row)

    def metric(self, name: str) -> float | None:
        """Return a metric's value."""
        return self.registry.get_sample_value(name)

    async def run_for(self, seconds: float) -> None:
        """Run the relay for a time, and stop it in order."""
        with background().with_timeout(seconds) as ctx:
            await self.relay.run(ctx)

    def unpublished(self) -> list[OutboxRow]:
        """Return the rows that are not marked."""
        return [waiting.row for waiting in self.outbox.waiting if waiting.published_at is None]


def test_rows_are_published_in_order_with_key_and_headers_and_marked() -> None:
    """The broker gets what the rows say, oldest first, and the rows are marked after its word."""

    async def scene() -> None:
        scene = Scene()
        rows = [some_row(f"K{number}") for number in range(25)]
        scene.put(*rows)
        await scene.run_for(1)
        assert [record.key for record in scene.broker.log] == [row.key.encode() for row in rows]
        assert scene.broker.log[0].headers == (("traceparent", b"00-a-b-01"),)
        assert scene.unpublished() == []
        assert scene.metric("lp_outbox_published_total") == 25
        assert scene.points[:2] == ["after-claim", "after-publish"]

    bubble(scene)


def test_a_full_batch_is_followed_by_the_next_at_once() -> None:
    """A backlog is not published at the pace of the poll."""

    async def scene() -> None:
        scene = Scene()
        scene.put(*(some_row(f"K{number}") for number in range(30)))
        await scene.run_for(1)
        assert len(scene.broker.tries) == 3
        assert scene.broker.tries[-1] < 1

    bubble(scene)


def test_a_nudge_publishes_without_waiting_for_the_poll() -> None:
    """What this process committed is on its way before the poll interval is over; unannounced rows wait for it."""

    async def scene() -> None:
        scene = Scene()
        with background().with_cancel() as ctx:
            task = asyncio.create_task(scene.relay.run(ctx))
            await asyncio.sleep(1)
            scene.put(some_row())
            for _ in range(3):
                scene.relay.nudge()
            await asyncio.sleep(0.5)
            assert scene.broker.tries == [1.0]
            scene.put(some_row("L"))
            await asyncio.sleep(10)
            assert 1.0 < scene.broker.tries[1] <= 1.0 + 2 * SETTINGS.poll_interval_seconds
            ctx.cancel()
            await task

    bubble(scene)


def test_a_broker_that_is_down_is_tried_ever_more_slowly_and_loses_nothing() -> None:
    """Waits grow up to the cap, and when the broker is back every row is published and marked."""

    async def scene() -> None:
        scene = Scene()
        scene.broker.up_at = 60.0
        rows = [some_row(f"K{number}") for number in range(15)]
        scene.put(*rows)
        await scene.run_for(90)
        waits = [later - earlier for earlier, later in zip(scene.broker.tries, scene.broker.tries[1:], strict=False)]
        down = [wait for wait, at in zip(waits, scene.broker.tries, strict=False) if at < 60]
        assert all(wait >= SETTINGS.backoff_first_seconds / 2 for wait in down)
        assert max(down) <= SETTINGS.backoff_most_seconds + 0.1
        assert len(down) < 60 / (SETTINGS.backoff_most_seconds / 2) + 4
        assert sorted(scene.broker.payloads()) == sorted(row.payload for row in rows)
        assert scene.unpublished() == []
        assert scene.metric("lp_outbox_failures_total") == len(down)

    bubble(scene)


def test_a_stop_while_the_broker_is_awaited_finishes_that_batch_and_takes_no_other() -> None:
    """The context's end interrupts nothing, and nothing is claimed after it."""

    async def scene() -> None:
        scene = Scene(broker=FakeBroker(answer_seconds=2))
        scene.put(*(some_row(f"K{number}") for number in range(30)))
        await scene.run_for(1)
        assert asyncio.get_running_loop().time() == pytest.approx(2.0)
        assert len(scene.broker.log) == 10
        assert len(scene.unpublished()) == 20
        assert all(waiting.claimed_until is None for waiting in scene.outbox.waiting)

    bubble(scene)


def test_a_cancel_while_the_broker_is_awaited_hands_the_batch_back() -> None:
    """Another relay may take the rows at once; the cancel is not swallowed."""

    async def scene() -> None:
        scene = Scene(broker=FakeBroker(answer_seconds=100))
        scene.put(some_row())
        task = asyncio.create_task(scene.run_for(1_000))
        await asyncio.sleep(1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert [waiting.claimed_until for waiting in scene.outbox.waiting] == [None]
        assert len(scene.unpublished()) == 1

    bubble(scene)


class UnmarkableOutbox(FakeOutbox):
    """An outbox whose database is away for the first marks."""

    def __init__(self, failures: int) -> None:
        super().__init__(virtual_now)
        self.failures = failures

    async def settle(self, ids: Sequence[UUID]) -> None:
        """Fail, while failures are left."""
        if self.failures:
            self.failures -= 1
            raise DependencyUnavailable("postgres", "away")
        await super().settle(ids)


def test_what_could_not_be_marked_is_marked_first_thing_and_not_sent_again() -> None:
    """A database that fails between the broker's word and the mark costs no second record."""

    async def scene() -> None:
        scene = Scene(UnmarkableOutbox(failures=2))
        scene.put(some_row())
        await scene.run_for(20)
        assert len(scene.broker.log) == 1
        assert scene.unpublished() == []

    bubble(scene)


class UnreleasableOutbox(FakeOutbox):
    """An outbox whose database is away when rows are to be handed back."""

    async def release(self, claim: Claim, ids: Sequence[UUID]) -> None:  # noqa: ARG002 - the signature is the outbox's
        """Fail."""
        raise DependencyUnavailable("postgres", "away")


def test_rows_that_cannot_be_handed_back_come_free_with_their_lease() -> None:
    """The end of the lease is the last resort, and it is enough."""

    async def scene() -> None:
        scene = Scene(UnreleasableOutbox(virtual_now))
        scene.broker.up_at = 1.0
        scene.put(some_row())
        await scene.run_for(SETTINGS.lease_seconds - 1)
        assert scene.broker.log == []
        await scene.run_for(20)
        assert len(scene.broker.log) == 1

    bubble(scene)


def test_a_record_the_broker_will_never_take_holds_up_no_other() -> None:
    """It is tried ever more seldom, the others go on at once, and its own coupon's later event waits for it."""

    async def scene() -> None:
        scene = Scene()
        scene.broker.refused = {b"bad"}
        scene.put(some_row("B", "bad"))
        scene.outbox.put(some_row("B", "later"), version=2)
        scene.put(*(some_row(f"K{number}") for number in range(20)))
        await scene.run_for(2_000)
        assert len(scene.broker.log) == 20
        times = scene.broker.times(b"bad")
        pauses = [later - earlier for earlier, later in pairwise(times)]
        assert all(pause >= min(max(age, 30), 300) for age, pause in zip(times, pauses, strict=False))
        assert 300 <= max(pauses) <= 310
        assert scene.metric("lp_outbox_refused_total") == len(times) <= 12
        assert scene.metric("lp_outbox_failures_total") == 0
        assert {row.payload for row in scene.unpublished()} == {b"bad", b"later"}

    bubble(scene)


def test_an_error_that_is_no_state_of_a_dependency_ends_the_relay() -> None:
    """A mistake of ours is not retried for ever in silence: whoever runs the relay hears of it."""

    class BrokenOutbox(FakeOutbox):
        async def claim(self, limit: int, lease: timedelta) -> Claim:  # noqa: ARG002 - the signature is the outbox's
            raise LookupError("no such column")

    async def scene() -> None:
        with pytest.raises(LookupError):
            await Scene(BrokenOutbox(virtual_now)).run_for(10)

    bubble(scene)


def test_the_backlog_is_shown_and_unknown_while_the_database_is_away() -> None:
    """An old number never passes for a fact."""

    class Away(FakeOutbox):
        is_away = False

        async def backlog(self) -> Backlog:
            if self.is_away:
                raise DependencyUnavailable("postgres", "away")
            return await super().backlog()

    async def scene() -> None:
        outbox = Away(virtual_now)
        scene = Scene(outbox)
        scene.put(some_row(), some_row("L"))
        with background().with_timeout(10) as ctx:
            task = asyncio.create_task(scene.relay.measure(ctx))
            await asyncio.sleep(0)
            assert scene.metric("lp_outbox_backlog_rows") == 2
            outbox.is_away = True
            await asyncio.sleep(SETTINGS.measure_interval_seconds + 1)
            assert math.isnan(scene.metric("lp_outbox_backlog_rows") or 0)
            await task

    bubble(scene)


class LeaselessOutbox(FakeOutbox):
    """An outbox whose claims hold nothing: the guard is taken away."""

    async def claim(self, limit: int, lease: timedelta) -> Claim:  # noqa: ARG002 - the signature is the outbox's
        """Claim for no time at all."""
        return await super().claim(limit, timedelta(microseconds=-1))


class OrderlessOutbox(FakeOutbox):
    """An outbox that lets a later event of a coupon pass an earlier one: the guard is taken away."""

    def _has_earlier(self, waiting: object) -> bool:  # noqa: ARG002 - the signature is the outbox's
        return False


async def _several_relays(outbox_type: type[FakeOutbox]) -> list[bytes]:
    """Let three relays empty one outbox of two events a coupon, with a broker that is slow now and then."""
    outbox, broker = outbox_type(virtual_now), FakeBroker()
    for key in range(12):
        outbox.put(some_row(f"K{key}", f"{key}:1"), version=1)
        outbox.put(some_row(f"K{key}", f"{key}:2"), version=2)
    relays = [Scene(outbox, broker) for _ in range(3)]

    with background().with_timeout(30) as ctx:
        await asyncio.gather(*(scene.relay.run(ctx) for scene in relays))
    assert all(waiting.published_at for waiting in outbox.waiting)
    return broker.payloads()


def _doubled(payloads: list[bytes]) -> bool:
    return max(Counter(payloads).values()) > 1


def test_several_relays_publish_each_row_once() -> None:
    """Whatever order the relays run in, no row is published twice and none is left."""
    for payloads in run_shuffled(_several_relays, FakeOutbox, seeds=range(100)):
        assert sorted(payloads) == sorted(b"%d:%d" % (key, version) for key in range(12) for version in (1, 2))


def test_without_the_lease_several_relays_publish_rows_twice() -> None:
    """The guard is what keeps rows single: without it the same test sees doubles."""
    assert any(_doubled(payloads) for payloads in run_shuffled(_several_relays, LeaselessOutbox, seeds=range(10)))


async def _order_of(outbox_type: type[FakeOutbox]) -> list[bytes]:
    """Let the first of a coupon's events be put off by the broker while the second is waiting."""
    outbox, broker = outbox_type(virtual_now), FirstPutOff()
    scene = Scene(outbox, broker)
    outbox.put(some_row("K", "1"), version=1)
    outbox.put(some_row("K", "2"), version=2)
    await scene.run_for(30)
    return broker.payloads()


class FirstPutOff(FakeBroker):
    """A broker that puts the first record of all off, and takes whatever else comes with it."""

    async def publish_many(self, records: Sequence[Record]) -> list[Outcome]:
        """Fail the first record once."""
        if self.tries:
            return await super().publish_many(records)
        _, *others = await super().publish_many(records)
        del self.log[0]
        return [DeliveryUnknown("kafka", "no answer"), *others]


def test_a_coupons_second_event_waits_for_its_first() -> None:
    """An event that the broker put off is published before what came after it, though they wait together."""
    assert bubble(_order_of, FakeOutbox) == [b"1", b"2"]


def test_without_the_order_rule_a_coupons_second_event_passes_its_first() -> None:
    """The guard is what keeps the order: without it the same test sees the second event first."""
    assert bubble(_order_of, OrderlessOutbox) == [b"2", b"1"]
