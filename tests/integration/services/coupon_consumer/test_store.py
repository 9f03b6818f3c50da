"""The consumer's SQL on a real Postgres, under the service's own role: the guard, the versions, the dead letters."""

import asyncio
import json
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import timedelta

import asyncpg
import pytest

from loyalty.event import TIMES_BEGIN, TIMES_END, CouponEvent, encode
from loyalty.identifier import new_id
from runtime.errors import DependencyUnavailable
from runtime.kafka_reader import Record
from runtime.postgres import PostgresPool
from services.coupon_consumer.decode import Poison
from services.coupon_consumer.errors import OwnershipLostError
from services.coupon_consumer.event_row import EventRow, decode_row
from services.coupon_consumer.store import CouponStore, Progress, Saved, Work
from tests.support.coupon_events import ISSUED_AT, cancelled, coupon_rows, rows_of, some_event
from tests.support.fake_kafka_client import record

TOPIC_ID = "topic-id"


@pytest.fixture
async def store(pool: PostgresPool, administrator: asyncpg.Connection) -> CouponStore:
    """A store whose partitions 0 to 2 begin at offset 10."""
    assert administrator is not None
    opened = CouponStore(pool, group="group", topic="events")
    await opened.begin_at(TOPIC_ID, dict.fromkeys(range(3), 10))
    return opened


def row_of(event: CouponEvent) -> EventRow:
    """Return the event as the consumer decodes it."""
    return decode_row(encode(event), event.coupon.code.encode())


def work(
    events: Sequence[CouponEvent] = (), *, progress: Iterable[Progress] | None = None, poison: Sequence[Poison] = ()
) -> Work:
    """Return work that takes partition 0 from offset 10 to 20, unless told otherwise."""
    steps = [Progress(TOPIC_ID, 0, 10, 20)] if progress is None else list(progress)
    records = [record(0, 10 + index, encode(event), event.coupon.code.encode()) for index, event in enumerate(events)]
    return Work(steps, [row_of(event) for event in events], records, poison)


async def offsets(store: CouponStore) -> dict[int, int]:
    """Return the stored offsets."""
    return await store.load_offsets(TOPIC_ID, range(10))


async def test_rows_and_offsets_of_several_partitions_are_stored_together(
    store: CouponStore, administrator: asyncpg.Connection
) -> None:
    """One transaction writes every coupon whole and moves every partition; partitions left out stand still."""
    events = [some_event(redemption_id=None), some_event()]
    progress = [Progress(TOPIC_ID, 0, 10, 15), Progress(TOPIC_ID, 2, 10, 11)]
    assert await store.save(work(events, progress=progress)) == Saved(stored=2, skipped=0, dead_lettered=0)
    assert await coupon_rows(administrator) == rows_of(events)
    assert await offsets(store) == {0: 15, 1: 10, 2: 11}


@pytest.mark.parametrize(
    "step",
    [
        Progress(TOPIC_ID, 0, 9, 20),
        Progress(TOPIC_ID, 0, 11, 20),
        Progress(TOPIC_ID, 0, 10, 10),
        Progress(TOPIC_ID, 0, 10, 9),
        Progress("another topic's id", 0, 10, 20),
        Progress(TOPIC_ID, 7, 10, 20),
    ],
    ids=["behind", "ahead", "no step", "backwards", "topic made anew", "unknown partition"],
)
async def test_work_that_does_not_begin_where_the_partition_stands_changes_nothing(
    store: CouponStore, administrator: asyncpg.Connection, step: Progress
) -> None:
    """The guard names the partition, and rows, offsets and dead letters stay as they were."""
    other = Progress(TOPIC_ID, 1, 10, 12)
    poison = [Poison(record(1, 11, b"x"), "NotJsonError", "why")]
    with pytest.raises(OwnershipLostError) as raised:
        await store.save(work([some_event()], progress=[step, other], poison=poison))
    assert raised.value.partitions == {step.partition}
    assert await coupon_rows(administrator) == {}
    assert await offsets(store) == {0: 10, 1: 10, 2: 10}
    assert await administrator.fetchval("select count(*) from dead_letters") == 0


