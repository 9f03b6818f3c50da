"""Others in reward_store's way in its database: a schema that changes, deadlocks, lost races, locks that are held."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Final

import asyncpg
import pytest

from sandbox.servers import KafkaServer, PostgresServer
from tests.support.fault_report import FaultReport
from tests.support.judgement import judge_time
from tests.support.redeemers import outcome
from tests.support.shop import MEMBERS, REWARDS, Shop, open_shop
from tests.support.trade import REQUEST_SECONDS, Trade, open_trade

PATIENT: Final = {
    "HTTP__REQUEST_TIMEOUT_SECONDS": "8",
    "POSTGRES__STATEMENT_TIMEOUT_SECONDS": "5",
    "POSTGRES__LOCK_TIMEOUT_SECONDS": "4",
    "RELAY__LEASE_SECONDS": "9",
}
"""Longer than the second after which Postgres looks for a deadlock."""
STALE_PLAN: Final = "cached plan must not change result type"
DEADLOCK: Final = "deadlock detected"
UNAVAILABLE: Final = "503 dependency-unavailable"
OVERLOADED: Final = "503 overloaded"
TOO_LATE: Final = "504 deadline-exceeded"
LOCKED_SECONDS: Final = 10.0
CHANGES: Final = 60
CIRCLES: Final = 3

LOSE: Final = """
create function lose() returns trigger language plpgsql as $$
begin
    if random() < 0.5 then
        raise exception using errcode = (array['40001', '40P01'])[1 + floor(2 * random())::int];
    end if;
    return new;
end $$;
create trigger lose before insert on redemptions for each row execute function lose();
"""


@contextlib.asynccontextmanager
async def open_outsider(shop: Shop) -> AsyncIterator[asyncpg.Connection]:
    """Connect to the shop's database as its administrator."""
    connection = await asyncpg.connect(shop.url, timeout=10)
    try:
        yield connection
    finally:
        await connection.close(timeout=10)


def told_in(log: Path, words: str) -> int:
    """Return how often the server's log says this."""
    return log.read_text(errors="replace").count(words)


async def read_until(is_over: asyncio.Event, trade: Trade, answers: Counter[str]) -> None:
    """Read all rewards over and over."""
    async with trade.service.client("m-1", connections=1) as client:
        while not is_over.is_set():
            answers[outcome(await client.get("/v1/rewards"))] += 1


@pytest.mark.fault("H17", f"a column's type changed {CHANGES} times under orders and reads")
async def test_schema_that_changes_under_load_fails_nobody(
    postgres: PostgresServer, kafka: KafkaServer, tmp_path: Path, fault_report: FaultReport
) -> None:
    """Statements whose plan became stale run again; nobody is told worse than to come again, and few are told that."""
    is_over = asyncio.Event()
    reads: Counter[str] = Counter()
    async with (
        open_shop(postgres, kafka, tmp_path) as shop,
        open_trade(shop, PATIENT, rate=30) as trade,
        open_outsider(shop) as outsider,
    ):
        before = told_in(postgres.log, STALE_PLAN)
        reading = asyncio.create_task(read_until(is_over, trade, reads))
        for number in range(CHANGES):
            await outsider.execute(f"alter table rewards alter column title type {('varchar(99)', 'text')[number % 2]}")
            await trade.redeemers.wait_told()
        is_over.set()
        await reading
        back_seconds = await trade.wait_back()
        assert set(reads) <= {"200", UNAVAILABLE}
        assert reads["200"] > 10 * reads[UNAVAILABLE]
        await trade.report(fault_report, back_seconds)
        stale = told_in(postgres.log, STALE_PLAN) - before
        assert stale > 0
        fault_report.measure(stale_plans=str(stale), reads=", ".join(f"{reads[one]} x {one}" for one in sorted(reads)))


async def close_circle(outsider: asyncpg.Connection, number: int) -> None:
    """Take a member and then a reward, against everybody else's order, slowly enough for somebody to get between."""
    async with outsider.transaction():
        await outsider.execute("update members set points = points where member_id = $1", MEMBERS[number])
        await outsider.execute("select pg_sleep(0.2)")
        await outsider.execute("update rewards set stock = stock where reward_id = any($1)", REWARDS)


