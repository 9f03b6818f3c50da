"""A stop meets a request that takes longer than its deadline: one effect for its key, whatever became of it (H3)."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from signal import Signals

import asyncpg
import pytest

from sandbox.instance import COUPON_FLOW, ProcessInstance, Service
from sandbox.seed import make_seed, plant
from sandbox.system import System, open_system
from tests.support.eventually import eventually
from tests.support.fault_proxy import FaultProxy, open_fault_proxy
from tests.support.fault_report import FaultReport
from tests.support.judgement import Judgement, judge_end, judge_time
from tests.support.ledger import Ledger
from tests.support.order_book import REWARD, OrderBook
from tests.support.service_process import service_of

KEY = "key-of-the-cut"
DEADLINE_SECONDS = 3.0
FINISH_SECONDS = 4.0
STATEMENT_SECONDS = 9.0
STOP_SECONDS = 30.0
SLOW_COMMIT = """
create function dawdle() returns trigger language plpgsql as $$ begin perform pg_sleep(6); return null; end $$;
create constraint trigger dawdle after insert on redemptions deferrable initially deferred
for each row execute function dawdle();
"""


@asynccontextmanager
async def _administrator(system: System) -> "AsyncIterator[asyncpg.Connection[asyncpg.Record]]":
    connection = await asyncpg.connect(system.rewards_url)
    try:
        yield connection
    finally:
        await connection.close()


async def _start_short(system: System, proxy: FaultProxy) -> ProcessInstance:
    settings = {
        "POSTGRES__PORT": str(proxy.port),
        "POSTGRES__STATEMENT_TIMEOUT_SECONDS": str(STATEMENT_SECONDS),
        "POSTGRES__LOCK_TIMEOUT_SECONDS": str(STATEMENT_SECONDS),
        "HTTP__DRAIN_LAG_SECONDS": "0.1",
        "HTTP__REQUEST_TIMEOUT_SECONDS": str(DEADLINE_SECONDS),
        "HTTP__FINISH_SECONDS": str(FINISH_SECONDS),
    }
    return await system.start(Service.REWARD_STORE, {f"REWARD_STORE_{name}": value for name, value in settings.items()})


async def _ask(
    orders: OrderBook, administrator: "asyncpg.Connection[asyncpg.Record]", waits_for: str
) -> "asyncio.Task[int]":
    """Ask, again if its time was up before, until the request waits in the database: for a `Lock`, or a `Timeout`."""
    sql = "select exists (select from pg_stat_activity where usename = 'reward_store' and wait_event_type = $1)"
    async with asyncio.timeout(STOP_SECONDS):
        while True:
            asked = asyncio.create_task(_redeem(orders))
            while not asked.done():
                if await administrator.fetchval(sql, waits_for):
                    return asked
                await asyncio.sleep(0.01)
            await asked


async def _wait_no_backend(administrator: "asyncpg.Connection[asyncpg.Record]") -> None:
    """Wait until reward_store has no backend any more."""

    async def are_gone() -> bool:
        sql = "select not exists (select from pg_stat_activity where usename = 'reward_store')"
        return bool(await administrator.fetchval(sql))

    await eventually(are_gone, seconds=STOP_SECONDS)


async def _stop_and_cut(system: System, instance: ProcessInstance, asked: "asyncio.Task[int]") -> tuple[int, Judgement]:
    """Tell the service to stop; return the status that its client got, and the judgement of its end (L7, L8)."""
    began = time.monotonic()
    instance.process.send_signal(Signals.SIGTERM)
    told = await asked
    status, last = await service_of(instance).end(STOP_SECONDS)
    seconds = time.monotonic() - began
    instance.process.release()
    system.forget(instance)
    end = judge_end(instance.name, status, last, wanted=(0, "Process stopped"))
    return told, end | judge_time("the stop", seconds, at_most=STOP_SECONDS)


async def _judge_repetition(system: System, orders: OrderBook) -> tuple[set[str], Judgement]:
    """Repeat the request twice at another instance; return the redemptions it was told of, and the ledger's word."""
    await system.start(Service.REWARD_STORE)
    answers = [await orders.redeem_told(KEY) for _ in range(2)]
    return {answer.json()["redemption_id"] for answer in answers}, await orders.judge_redemptions()


async def _redeem(orders: OrderBook) -> int:
    return (await orders.redeem(KEY)).status_code


@pytest.mark.fault("H3", "SIGTERM, a redemption waits for a lock longer than its deadline")
async def test_request_cut_before_its_commit_is_rolled_back(tmp_path: Path, fault_report: FaultReport) -> None:
    """The client is told 504, nothing of the request is stored, and the same key then redeems once."""
    async with (
        open_system(tmp_path, services=COUPON_FLOW) as system,
        _administrator(system) as administrator,
        _administrator(system) as holder,  # one in a transaction sees the activity as it was at its first look
    ):
        await plant(make_seed(1, 1_000), system.rewards_url)
        async with open_fault_proxy(system.postgres.port) as proxy:
            instance = await _start_short(system, proxy)
            with Ledger(tmp_path) as ledger:
                orders = OrderBook(system, ledger)
                lock = holder.transaction()
                await lock.start()
                await holder.execute("select from rewards where reward_id = $1 for update", REWARD)
                asked = await _ask(orders, administrator, "Lock")
                told, end = await _stop_and_cut(system, instance, asked)
                fault_report.judge(end)
                await lock.rollback()
                await _wait_no_backend(administrator)
                assert await administrator.fetchval("select count(*) from redemptions") == 0
                redeemed, judgement = await _judge_repetition(system, orders)
        fault_report.judge(judgement)
        await system.stop_services()
    assert told == 504
    assert len(redeemed) == 1


@pytest.mark.fault("H3", "SIGTERM, a redemption's commit takes longer than its deadline and cannot be called back")
async def test_request_cut_in_its_commit_is_stored_with_its_key(tmp_path: Path, fault_report: FaultReport) -> None:
    """The client is told 504, the database commits all the same, and the same key finds that redemption."""
    async with open_system(tmp_path, services=COUPON_FLOW) as system, _administrator(system) as administrator:
        await plant(make_seed(1, 1_000), system.rewards_url)
        await administrator.execute(SLOW_COMMIT)
        async with open_fault_proxy(system.postgres.port) as proxy:
            instance = await _start_short(system, proxy)
            with Ledger(tmp_path) as ledger:
                orders = OrderBook(system, ledger)
                asked = await _ask(orders, administrator, "Timeout")
                proxy.refuse()  # the driver's request to cancel travels on a connection of its own
                told, end = await _stop_and_cut(system, instance, asked)
                fault_report.judge(end)

                async def is_committed() -> bool:
                    return bool(await administrator.fetchval("select count(*) from redemptions"))

                await eventually(is_committed)
                stored = await administrator.fetchval("select redemption_id::text from redemptions")
                redeemed, judgement = await _judge_repetition(system, orders)
        fault_report.judge(judgement)
        await system.stop_services()
    assert told == 504
    assert redeemed == {stored}
