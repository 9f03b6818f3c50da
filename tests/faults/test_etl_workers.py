"""Workers of the ETL that end in the middle of a batch, and too few threads for all of them."""

import asyncio
from dataclasses import replace
from typing import Final

import pytest

from tests.support.etl_judge import judge_ended, judge_leftovers, judge_load, judge_loaded
from tests.support.etl_process import EtlCommand
from tests.support.etl_scene import some_file
from tests.support.fault_report import FaultReport

FAILED: Final = (1, "Process stopped")
HANGS_SECONDS: Final = 30.0
"""By then a pool that waits for a worker which is gone has hung."""


@pytest.mark.parametrize(
    ("end", "on_error"),
    [
        pytest.param(
            end,
            on_error,
            marks=[
                pytest.mark.fault("E12", f"a worker of 4 that {what} in mid-file, --on-error {on_error}"),
                *([] if (end, on_error) == ("worker-by-cancel", "reject") else [pytest.mark.thorough]),
            ],
        )
        for end, what in (("worker-by-cancel", "is cancelled"), ("worker-by-exception", "dies of a BaseException"))
        for on_error in ("reject", "finish", "stop")
    ],
)
async def test_worker_that_ends_ends_the_load_and_its_batch_is_loaded_by_the_next_try(
    etl: EtlCommand, fault_report: FaultReport, end: str, on_error: str
) -> None:
    """Nobody waits for what it had in hand: status 1 at once, whole batches only, and the same command goes on."""
    path, file = some_file(etl, bad_percent=0)
    dying = replace(etl, without=end)
    async with asyncio.timeout(HANGS_SECONDS):
        ended = await dying.load(path, "--workers", 4, "--batch-rows", 100, "--on-error", on_error)
    fault_report.judge(judge_ended(ended, FAILED), await judge_load(etl, file), await judge_leftovers(etl))
    assert await etl.rows() < file.rows
    fault_report.judge(await judge_loaded(etl, await etl.load(path), file))


@pytest.mark.thorough
@pytest.mark.fault("E12", "one thread for all that blocks, 8 workers")
async def test_one_thread_for_all_workers_is_enough(etl: EtlCommand, fault_report: FaultReport) -> None:
    """Nothing that holds a thread waits for something that needs another one."""
    path, file = some_file(etl)
    ended = await replace(etl, without="threads").load(path, "--workers", 8, "--batch-rows", 50)
    fault_report.judge(await judge_loaded(etl, ended, file))
