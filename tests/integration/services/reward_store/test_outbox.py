"""The outbox on a real database: leases, order, and what happens when either is taken away."""

import asyncio
from collections import Counter
from datetime import timedelta
from unittest import mock
from uuid import UUID

import asyncpg
import pytest

from loyalty.identifier import new_id
from runtime.postgres import PostgresPool
from services.reward_store import store as store_module
from services.reward_store.outbox import Claim
from tests.support.reward_world import PostgresWorld

LEASE = timedelta(seconds=60)
_PUT = """
insert into outbox (id, topic, key, version, payload, headers, created_at)
values ($1, 'coupon-events', $2, $3, $4, '{"traceparent": "00-a-b-01"}', now())
"""


@pytest.fixture
def world(pool: PostgresPool, administrator: asyncpg.Connection) -> PostgresWorld:
    """The real store, with nothing in it."""
    return PostgresWorld(pool, administrator)


async def put(world: PostgresWorld, key: str, version: int = 1) -> UUID:
    """Let an event wait, after all that wait already."""
    event_id = new_id()
    await world.administrator.execute(_PUT, event_id, key, version, f"{key}:{version}".encode())
    return event_id


def texts(claim: Claim) -> list[str]:
    """Return what the rows of a claim say."""
    return [row.payload.decode() for row in claim.rows]


async def claim_and_settle(world: PostgresWorld, limit: int = 100) -> list[str]:
    """Claim once, mark all of it as published, and return what it said."""
    claim = await world.outbox.claim(limit, LEASE)
    await world.outbox.settle([row.id for row in claim.rows])
    return texts(claim)


async def test_rows_are_claimed_oldest_first_with_all_they_hold(world: PostgresWorld) -> None:
    """A claim is bounded by its limit, and its rows say topic, key, payload and headers."""
    ids = [await put(world, f"K{number}") for number in range(3)]
    claim = await world.outbox.claim(2, LEASE)
    assert {row.id for row in claim.rows} == set(ids[:2])
    [first] = [row for row in claim.rows if row.id == ids[0]]
    assert (first.topic, first.key, first.payload) == ("coupon-events", "K0", b"K0:1")
    assert first.headers == {"traceparent": "00-a-b-01"}


async def test_a_claimed_row_is_nobody_elses_until_its_lease_ends(world: PostgresWorld) -> None:
    """A lease is committed, so it holds without a transaction, and its end needs nobody."""
    await put(world, "K")
    assert texts(await world.outbox.claim(10, LEASE)) == ["K:1"]
    assert texts(await world.outbox.claim(10, LEASE)) == []
    open_transactions = await world.administrator.fetchval(
        "select count(*) from pg_stat_activity where datname = current_database() and state like 'idle in%'"
    )
    assert open_transactions == 0
    await world.age_leases(LEASE * 2)
    assert texts(await world.outbox.claim(10, LEASE)) == ["K:1"]


async def test_rows_handed_back_are_free_at_once(world: PostgresWorld) -> None:
    """Only the rows that were named come free."""
    kept, given = await put(world, "K"), await put(world, "L")
    claim = await world.outbox.claim(10, LEASE)
    await world.outbox.release(claim, [given])
    assert texts(await world.outbox.claim(10, LEASE)) == ["L:1"]
    await world.outbox.settle([kept])


async def test_a_late_hand_back_does_not_free_what_another_has_claimed_since(world: PostgresWorld) -> None:
    """A relay that slept beyond its lease has no say over its successor's."""
    row_id = await put(world, "K")
    stale = await world.outbox.claim(10, LEASE)
    await world.age_leases(LEASE * 2)
    assert texts(await world.outbox.claim(10, LEASE)) == ["K:1"]
    await world.outbox.release(stale, [row_id])
    assert texts(await world.outbox.claim(10, LEASE)) == []


@pytest.mark.parametrize(
    ("waited", "wait"), [(timedelta(seconds=1), LEASE), (LEASE * 3, LEASE * 3), (LEASE * 9, LEASE * 4)]
)
async def test_a_row_put_off_waits_as_long_as_it_has_waited_within_bounds(
    world: PostgresWorld, waited: timedelta, wait: timedelta
) -> None:
    """Never shorter than a lease, never longer than the cap, and only for whoever holds the claim."""
    row_id = await put(world, "K")
    await world.administrator.execute("update outbox set created_at = created_at - $1::interval", waited)
    stale = await world.outbox.claim(10, LEASE)
    await world.age_leases(LEASE * 2)
    claim = await world.outbox.claim(10, LEASE)
    await world.outbox.put_off(claim, [row_id], LEASE, LEASE * 4)
    await world.outbox.put_off(stale, [row_id], LEASE * 100, LEASE * 100)
    await world.age_leases(wait - timedelta(seconds=5))
    assert texts(await world.outbox.claim(10, LEASE)) == []
    await world.age_leases(timedelta(seconds=10))
    assert texts(await world.outbox.claim(10, LEASE)) == ["K:1"]


async def test_marking_is_a_fact_that_may_be_told_twice(world: PostgresWorld) -> None:
    """The first word counts, whoever tells it, and a marked row never comes back."""
    row_id = await put(world, "K")
    await world.outbox.settle([row_id])
    at = await world.administrator.fetchval("select published_at from outbox")
    await world.outbox.settle([row_id])
    assert await world.administrator.fetchval("select published_at from outbox") == at
    await world.age_leases(LEASE * 2)
    assert texts(await world.outbox.claim(10, LEASE)) == []


