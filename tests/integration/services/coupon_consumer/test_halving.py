"""Rows that a real Postgres refuses: each becomes a dead letter, the rest is stored, by a slow server too."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace

import asyncpg
import pytest

from loyalty.event import CouponEvent, encode
from runtime.errors import DependencyUnavailable
from runtime.postgres import PostgresPool
from services.coupon_consumer.decode import Poison
from services.coupon_consumer.errors import RowRefusedError
from services.coupon_consumer.store import CouponStore, Saved, Work, save_by_halves
from tests.support.consumer_store_contract import TOPIC_ID, some_work
from tests.support.coupon_events import coupon_rows, rows_of, some_event
from tests.support.fake_kafka_client import record

GOOD, BAD = "rw-1", "rw-bad"


@pytest.fixture
async def store(pool: PostgresPool, administrator: asyncpg.Connection) -> CouponStore:
    """A store whose partition 0 begins at offset 10."""
    assert administrator is not None
    opened = CouponStore(pool, group="group", topic="events")
    await opened.begin_at(TOPIC_ID, {0: 10})
    return opened


@asynccontextmanager
async def constraint(administrator: asyncpg.Connection, table: str, check: str) -> AsyncIterator[None]:
    """Have a table refuse for a while what no decoder knows of."""
    await administrator.execute(f"alter table {table} add constraint odd check ({check})")
    try:
        yield
    finally:
        await administrator.execute(f"alter table {table} drop constraint odd")


async def save(store: CouponStore, work: Work) -> Saved:
    """Store work as the service does, and return what all its parts came to."""
    parts: list[Saved] = []
    await save_by_halves(store, work, lambda _, saved: parts.append(saved))
    return Saved(*(sum(getattr(part, name) for part in parts) for name in ("stored", "skipped", "dead_lettered")))


def events_of(rewards: Sequence[str]) -> list[CouponEvent]:
    """Return events, each of a coupon of its own."""
    return [some_event(reward_id=reward) for reward in rewards]


async def next_offset(store: CouponStore) -> int:
    """Return where the partition stands."""
    return (await store.load_offsets(TOPIC_ID, [0]))[0]


@pytest.mark.parametrize("bad", [{0}, {49}, {7, 8, 31}, set(range(50))], ids=["first", "last", "some", "all"])
async def test_rows_that_postgres_refuses_become_dead_letters_and_the_rest_is_stored(
    store: CouponStore, administrator: asyncpg.Connection, bad: set[int]
) -> None:
    """A constraint that the reader does not know of costs exactly the rows that break it."""
    events = events_of([BAD if index in bad else GOOD for index in range(50)])
    async with constraint(administrator, "coupons", "reward_id <> 'rw-bad'"):
        saved = await save(store, some_work(events, 10, 60))
    assert saved == Saved(stored=50 - len(bad), skipped=0, dead_lettered=len(bad))
    assert await coupon_rows(administrator) == rows_of(event for i, event in enumerate(events) if i not in bad)
    letters = await administrator.fetch("select record_offset, payload, error_class, error_detail from dead_letters")
    assert {row["record_offset"] - 10: row["payload"] for row in letters} == {i: encode(events[i]) for i in bad}
    assert {(row["error_class"], row["error_detail"]) for row in letters} == {("CheckViolationError", "23514 odd")}
    assert await next_offset(store) == 60


async def test_refused_row_leaves_nothing_of_its_transaction(
    store: CouponStore, administrator: asyncpg.Connection
) -> None:
    """The error says what refused it; rows, offset and dead letters stay as they were."""
    poison = [Poison(record(0, 14, b"x"), "NotJsonError", "why")]
    async with constraint(administrator, "coupons", "reward_id <> 'rw-bad'"):
        with pytest.raises(RowRefusedError, match="CheckViolationError: 23514 odd"):
            await store.save(some_work(events_of([GOOD, BAD]), 10, 20, poison=poison))
    assert await coupon_rows(administrator) == {}
    assert await next_offset(store) == 10
    assert await administrator.fetchval("select count(*) from dead_letters") == 0


async def test_refused_newer_version_does_not_take_the_older_one_with_it(
    store: CouponStore, administrator: asyncpg.Connection
) -> None:
    """Of two versions in one batch, of which Postgres refuses the newer, the older one is stored."""
    old = some_event()
    new = old._replace(coupon=old.coupon._replace(version=2, reward_id=BAD))
    async with constraint(administrator, "coupons", "reward_id <> 'rw-bad'"):
        assert await save(store, some_work([old, new], 10, 20)) == Saved(stored=1, skipped=0, dead_lettered=1)
    assert await coupon_rows(administrator) == rows_of([old])


async def test_value_that_no_column_holds_is_a_dead_letter(
    store: CouponStore, administrator: asyncpg.Connection
) -> None:
    """What is refused before any constraint is asked is found and kept in the same way."""
    events = events_of([GOOD, GOOD])
    work = some_work(events, 10, 20)
    broken = replace(work, rows=[work.rows[0], work.rows[1]._replace(version=str(2**70))])
    assert await save(store, broken) == Saved(stored=1, skipped=0, dead_lettered=1)
    assert await coupon_rows(administrator) == rows_of(events[:1])


async def test_dead_letter_that_is_refused_is_waited_out_and_blames_no_row(
    store: CouponStore, administrator: asyncpg.Connection
) -> None:
    """Halving would end with a good row buried for what its neighbour is refused for."""
    work = some_work([some_event()], 10, 20, poison=[Poison(record(0, 14, b"x"), "NotJsonError", "why")])
    async with constraint(administrator, "dead_letters", "error_class <> 'NotJsonError'"):
        with pytest.raises(DependencyUnavailable):
            await save(store, work)
    assert await coupon_rows(administrator) == {}
    assert await save(store, work) == Saved(stored=1, skipped=0, dead_lettered=1)


async def test_try_that_ends_in_the_middle_keeps_what_it_found(
    store: CouponStore, administrator: asyncpg.Connection
) -> None:
    """On a server so slow that no try comes to the end of a batch that is refused whole, try after try goes on."""
    count = 60
    work = some_work(events_of([BAD] * count), 10, 10 + count)
    tries = 0
    async with constraint(administrator, "coupons", "reward_id <> 'rw-bad' or pg_sleep(0.02) is null"):
        while (place := await next_offset(store)) < 10 + count:
            tries += 1
            try:
                async with asyncio.timeout(0.5):
                    await save(store, work.part([replace(work.progress[0], expected=place)]))
            except TimeoutError:
                continue
    assert tries > 1
    letters = await administrator.fetch("select record_offset from dead_letters order by record_offset")
    assert [row["record_offset"] for row in letters] == list(range(10, 10 + count))
