"""Disks that fill up: the database's data, its log of changes, its temporary files, and the log of a service."""

import asyncio
import contextlib
import shutil
from pathlib import Path
from typing import Final

import asyncpg
import pytest

from runtime.errors import DependencyUnavailable
from runtime.postgres import open_pool
from sandbox.servers import KafkaServer, PostgresServer, ServerError, open_postgres
from sandbox.servers.account import unprivileged_account
from tests.support.eventually import eventually
from tests.support.fault_report import FaultReport
from tests.support.judgement import Rule, judge
from tests.support.pools import pool_settings
from tests.support.redeemers import outcome
from tests.support.servers import embedded_only
from tests.support.shop import Shop, open_shop
from tests.support.small_disk import SmallDisk, open_small_disk
from tests.support.trade import open_trade

pytestmark = embedded_only

FULL_SECONDS: Final = 3.0
UNAVAILABLE: Final = "503 dependency-unavailable"
SMALL_LOG: Final = {"max_wal_size": "48MB", "min_wal_size": "32MB"}
SORT: Final = "select count(*) from (select g from generate_series(1, 2000000) as g order by g desc) as sorted"


async def move_data(server: PostgresServer, shop: Shop, disk: SmallDisk) -> None:
    """Put the shop's database on the disk."""
    connection = await asyncpg.connect(server.superuser_url, timeout=10)
    try:
        await connection.execute(f"create tablespace small location '{disk.make_directory('data')}'")
        await connection.execute(f"alter database {shop.place.database} set tablespace small")
    finally:
        await connection.close(timeout=10)


@pytest.mark.fault("H20", "the disk of Postgres' data full for 3 s under orders")
async def test_full_data_disk_refuses_orders_until_there_is_room(
    kafka: KafkaServer, tmp_path: Path, fault_report: FaultReport
) -> None:
    """Orders are told to come again (53100), reads go on, the log says why; with room each order is done once."""
    with open_small_disk(64) as disk:
        async with open_postgres() as server, open_shop(server, kafka, tmp_path) as shop:
            await move_data(server, shop, disk)
            async with open_trade(shop, rate=20) as trade:
                disk.fill()
                await trade.redeemers.wait_answers(UNAVAILABLE)
                await asyncio.sleep(FULL_SECONDS)
                async with trade.service.client("m-1", connections=1) as client:
                    assert outcome(await client.get("/v1/rewards")) == "200"
                assert await trade.service.readiness() == 200
                disk.free()
                back_seconds = await trade.wait_back()
                assert any("DiskFullError" in str(line.get("error")) for line in trade.service.log())
                await trade.report(fault_report, back_seconds)


async def move_changes(server: PostgresServer, disk: SmallDisk) -> None:
    """Put the server's log of changes (WAL) on the disk; it is restarted for it."""
    await server.stop_fast()
    place, target = server.log.parent / "data" / "pg_wal", disk.make_directory("changes") / "pg_wal"
    await asyncio.to_thread(shutil.move, place, target)
    place.symlink_to(target)
    if (account := unprivileged_account()) is not None:
        for path in (target, *target.rglob("*")):  # moved to another disk, all of it is new
            account.own(path)
    await server.start()


def is_running(server: PostgresServer) -> bool:
    """Tell whether the server has not ended."""
    with contextlib.suppress(ServerError):
        return bool(server.pid)
    return False


async def use_up_changes(server: PostgresServer) -> None:
    """Ask for one more file of the log after the other, until the server is gone."""
    async with asyncio.timeout(60):
        while is_running(server):
            with contextlib.suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
                connection = await asyncpg.connect(server.superuser_url, timeout=5, command_timeout=10)
                try:
                    await connection.execute("create temporary table filler (one int); select pg_switch_wal()")
                finally:
                    await connection.close(timeout=5)
            await asyncio.sleep(0.05)


@pytest.mark.thorough
@pytest.mark.fault("H20", "the disk of Postgres' WAL full under orders, until the server was gone")
async def test_full_wal_disk_is_a_database_that_is_gone(
    kafka: KafkaServer, tmp_path: Path, fault_report: FaultReport
) -> None:
    """The service lives, is not ready and says when to come again; started with room, the server has every order."""
    with open_small_disk(80) as disk:
        async with open_postgres(settings=SMALL_LOG) as server:
            await move_changes(server, disk)
            async with open_shop(server, kafka, tmp_path) as shop, open_trade(shop) as trade:
                disk.fill()
                await use_up_changes(server)
                await trade.redeemers.wait_answers(UNAVAILABLE)
                await trade.service.wait_readiness(503)
                assert await trade.is_live()
                disk.free()
                await server.start()
                back_seconds = await trade.wait_back()
                await trade.report(fault_report, back_seconds)


@pytest.mark.fault("H20", "the disk of Postgres' temporary files too small for a sort")
async def test_sort_that_does_not_fit_its_disk_is_told_and_leaves_nothing(fault_report: FaultReport) -> None:
    """The caller hears that the server cannot do it now, the connection is lent again, and the files are gone."""
    with open_small_disk(2) as disk:
        async with open_postgres() as server, open_pool(pool_settings(server.superuser_url, pool_max=1)) as pool:
            await pool.execute(f"create tablespace small location '{disk.make_directory('temporary')}'")
            await pool.execute("alter role postgres set temp_tablespaces = 'small'")
            await pool.execute("alter role postgres set work_mem = '64kB'")
            pool.expire()
            before = disk.used_bytes()
            with pytest.raises(DependencyUnavailable, match="No space left on device"):
                await pool.fetch_row(SORT)
            assert await pool.fetch_row("select 1")
            opened = pool.statistics().opened
            left = [f"{disk.used_bytes() - before} bytes are left"] if disk.used_bytes() > before else []
            fault_report.judge(judge(Rule.NO_LEAK, [*left, *([f"{opened} connections"] if opened > 2 else [])]))


@pytest.mark.fault("H20", "the disk of reward_store's log full for 50 orders")
async def test_full_log_disk_never_stops_serving(
    postgres: PostgresServer, kafka: KafkaServer, tmp_path: Path, fault_report: FaultReport
) -> None:
    """Orders go on and the service stays ready; with room again the log says how many lines it lost."""
    with open_small_disk(1) as disk:
        async with (
            open_shop(postgres, kafka, tmp_path) as shop,
            open_trade(shop, rate=20, log_directory=disk.path) as trade,
        ):
            disk.fill()
            await trade.redeemers.wait_told(50)
            assert await trade.service.readiness() == 200
            disk.free()
            await eventually(lambda: "Log lines were dropped" in trade.service.events())
            back_seconds = await trade.wait_back()
            await trade.report(fault_report, back_seconds)
