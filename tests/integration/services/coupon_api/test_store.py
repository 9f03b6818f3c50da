"""The real store on a real database: the contract, the guards, and the rights."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from unittest import mock

import asyncpg
import pytest

from loyalty.coupon import Coupon
from loyalty.errors import CouponNotFoundError
from runtime.errors import DependencyUnavailable, RequestInProgressError
from runtime.postgres import PostgresPool, open_pool
from runtime.settings import PostgresSettings
from runtime.stored_answer import IdempotencyKey, claim_key, store_answer
from sandbox.servers import PostgresServer
from services.coupon_api import store as store_module
from services.coupon_api.store import PostgresCouponStore
from services.coupon_api.trace import Tracer
from tests.support.coupon_store_contract import CouponStoreContract, some_coupon, some_key, some_order
from tests.support.databases import PASSWORDS
from tests.support.stored_coupon import put_coupon


class PostgresWorld:
    """The real store, and an administrator's connection beside it."""

    def __init__(self, pool: PostgresPool, administrator: "asyncpg.Connection") -> None:
        self.tracer = Tracer(capacity=1_024)
        self.store = PostgresCouponStore(pool, self.tracer)
        self.pool = pool
        self.administrator = administrator

    async def put(self, coupon: Coupon) -> None:
        """See `World`."""
        await put_coupon(self.administrator, coupon)

    async def age_keys(self, by: timedelta) -> None:
        """See `World`."""
        await self.administrator.execute("update idempotency_keys set created_at = created_at - $1::interval", by)


@pytest.fixture
async def world(
    postgres_settings: PostgresSettings, administrator: "asyncpg.Connection"
) -> AsyncIterator[PostgresWorld]:
    """The store on an empty database."""
    async with open_pool(postgres_settings) as pool:
        yield PostgresWorld(pool, administrator)


class TestPostgresCouponStore(CouponStoreContract):
    """The contract, on Postgres."""


async def test_key_in_another_s_hands_is_in_progress_until_that_ends(world: PostgresWorld) -> None:
    """While a transaction holds the key the order is refused; when it is gone without an answer, the order is done."""
    async with world.pool.acquire() as connection:
        await connection.execute("begin")
        assert await claim_key(connection, some_key()) is None
        with pytest.raises(RequestInProgressError):
            await world.store.issue_coupon(some_order(), some_key())
        await connection.execute("rollback")

    assert (await world.store.issue_coupon(some_order(), some_key())).status == 201


async def test_20_racing_orders_with_one_key_make_one_coupon(world: PostgresWorld) -> None:
    """Each racer gets the one answer or is told that the work is under way; one coupon exists in the end."""
    orders = [some_order() for _ in range(20)]
    outcomes = await asyncio.gather(
        *(world.store.issue_coupon(order, some_key()) for order in orders), return_exceptions=True
    )
    answers = {each for each in outcomes if not isinstance(each, BaseException)}
    refusals = {type(each) for each in outcomes if isinstance(each, BaseException)}

    assert len(answers) == 1
    assert refusals <= {RequestInProgressError}
    assert await world.administrator.fetchval("select count(*) from coupons") == 1


async def test_without_the_lock_two_transactions_reach_the_work(world: PostgresWorld) -> None:
    """The guard is needed: with a claim that always succeeds, an order is done while another one has its key."""
    with mock.patch("runtime.stored_answer._LOCK", "select $1::bigint is not null"):
        async with world.pool.acquire() as connection:
            await connection.execute("begin")
            assert await claim_key(connection, some_key()) is None
            answer = await world.store.issue_coupon(some_order(), some_key())
            with pytest.raises(asyncpg.UniqueViolationError):
                await store_answer(connection, some_key(), answer)


async def test_coupon_that_arrives_between_two_statements_was_not_there(world: PostgresWorld) -> None:
    """Whoever redeems just before the coupon arrives is told that there is none, and can redeem it right after."""
    coupon = some_coupon()
    fetch_row = world.pool.fetch_row

    async def arrive_after_the_first(sql: str, *args: object) -> object:
        row = await fetch_row(sql, *args)
        if sql == store_module._REDEEM:
            await world.put(coupon)
        return row

    with (
        mock.patch.object(world.pool, "fetch_row", arrive_after_the_first),
        pytest.raises(CouponNotFoundError),
    ):
        await world.store.redeem_coupon(coupon.code, "m-1")
    assert (await world.store.redeem_coupon(coupon.code, "m-1"))["status"] == "redeemed"


async def test_without_the_status_guard_a_coupon_is_redeemed_twice(world: PostgresWorld) -> None:
    """The guard is needed: a statement that does not look at the status spends the coupon once a call."""
    coupon = some_coupon()
    await world.put(coupon)
    unguarded = store_module._REDEEM.replace("and status = 'issued'", "")
    assert unguarded != store_module._REDEEM
    with mock.patch.object(store_module, "_REDEEM", unguarded):
        views = await asyncio.gather(*(world.store.redeem_coupon(coupon.code, "m-1") for _ in range(20)))

    assert len({view["version"] for view in views}) == 20