async def test_a_later_event_waits_while_an_earlier_one_of_its_coupon_is_unpublished(world: PostgresWorld) -> None:
    """Not in the same claim, not in another one, and at once after the first is marked; other coupons never wait."""
    first = await put(world, "K", 1)
    await put(world, "K", 2)
    await put(world, "L", 2)
    assert sorted(texts(await world.outbox.claim(10, LEASE))) == ["K:1", "L:2"]
    assert texts(await world.outbox.claim(10, LEASE)) == []
    await world.outbox.settle([first])
    assert texts(await world.outbox.claim(10, LEASE)) == ["K:2"]


async def test_a_row_that_was_inserted_first_and_committed_last_is_not_skipped(
    world: PostgresWorld, pool: PostgresPool
) -> None:
    """Commits do not come in the order of ids; nothing remembers a last id, so nothing is passed over."""
    async with pool.acquire() as slow:
        await slow.execute("begin")
        await slow.execute(_PUT, new_id(), "S", 1, b"S:1")
        await put(world, "K")
        assert await claim_and_settle(world) == ["K:1"]
        await slow.execute("commit")
    assert await claim_and_settle(world) == ["S:1"]


async def _empty_by_many(world: PostgresWorld, keys: int) -> list[str]:
    """Let eight claimers at once publish everything, and return what they published."""
    published: list[str] = []

    async def claimer() -> None:
        idle = 0
        while idle < 3:
            claim = await world.outbox.claim(7, LEASE)
            await asyncio.sleep(0.01)  # the broker's time, in which the others claim
            published.extend(texts(claim))
            await world.outbox.settle([row.id for row in claim.rows])
            idle = 0 if claim.rows else idle + 1

    for key in range(keys):
        await put(world, f"K{key}", 1)
        await put(world, f"K{key}", 2)
    await asyncio.gather(*(claimer() for _ in range(8)))
    return published


async def test_eight_claimers_at_once_take_each_row_once_and_each_coupon_in_order(world: PostgresWorld) -> None:
    """Nothing is taken twice, nothing is left, and no second event comes before its first."""
    published = await _empty_by_many(world, 40)
    assert Counter(published) == Counter(f"K{key}:{version}" for key in range(40) for version in (1, 2))
    assert all(published.index(f"K{key}:1") < published.index(f"K{key}:2") for key in range(40))


def _without(part: str) -> "mock._patch[str]":
    """Take a part of the claim's SQL away."""
    statement = store_module._CLAIM
    assert part in statement
    return mock.patch.object(store_module, "_CLAIM", statement.replace(part, ""))


async def test_without_the_lease_rows_are_taken_twice(world: PostgresWorld) -> None:
    """The guard is what keeps rows single: without it the same claimers see doubles."""
    with _without("and (claimed_until is null or claimed_until < now())"):
        published = await _empty_by_many(world, 40)
    assert max(Counter(published).values()) > 1


async def test_without_the_order_rule_a_second_event_passes_its_first(world: PostgresWorld) -> None:
    """The guard is what keeps the order: without it an event that is put off is passed by its successor."""
    rule = store_module._CLAIM[store_module._CLAIM.index("and not exists") : store_module._CLAIM.index("order by")]
    await put(world, "K", 1)
    await put(world, "K", 2)
    with _without(rule):
        await world.outbox.claim(1, LEASE)
        assert texts(await world.outbox.claim(1, LEASE)) == ["K:2"]


async def test_the_backlog_counts_what_waits_and_tells_its_age(world: PostgresWorld) -> None:
    """Claimed rows wait too; marked ones do not."""
    empty = await world.outbox.backlog()
    assert (empty.rows, empty.oldest_seconds) == (0, 0.0)
    old = await put(world, "K")
    await put(world, "L")
    await world.administrator.execute("update outbox set created_at = now() - interval '90 s' where id = $1", old)
    await world.outbox.claim(1, LEASE)
    backlog = await world.outbox.backlog()
    assert backlog.rows == 2
    assert backlog.oldest_seconds >= 90
    await world.outbox.settle([old])
    assert (await world.outbox.backlog()).rows == 1


async def test_only_rows_published_long_ago_are_removed_and_in_bounded_steps(world: PostgresWorld) -> None:
    """An unpublished row stays however old it is."""
    ids = [await put(world, f"K{number}") for number in range(5)]
    await world.outbox.settle(ids[:4])
    await world.administrator.execute(
        "update outbox set published_at = published_at - interval '2 h' where id = any($1::uuid[])", ids[:3]
    )
    await world.administrator.execute("update outbox set created_at = created_at - interval '9 h'")
    hour = timedelta(hours=1)
    assert [await world.outbox.delete_published(hour, 2) for _ in range(3)] == [2, 1, 0]
    assert {row.id for row in await world.events()} == set(ids[3:])


async def test_the_claim_finds_its_rows_by_an_index_among_many_published_ones(world: PostgresWorld) -> None:
    """A long history costs the relay nothing: the plan reads the index of what is unpublished."""
    await world.administrator.execute(
        """
        insert into outbox (id, topic, key, version, payload, headers, created_at, published_at)
        select gen_random_uuid(), 't', n::text, 1, '', '{}', now(), now() from generate_series(1, 20000) as n
        """
    )
    await put(world, "K")
    await world.administrator.execute("analyze outbox")
    statement = store_module._CLAIM.replace("$1", "500").replace("$2::interval", "interval '30 s'")
    plan = "\n".join(row[0] for row in await world.administrator.fetch(f"explain {statement}"))
    assert "outbox_unpublished" in plan
    assert "Seq Scan on outbox" not in plan
