"""The database of the ETL restarted, crashed, cut off and full while a file is loaded: it waits, and is exact."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

import asyncpg
import pytest

from deploy.migrate import migrate
from sandbox.servers import PostgresServer, open_postgres
from tests.faults.conftest import etl_command
from tests.support.databases import migrate_settings
from tests.support.etl_judge import judge_ended, judge_leftovers, judge_load, judge_loaded, log_lines
from tests.support.etl_process import EtlCommand, Load
from tests.support.etl_scene import behind_proxy, some_file, terminate
from tests.support.eventually import eventually
from tests.support.fault_proxy import FaultProxy
from tests.support.fault_report import FaultReport
from tests.support.servers import embedded_only
from tests.support.small_disk import SmallDisk, open_small_disk

FOUR_WORKERS: Final = ("--workers", 4, "--batch-rows", 100)
LOST_ANSWERS: Final = 8
AWAY_SECONDS: Final = 1.0
FAILED: Final = (1, "Process stopped")
IMPATIENT: Final = {"POSTGRES__STATEMENT_TIMEOUT_SECONDS": "2", "POSTGRES__LOCK_TIMEOUT_SECONDS": "2"}
Hurt = Callable[[EtlCommand, FaultProxy], Awaitable[None]]


async def wait_rows(etl: EtlCommand, load: Load, more: int = 300) -> None:
    """Wait until so many more rows are in the ledger than now, while the load runs."""
    begin = await etl.rows()

    async def are_there() -> bool:
        assert load.process.returncode is None, "it ended before it was hurt"
        return await etl.rows() >= begin + more

    await eventually(are_there, seconds=60)


async def restart(etl: EtlCommand) -> None:
    """Restart in order."""
    await etl.postgres.restart()


async def crash(etl: EtlCommand) -> None:
    """Stop as a crash does, be away for a moment, recover."""
    await etl.postgres.stop_immediately()
    await asyncio.sleep(AWAY_SECONDS)
    await etl.postgres.start()


@pytest.mark.parametrize(
    "hurt",
    [
        pytest.param(restart, marks=pytest.mark.fault("E3", "a fast restart of Postgres, twice, 4 workers")),
        pytest.param(
            crash,
            marks=[
                pytest.mark.fault("E3", "an immediate stop of Postgres for 1 s, twice, 4 workers"),
                pytest.mark.thorough,
            ],
        ),
    ],
)
async def test_database_that_is_away_for_a_moment_is_waited_for(
    fragile_etl: EtlCommand, fault_report: FaultReport, hurt: Callable[[EtlCommand], Awaitable[None]]
) -> None:
    """Batches in hand are tried again until they are loaded, each once; the load ends as if nothing had been."""
    path, file = some_file(fragile_etl)
    async with behind_proxy(fragile_etl) as (slow, proxy):
        proxy.up.delay_seconds = 0.02
        async with slow.loading(path, *FOUR_WORKERS) as load:
            for _ in range(2):
                await wait_rows(fragile_etl, load)
                await hurt(fragile_etl)
            proxy.up.delay_seconds = 0.0
            ended = await load.end()
    assert "Waiting for Postgres" in ended.log
    fault_report.judge(await judge_loaded(fragile_etl, ended, file))


@pytest.mark.fault("E3", "every connection terminated in mid-COPY, that which holds the file too, 6 times, 4 workers")
async def test_terminated_connections_cost_only_another_try(etl: EtlCommand, fault_report: FaultReport) -> None:
    """What was in COPY is rolled back and tried again; without its lock the file is loaded by its ledger alone."""
    path, file = some_file(etl)
    async with behind_proxy(etl) as (slow, proxy):
        proxy.up.delay_seconds, proxy.up.slice_bytes = 0.02, 4_096
        async with slow.loading(path, *FOUR_WORKERS) as load:
            for _ in range(6):
                await wait_rows(etl, load)
                await eventually(etl.copies_under_way, seconds=60)
                assert await terminate(etl)
            proxy.up.delay_seconds, proxy.up.slice_bytes = 0.0, None
            ended = await load.end()
    fault_report.judge(await judge_loaded(etl, ended, file))


async def lose_answers(etl: EtlCommand, proxy: FaultProxy) -> None:
    """Reset all connections when a commit is there and its answer is still under way."""
    before = await etl.ranges()

    async def has_one_more() -> bool:
        return await etl.ranges() > before

    await eventually(has_one_more, seconds=60)
    proxy.reset()


async def reset(_etl: EtlCommand, proxy: FaultProxy) -> None:
    """Reset all connections at some moment."""
    proxy.reset()


async def swallow(_etl: EtlCommand, proxy: FaultProxy) -> None:
    """Be a black hole for longer than a statement may take, and forget what was held back."""
    proxy.up.swallow()
    await asyncio.sleep(4)
    proxy.reset()
    proxy.up.restore()


@pytest.mark.parametrize(
    ("hurt", "times"),
    [
        pytest.param(
            lose_answers,
            LOST_ANSWERS,
            marks=pytest.mark.fault("E3", f"{LOST_ANSWERS} resets between a commit and its answer, 4 workers"),
        ),
        pytest.param(
            reset, 6, marks=[pytest.mark.fault("E3", "6 resets of all connections, 4 workers"), pytest.mark.thorough]
        ),
        pytest.param(
            swallow,
            2,
            marks=[
                pytest.mark.fault("E3", "a black hole beyond the time of a statement, twice, 4 workers"),
                pytest.mark.thorough,
            ],
        ),
    ],
)
async def test_network_that_fails_doubles_nothing(
    etl: EtlCommand, fault_report: FaultReport, hurt: Hurt, times: int
) -> None:
    """A batch whose commit was not answered is found in the ledger, with its counts, and not loaded again."""
    path, file = some_file(etl)
    async with behind_proxy(etl) as (cut_off, proxy):
        proxy.down.delay_seconds = 0.05
        async with cut_off.loading(path, *FOUR_WORKERS, variables=IMPATIENT) as load:
            for _ in range(times):
                await wait_rows(etl, load, 1)
                await hurt(etl, proxy)
            proxy.down.delay_seconds = 0.0
            ended = await load.end()
    assert "Waiting for Postgres" in ended.log
    fault_report.judge(await judge_loaded(etl, ended, file))


async def move_data(etl: EtlCommand, disk: SmallDisk) -> None:
    """Put the coupons' database on the disk."""
    connection = await asyncpg.connect(etl.postgres.superuser_url, timeout=10)
    try:
        await connection.execute(f"create tablespace small location '{disk.make_directory('data')}'")
        await connection.execute(f"alter database {etl.database} set tablespace small")
    finally:
        await connection.close(timeout=10)