async def test_store_s_calls_are_spans(world: PostgresWorld) -> None:
    """Each call of the store is one span of the tracer, also one that is refused."""
    order = some_order()
    await world.store.issue_coupon(order, some_key())
    await world.store.find_coupon(order.code)
    await world.store.list_coupons("m-1", 1, None)
    await world.store.redeem_coupon(order.code, "m-1")

    assert [span.method for span in world.tracer.spans()] == [
        "issue_coupon",
        "find_coupon",
        "list_coupons",
        "redeem_coupon",
    ]


@pytest.mark.parametrize(
    ("plan", "index"),
    [
        (store_module.FIND.replace("$1", "'0123456789ABCDEF'"), "coupons_pkey"),
        (
            store_module._PAGE_AFTER.replace("$1", "'m-1'")
            .replace("$2", "10")
            .replace("$3", "now()")
            .replace("$4", "'0'"),
            "coupons_by_member",
        ),
    ],
)
async def test_reads_walk_an_index_without_sorting(world: PostgresWorld, plan: str, index: str) -> None:
    """Neither read looks at more rows than it gives, however many coupons there are."""
    await world.administrator.execute("set enable_seqscan = off")
    lines = [row[0] for row in await world.administrator.fetch(f"explain {plan}")]

    assert any(index in line for line in lines)
    assert not any("Sort" in line for line in lines)


@pytest.mark.parametrize(
    ("role", "statement"),
    [
        ("coupon_api", "delete from coupons"),
        ("coupon_api", "update coupons set member_id = 'm-2'"),
        ("coupon_api", "update coupons set value_cents = 1"),
        ("coupon_api", "update idempotency_keys set response = ''"),
        ("coupon_api", "select from dead_letters"),
        ("coupon_api", "select from consumer_offsets"),
        ("coupon_api", "truncate coupons"),
        ("coupon_api", "create table mine (id integer)"),
        ("coupon_consumer", "delete from coupons"),
        ("coupon_consumer", "update coupons set redeemed_at = now()"),
        ("coupon_consumer", "update coupons set code = '0123456789ABCDEF'"),
        ("coupon_consumer", "select from idempotency_keys"),
        ("coupon_consumer", "update dead_letters set payload = ''"),
        ("coupon_consumer", "create table mine (id integer)"),
    ],
)
async def test_role_cannot_do_what_it_does_not_need(
    postgres: PostgresServer, coupons_database: str, role: str, statement: str
) -> None:
    """Each of these is refused by the database itself, whatever the service's code does."""
    connection = await asyncpg.connect(postgres.url(coupons_database, user=role, password=PASSWORDS[role]))
    try:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute(statement)
    finally:
        await connection.close()


@pytest.mark.parametrize(
    "change",
    [
        "status = 'redeemed'",
        "redeemed_at = now()",
        "status = 'lost'",
        "version = 0",
        "value_cents = -1",
        "expires_at = issued_at",
        "code = 'short'",
        "currency = 'EURO'",
    ],
)
async def test_database_refuses_a_coupon_that_contradicts_itself(world: PostgresWorld, change: str) -> None:
    """Not even the administrator can store what must never be untrue."""
    await world.put(some_coupon())
    with pytest.raises(asyncpg.CheckViolationError):
        await world.administrator.execute(f"update coupons set {change}")  # noqa: S608 - the test's own words


async def test_claim_is_only_for_the_key_it_names(world: PostgresWorld) -> None:
    """Keys that differ in one part, or only in where one part ends, have locks of their own."""
    keys = [
        IdempotencyKey("a", "b", "c", b""),
        IdempotencyKey("ab", "", "c", b""),
        IdempotencyKey("a", "bc", "", b""),
        IdempotencyKey("", "ab", "c", b""),
    ]

    assert len({key.lock_number() for key in keys}) == len(keys)
    async with world.pool.acquire() as connection:
        await connection.execute("begin")
        assert [await claim_key(connection, key) for key in keys] == [None] * 4
        await connection.execute("rollback")


async def test_coupon_that_somebody_keeps_locked_is_given_up_in_time(
    postgres_settings: PostgresSettings, administrator: "asyncpg.Connection"
) -> None:
    """A lock that is not released costs a redemption its lock's time, not its fate: afterwards it can be done."""
    coupon = some_coupon()
    await put_coupon(administrator, coupon)
    settings = postgres_settings.model_copy(update={"lock_timeout_seconds": 0.2})
    async with open_pool(settings) as pool:
        store = PostgresCouponStore(pool, Tracer(capacity=8))
        async with administrator.transaction():
            await administrator.execute("select from coupons where code = $1 for update", coupon.code)
            with pytest.raises(DependencyUnavailable):
                await store.redeem_coupon(coupon.code, "m-1")
            with pytest.raises(DependencyUnavailable):
                await store.cancel_coupon(coupon)
        assert (await store.redeem_coupon(coupon.code, "m-1"))["version"] == 2