@pytest.mark.fault("H17", "members and rewards locked in the opposite order until there were deadlocks")
async def test_deadlock_runs_the_whole_order_again(
    postgres: PostgresServer, kafka: KafkaServer, tmp_path: Path, fault_report: FaultReport
) -> None:
    """An order that Postgres chose as the victim takes its points once, and its member hears nothing of it."""
    async with (
        open_shop(postgres, kafka, tmp_path) as shop,
        open_trade(shop, PATIENT, rate=40) as trade,
        open_outsider(shop) as outsider,
    ):
        before, number = told_in(postgres.log, DEADLOCK), 0
        async with asyncio.timeout(60):
            while told_in(postgres.log, DEADLOCK) < before + CIRCLES:
                with contextlib.suppress(asyncpg.DeadlockDetectedError):  # this time we were the victim
                    await close_circle(outsider, number % len(MEMBERS))
                number += 1
        back_seconds = await trade.wait_back()
        await trade.report(fault_report, back_seconds)
        fault_report.measure(deadlocks=str(told_in(postgres.log, DEADLOCK) - before))


@pytest.mark.fault("H17", "half of all transactions lose to others (40001, 40P01) for 100 orders")
async def test_lost_races_are_run_again_and_at_most_so_often(
    postgres: PostgresServer, kafka: KafkaServer, tmp_path: Path, fault_report: FaultReport
) -> None:
    """Most orders never hear of it; one that loses at each of its tries is told 503, and never 500."""
    async with (
        open_shop(postgres, kafka, tmp_path) as shop,
        open_trade(shop, rate=40) as trade,
        open_outsider(shop) as outsider,
    ):
        await outsider.execute(LOSE)
        await trade.redeemers.wait_told(100)
        await trade.redeemers.wait_answers(UNAVAILABLE)
        await outsider.execute("drop trigger lose on redemptions")
        back_seconds = await trade.wait_back()
        answers = trade.redeemers.answers
        assert answers[UNAVAILABLE] < answers["201"]
        await trade.report(fault_report, back_seconds)


async def lock_rows(outsider: asyncpg.Connection) -> None:
    """Lock every reward's row against change."""
    await outsider.execute("select from rewards for update")


async def lock_table(outsider: asyncpg.Connection) -> None:
    """Lock the rewards against everything, reads included."""
    await outsider.execute("lock table rewards in access exclusive mode")


@pytest.mark.parametrize(
    ("lock", "read"),
    [
        pytest.param(
            lock_rows,
            {"200", OVERLOADED},
            marks=pytest.mark.fault("H17", f"all rewards' rows locked for {LOCKED_SECONDS:g} s"),
        ),
        pytest.param(
            lock_table,
            {UNAVAILABLE, OVERLOADED, TOO_LATE},
            marks=pytest.mark.fault("H17", f"the rewards' table locked for {LOCKED_SECONDS:g} s"),
        ),
    ],
)
@pytest.mark.thorough
async def test_lock_that_somebody_holds_is_given_up_in_time(
    postgres: PostgresServer,
    kafka: KafkaServer,
    tmp_path: Path,
    fault_report: FaultReport,
    lock: Callable[[asyncpg.Connection], Awaitable[None]],
    read: set[str],
) -> None:
    """Who needs what is locked is told 503 or 504 in time, nobody 500, and afterwards each order is done once."""
    async with (
        open_shop(postgres, kafka, tmp_path) as shop,
        open_trade(shop) as trade,
        open_outsider(shop) as outsider,
    ):
        async with outsider.transaction():
            await lock(outsider)
            await trade.redeemers.wait_answers(UNAVAILABLE)
            async with trade.service.client("m-1", connections=1) as client:
                assert outcome(await client.get("/v1/rewards")) in read
            await asyncio.sleep(LOCKED_SECONDS)
        slowest_seconds = trade.redeemers.slowest_seconds
        back_seconds = await trade.wait_back()
        fault_report.judge(judge_time("an answer", slowest_seconds, at_most=10 * REQUEST_SECONDS))
        await trade.report(fault_report, back_seconds)