async def etl_on(server: PostgresServer, directory: Path) -> EtlCommand:
    """Return the ETL's command line on a fresh database of a server."""
    settings = migrate_settings(server)
    await migrate(settings)
    return etl_command(server, settings.coupons_database, directory)


@embedded_only
@pytest.mark.fault("E4", "the disk of Postgres' data full in mid-file, freed after the first refusal")
async def test_full_disk_of_the_database_is_waited_for(tmp_path: Path, fault_report: FaultReport) -> None:
    """Batches are refused (53100) and tried again; with room the load ends as if there always had been."""
    with open_small_disk(64) as disk:
        async with open_postgres() as server:
            etl = await etl_on(server, tmp_path)
            await move_data(etl, disk)
            path, file = some_file(etl)
            async with behind_proxy(etl) as (slow, proxy):
                proxy.up.delay_seconds = 0.02
                async with slow.loading(path, *FOUR_WORKERS) as load:
                    await wait_rows(etl, load)
                    disk.fill()
                    proxy.up.delay_seconds = 0.0
                    await load.wait_event("Waiting for Postgres")
                    disk.free()
                    ended = await load.end()
            assert any("DiskFullError" in str(line.get("reason")) for line in log_lines(ended.log))
            fault_report.judge(await judge_loaded(etl, ended, file))


@embedded_only
@pytest.mark.thorough
@pytest.mark.fault("E4", "the disk of Postgres' data full until the time to give up, and freed for the next try")
async def test_full_disk_of_the_database_that_stays_full_ends_the_load(
    tmp_path: Path, fault_report: FaultReport
) -> None:
    """After `give_up_seconds` the load fails and says of what; the same command, with room, does the rest."""
    with open_small_disk(64) as disk:
        async with open_postgres() as server:
            etl = await etl_on(server, tmp_path)
            await move_data(etl, disk)
            path, file = some_file(etl)
            disk.fill()
            ended = await etl.load(path, *FOUR_WORKERS, variables={"RETRY__GIVE_UP_SECONDS": "2"})
            assert "No space left on device" in etl.report()["detail"]
            fault_report.judge(judge_ended(ended, FAILED), await judge_load(etl, file), await judge_leftovers(etl))
            disk.free()
            fault_report.judge(await judge_loaded(etl, await etl.load(path), file))


@pytest.mark.fault("E3", "Postgres goes away while standard input is read, and comes back after the first try")
async def test_database_that_is_away_when_a_file_begins_is_waited_for(
    etl: EtlCommand, fault_report: FaultReport
) -> None:
    """Between two files, or behind a long reading, its first question may fail as any other one, and is asked again."""
    path, file = some_file(etl)
    async with behind_proxy(etl) as (cut_off, proxy), cut_off.loading("-") as load:
        stdin = load.process.stdin
        assert stdin is not None
        await eventually(lambda: proxy.statistics().open, seconds=60)
        stdin.write(path.read_bytes()[:1_000])
        await stdin.drain()
        await asyncio.sleep(0.5)  # the connection of the start is idle by then; if not, the load only meets it earlier
        proxy.refuse()
        proxy.reset()
        stdin.write(path.read_bytes()[1_000:])
        stdin.close()
        await load.wait_event("No connection could be opened")
        await load.wait_event("Waiting for Postgres")
        await proxy.listen()
        ended = await load.end()
    fault_report.judge(await judge_loaded(etl, ended, file))