async def test_same_work_twice_is_refused_the_second_time(store: CouponStore) -> None:
    """A member that wakes up late, or tries again after a commit it never heard of, finds its place taken."""
    once = work([some_event()])
    await store.save(once)
    with pytest.raises(OwnershipLostError):
        await store.save(once)


async def test_two_members_racing_for_one_place_store_it_once(
    store: CouponStore, administrator: asyncpg.Connection
) -> None:
    """Of many transactions from the same offset exactly one is committed."""
    attempts = [work([some_event()]) for _ in range(8)]
    outcomes = await asyncio.gather(*(store.save(attempt) for attempt in attempts), return_exceptions=True)
    assert sorted(type(outcome).__name__ for outcome in outcomes) == ["OwnershipLostError"] * 7 + ["Saved"]
    assert len(await coupon_rows(administrator)) == 1


async def test_without_the_guard_a_late_member_moves_the_place_back(
    store: CouponStore, administrator: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the comparison taken out of the statement, work of a member that was overtaken goes through."""
    from services.coupon_consumer import store as module

    await store.save(work([some_event()], progress=[Progress(TOPIC_ID, 0, 10, 50)]))
    guard = "and stored.next_offset = given.expected and given.next_offset > given.expected"
    assert guard in module._ADVANCE
    monkeypatch.setattr(module, "_ADVANCE", module._ADVANCE.replace(guard, ""))
    await store.save(work([some_event()], progress=[Progress(TOPIC_ID, 0, 10, 20)]))
    assert (await offsets(store))[0] == 20
    assert len(await coupon_rows(administrator)) == 2


async def test_newer_version_wins_whole_and_older_or_equal_is_skipped(
    store: CouponStore, administrator: asyncpg.Connection
) -> None:
    """In one batch or in several, in any order, the highest version of a coupon is what is stored."""
    first = some_event(version=1)
    third = first._replace(coupon=first.coupon._replace(version=3, value_cents=900, member_id="m-2"))
    equal = first._replace(coupon=first.coupon._replace(version=3, value_cents=1))
    end = cancelled(third)
    steps = [Progress(TOPIC_ID, 0, 10 + n, 11 + n) for n in range(4)]
    assert await store.save(work([third, first], progress=[steps[0]])) == Saved(1, 1, 0)
    assert await store.save(work([first], progress=[steps[1]])) == Saved(0, 1, 0)
    assert await store.save(work([equal], progress=[steps[2]])) == Saved(0, 1, 0)
    assert await coupon_rows(administrator) == rows_of([third])
    assert await store.save(work([end, third, end], progress=[steps[3]])) == Saved(1, 2, 0)
    assert await coupon_rows(administrator) == rows_of([end])


async def test_redeemed_coupon_is_never_touched(store: CouponStore, administrator: asyncpg.Connection) -> None:
    """No event of any version or type changes a coupon that was redeemed."""
    event = some_event()
    await store.save(work([event], progress=[Progress(TOPIC_ID, 0, 10, 11)]))
    await administrator.execute("update coupons set status = 'redeemed', redeemed_at = now(), version = 2")
    before = await coupon_rows(administrator)
    later = [cancelled(event)._replace(coupon=event.coupon._replace(version=version)) for version in (2, 3, 99)]
    saved = await store.save(work([*later, event], progress=[Progress(TOPIC_ID, 0, 11, 15)]))
    assert saved == Saved(stored=0, skipped=4, dead_lettered=0)
    assert await coupon_rows(administrator) == before


async def test_cancellation_that_comes_first_keeps_the_issue_out(
    store: CouponStore, administrator: asyncpg.Connection
) -> None:
    """A coupon cancelled before it arrived is stored as cancelled, and its late issue is skipped."""
    event = some_event()
    await store.save(work([cancelled(event)], progress=[Progress(TOPIC_ID, 0, 10, 11)]))
    await store.save(work([event], progress=[Progress(TOPIC_ID, 0, 11, 12)]))
    assert await coupon_rows(administrator) == rows_of([cancelled(event)])


async def test_poison_is_kept_with_all_that_is_known_of_it(
    store: CouponStore, administrator: asyncpg.Connection
) -> None:
    """Raw bytes, headers with their order and doubles, place and class of error are kept; a tombstone too."""
    raw = record(0, 14, b"\x00\xffnot json", b"k\x00")
    raw.set_headers([("a", b"\xff"), ("a", b""), ("b", None)])
    tombstone = record(0, 15, None, None)
    poison = [Poison(raw, "NotJsonError", "why"), Poison(tombstone, "TombstoneError", "because")]
    assert await store.save(work(poison=poison)) == Saved(0, 0, 2)
    rows = await administrator.fetch("select * from dead_letters order by record_offset")
    assert [
        (row["consumer_group"], row["topic"], row["topic_id"], row["partition"], row["record_offset"]) for row in rows
    ] == [("group", "events", TOPIC_ID, 0, 14), ("group", "events", TOPIC_ID, 0, 15)]
    assert (rows[0]["key"], rows[0]["payload"]) == (b"k\x00", b"\x00\xffnot json")
    assert (rows[1]["key"], rows[1]["payload"]) == (None, None)
    assert json.loads(rows[0]["headers"]) == [["a", "/w=="], ["a", ""], ["b", None]]
    assert [(row["error_class"], row["error_detail"]) for row in rows] == [
        ("NotJsonError", "why"),
        ("TombstoneError", "because"),
    ]
    assert all(row["failed_at"] is not None and row["replayed_at"] is None for row in rows)


async def test_poison_seen_again_is_kept_once(store: CouponStore, administrator: asyncpg.Connection) -> None:
    """After offsets were moved back the same record makes no second letter."""
    poison = [Poison(record(0, 14, b"x"), "NotJsonError", "why")]
    await store.save(work(poison=poison))
    await store.move_offsets(TOPIC_ID, {0: 10})
    await store.save(work(poison=poison))
    assert await administrator.fetchval("select count(*) from dead_letters") == 1


@pytest.mark.parametrize("table", ["dead_letters", "coupons", "consumer_offsets"])
async def test_missing_table_is_waited_for_and_nothing_passes(
    store: CouponStore, administrator: asyncpg.Connection, table: str
) -> None:
    """Without a table nothing is stored and no place moves; with the table back the same work goes through."""
    poisoned = work([some_event()], poison=[Poison(record(0, 14, b"x"), "NotJsonError", "why")])
    await administrator.execute(f"alter table {table} rename to hidden")
    try:
        with pytest.raises(DependencyUnavailable):
            await store.save(poisoned)
    finally:
        await administrator.execute(f"alter table hidden rename to {table}")
    assert await offsets(store) == {0: 10, 1: 10, 2: 10}
    assert await coupon_rows(administrator) == {}
    assert await store.save(poisoned) == Saved(stored=1, skipped=0, dead_lettered=1)


async def test_first_offsets_are_kept_once_stored(store: CouponStore) -> None:
    """Two members that begin at once agree: the second one's idea of the beginning changes nothing."""
    await store.begin_at(TOPIC_ID, {0: 0, 5: 3})
    assert await offsets(store) == {0: 10, 1: 10, 2: 10, 5: 3}


async def test_topic_under_another_id_is_noticed(store: CouponStore) -> None:
    """Only another id of the same topic and group makes a topic one that was made anew."""
    assert not await store.knows_other_topic(TOPIC_ID)
    assert await store.knows_other_topic("new id")
    assert not await CouponStore(store._pool, group="other", topic="events").knows_other_topic("new id")


async def test_service_role_can_do_no_more_than_it_needs(pool: PostgresPool, store: CouponStore) -> None:
    """The consumer can neither remove coupons nor spend one, forget an offset, or change what a dead letter says."""
    await store.save(work([some_event()], poison=[Poison(record(0, 14, b"x"), "NotJsonError", "why")]))
    for forbidden in (
        "delete from coupons",
        "truncate coupons",
        "delete from consumer_offsets",
        "update coupons set redeemed_at = now()",
        "update dead_letters set payload = null",
        "create table mine ()",
    ):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await pool.execute(forbidden)


def letters(*records: Record) -> list[Poison]:
    """Return records as poison."""
    return [Poison(each, "NotJsonError", "why") for each in records]


async def test_dead_letters_are_listed_replayed_and_removed(
    pool: PostgresPool, store: CouponStore, administrator: asyncpg.Connection
) -> None:
    """What can be understood today is stored by its version, once; the rest stays; old letters go, oldest first."""
    from services.coupon_consumer.dead_letters import DeadLetters

    event = some_event()
    newer = cancelled(event)
    good = [
        record(0, 11, encode(newer), event.coupon.code.encode()),
        record(0, 12, encode(event), event.coupon.code.encode()),
    ]
    await store.save(work(poison=letters(*good, record(0, 13, b"{"))))
    dead_letters = DeadLetters(pool, group="group", topic="events")
    listed = await dead_letters.list(error_class="NotJsonError", with_replayed=False, limit=10)
    assert [row["record_offset"] for row in listed] == [11, 12, 13]
    assert await dead_letters.list(error_class="OtherError", with_replayed=True, limit=10) == []

    one = await dead_letters.replay(ids=[listed[1]["id"]], error_class=None, limit=10)
    assert (one.settled, one.changed, one.failed) == (1, 1, {})
    rest = await dead_letters.replay(ids=None, error_class=None, limit=10)
    assert (rest.settled, rest.changed) == (1, 1)
    assert set(rest.failed) == {listed[2]["id"]}
    assert await coupon_rows(administrator) == rows_of([newer])
    again = await dead_letters.replay(ids=None, error_class=None, limit=10)
    assert (again.settled, set(again.failed)) == (0, {listed[2]["id"]})

    shown = await dead_letters.show(listed[2]["id"])
    assert shown is not None
    assert (shown["payload"], shown["replayed_at"]) == (b"{", None)
    assert await dead_letters.show(new_id()) is None

    await administrator.execute(
        "update dead_letters set failed_at = now() - $1::interval where record_offset < 13", timedelta(days=2)
    )
    assert await dead_letters.remove_old(timedelta(days=1), 1) == 1
    assert await dead_letters.remove_old(timedelta(days=1), 10) == 1
    assert await dead_letters.remove_old(timedelta(days=1), 10) == 0
    left = await dead_letters.list(error_class=None, with_replayed=True, limit=10)
    assert [row["record_offset"] for row in left] == [13]


async def test_time_of_issue_keeps_its_instant(store: CouponStore, administrator: asyncpg.Connection) -> None:
    """A time with another offset is the same instant in the table."""
    event = some_event()
    text = encode(event).replace(b"2026-01-01T00:00:00+00:00", b"2026-01-01T05:30:00+05:30")
    assert text != encode(event)
    shifted = replace(work([event]), rows=[decode_row(text, event.coupon.code.encode())])
    await store.save(shifted)
    assert (await coupon_rows(administrator))[event.coupon.code][6] == ISSUED_AT


async def test_times_are_stored_to_the_microsecond_over_the_whole_range(
    store: CouponStore, administrator: asyncpg.Connection
) -> None:
    """The first and the last instant that an event may name, and odd ones between, come back as they went in."""
    first, last = TIMES_BEGIN, TIMES_END - timedelta(microseconds=1)
    pairs = [(first, first + timedelta(microseconds=1)), (last - timedelta(microseconds=1), last)]
    pairs += [
        (first + (last - first) * part / 97, first + (last - first) * (part + 1) / 97) for part in range(1, 97, 5)
    ]
    events = [some_event(issued_at=issued_at, expires_at=expires_at) for issued_at, expires_at in pairs]
    await store.save(work(events))
    assert await coupon_rows(administrator) == rows_of(events)
