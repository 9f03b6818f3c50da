"""The ETL killed at every point that matters and at random: each row of the file once, each reject once."""

import asyncio
import signal
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Final

import pytest

from etl.app import CRASH_POINTS
from etl.rejects import reject_path
from etl.settings import Duplicates
from tests.support.etl_judge import judge_leftovers, judge_load, judge_loaded
from tests.support.etl_process import EtlCommand
from tests.support.etl_scene import behind_proxy, some_file
from tests.support.eventually import eventually
from tests.support.fault_report import FaultReport
from tests.support.seeds import seeded
from tests.support.service_process import armed
from tests.support.system_call import injected

pytestmark = pytest.mark.timeout(600)

ROWS: Final = 15_000
AMID: Final = [point for point in CRASH_POINTS if point != "before-finish"]
KILLS_AMID: Final = 18
KILLS_AT_THE_END: Final = 3
RANDOM_KILLS: Final = 12
KILLED: Final = -signal.SIGKILL


@pytest.mark.parametrize(
    ("workers", "rule"),
    [
        pytest.param(
            workers,
            rule,
            marks=[
                pytest.mark.fault(
                    "E1",
                    f"{KILLS_AMID + KILLS_AT_THE_END} kills of one load at {len(CRASH_POINTS)} points, {name}, {rule}",
                ),
                *([] if (workers, rule) == (8, Duplicates.FIRST) else [pytest.mark.thorough]),
            ],
        )
        for workers, name in ((1, "one worker"), (8, "8 workers"))
        for rule in (Duplicates.FIRST, Duplicates.LAST)
    ],
)
async def test_load_killed_at_every_point_ends_as_if_never_killed(
    etl: EtlCommand, fault_report: FaultReport, workers: int, rule: Duplicates
) -> None:
    """After each death the table is what the lines in the ledger make; the last try makes it what the file makes."""
    random = seeded("kill")
    path, file = some_file(etl, rows=ROWS)
    points = [AMID[number % len(AMID)] for number in range(KILLS_AMID)] + ["before-finish"] * KILLS_AT_THE_END
    for point in points:
        batch_rows, hit = random.randint(20, 60), random.randint(1, 3) if point in AMID else 1
        options = ("--workers", workers, "--duplicates", rule, "--batch-rows", batch_rows)
        killed = await etl.load(path, *options, variables=armed(point, hit))
        assert killed.status == KILLED, (point, hit, killed.log)
        fault_report.judge(await judge_load(etl, file, rule=rule))
    ended = await etl.load(path, "--workers", workers, "--duplicates", rule)
    fault_report.judge(await judge_loaded(etl, ended, file, rule))


async def kill_after_some_rows(etl: EtlCommand, path: Path, random: Random) -> None:
    """Start a load, and kill it at some moment after its first batch, if it has not ended by then."""
    before = await etl.ranges()
    async with etl.loading(path, "--batch-rows", random.randint(20, 60)) as load:

        async def has_begun() -> bool:
            return load.process.returncode is not None or await etl.ranges() > before

        await eventually(has_begun, seconds=60)
        await asyncio.sleep(random.uniform(0, 0.1))
        assert load.process.returncode is None, "it ended before it was killed"


@pytest.mark.thorough
@pytest.mark.fault("E1", f"{RANDOM_KILLS} kills of one load at random")
async def test_load_killed_at_random_ends_as_if_never_killed(etl: EtlCommand, fault_report: FaultReport) -> None:
    """Whatever the moment of a death, nothing is lost or doubled, then or in the end."""
    random = seeded("kill")
    path, file = some_file(etl, rows=ROWS)
    for _ in range(RANDOM_KILLS):
        await kill_after_some_rows(etl, path, random)
        fault_report.judge(await judge_load(etl, file))
    fault_report.judge(await judge_loaded(etl, await etl.load(path), file))


@pytest.mark.fault("E1", "a kill while COPY is under way on four connections of a slow network")
async def test_load_killed_in_mid_copy_leaves_nothing_of_its_batches(
    etl: EtlCommand, fault_report: FaultReport
) -> None:
    """The server rolls back what it had of them, its backends end, and the next try loads it."""
    path, file = some_file(etl, rows=ROWS)
    async with behind_proxy(etl) as (slow, proxy):
        proxy.up.slice_bytes, proxy.up.delay_seconds = 2_048, 0.02
        async with slow.loading(path, "--workers", 4, "--batch-rows", 3_000):
            await eventually(lambda: slow.copies_under_way(at_least=4), seconds=60)
        fault_report.judge(await judge_leftovers(etl), await judge_load(etl, file))
        assert await etl.ranges() == 0
    fault_report.judge(await judge_loaded(etl, await etl.load(path), file))


@pytest.mark.parametrize(
    "call",
    [
        pytest.param("rename", marks=pytest.mark.fault("E1", "a kill before the cleaned reject file takes its place")),
        pytest.param(
            "fsync",
            marks=[
                pytest.mark.fault("E1", "a kill before the cleaned reject file is on disk"),
                pytest.mark.thorough,
            ],
        ),
    ],
)
async def test_load_killed_while_it_cleans_the_reject_file_keeps_the_rejects_that_count(
    etl: EtlCommand, fault_report: FaultReport, call: str
) -> None:
    """The old file or the new one is there, never half of one; the next try cleans again."""
    path, file = some_file(etl, rows=ROWS)
    killed = await etl.load(path, "--batch-rows", 500, variables=armed("after-rejects", 9))
    assert killed.status == KILLED
    rejects = reject_path(etl.rejects_directory, file.sha256)
    under = injected(f"{call}:signal=KILL", path=rejects.with_name(f"{rejects.name}.new"))
    killed = await replace(etl, under=under).load(path, "--batch-rows", 500)
    assert killed.status == KILLED, killed.log
    fault_report.judge(await judge_load(etl, file))
    fault_report.judge(await judge_loaded(etl, await etl.load(path), file))


@pytest.mark.fault("E1", "a death of the machine: the last record of the reject file is cut off")
async def test_reject_file_cut_in_a_record_is_gone_on_with(etl: EtlCommand, fault_report: FaultReport) -> None:
    """What was not yet on disk belongs to a batch that does not count, and is written again, on a line of its own."""
    path, file = some_file(etl, rows=ROWS)
    killed = await etl.load(path, "--batch-rows", 500, "--workers", 1, variables=armed("after-rejects", 9))
    assert killed.status == KILLED
    rejects = reject_path(etl.rejects_directory, file.sha256)
    rejects.write_bytes(rejects.read_bytes()[:-20])
    fault_report.judge(await judge_load(etl, file))
    fault_report.judge(await judge_loaded(etl, await etl.load(path), file))


@pytest.mark.thorough
@pytest.mark.fault("E1", "a kill in mid-file of standard input, which comes again as a file")
async def test_load_of_standard_input_that_is_killed_leaves_no_spool(
    etl: EtlCommand, fault_report: FaultReport
) -> None:
    """What was kept of it is gone with the process; its content is known, and gone on with under any name."""
    path, file = some_file(etl, rows=ROWS)
    killed = await etl.load("-", "--batch-rows", 500, content=file.content, variables=armed("after-copy", 9))
    assert killed.status == KILLED
    fault_report.judge(await judge_leftovers(etl), await judge_load(etl, file))
    assert await etl.ranges()
    fault_report.judge(await judge_loaded(etl, await etl.load(path), file))
