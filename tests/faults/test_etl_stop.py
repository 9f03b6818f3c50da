"""The ETL told to stop, once and twice, at work and while it waits: how it ends, and that the same command goes on."""

import asyncio
import contextlib
import signal
import time
from signal import Signals
from typing import Final

import pytest

from sandbox.coupon_file import HEADER
from tests.support.etl_judge import judge_ended, judge_leftovers, judge_load, judge_loaded, log_lines
from tests.support.etl_model import FileModel
from tests.support.etl_process import Ended, EtlCommand, Load
from tests.support.etl_scene import ROWS, behind_proxy, code_taken, some_file
from tests.support.eventually import eventually
from tests.support.fault_report import FaultReport
from tests.support.judgement import Judgement, judge_time

GRACE_SECONDS: Final = 4.0
PROMPT_SECONDS: Final = 20.0
"""Of what is to happen at once, on a machine that does other things as well."""
STOPPED: Final = (75, "Process stopped")
FORCED: Final = (1, "Process stopped")
CUT_OFF: Final = (1, "Stopped by force")
"""Not even its connections can be closed in order."""
GOES_ON: Final = "stopped by a signal; the same command goes on"


async def stop(load: Load, number: Signals, fault_report: FaultReport, *, at_most: float) -> Ended:
    """Send a signal, wait for the end, and judge how long that took (L7)."""
    began = time.monotonic()
    load.send_signal(number)
    ended = await load.end(seconds=4 * at_most)
    seconds = time.monotonic() - began
    fault_report.judge(judge_time("stopping", seconds, at_most=at_most))
    fault_report.measure(stop=f"{seconds:.1f} s")
    return ended


async def judge_stopped(etl: EtlCommand, ended: Ended, file: FileModel) -> Judgement:
    """See a stop in order: what was begun is whole, and status, log and report say so and how to go on."""
    report = etl.report()
    assert (report["outcome"], report["detail"]) == ("stopped", GOES_ON)
    assert report["rows"] == await etl.rows()
    assert any(line.get("detail") == GOES_ON for line in log_lines(ended.log))
    return judge_ended(ended, STOPPED) | await judge_load(etl, file) | await judge_leftovers(etl)


@pytest.mark.parametrize(
    "number",
    [
        pytest.param(number, marks=[pytest.mark.fault("E2", f"{number.name} at half of a file, 4 workers"), *more])
        for number, more in ((signal.SIGTERM, []), (signal.SIGINT, [pytest.mark.thorough]))
    ],
)
async def test_signal_lets_batches_in_hand_end_and_the_same_command_goes_on(
    etl: EtlCommand, fault_report: FaultReport, number: Signals
) -> None:
    """Status 75, whole batches only, and the next try, with other batches, makes the table what the file makes."""
    path, file = some_file(etl)
    async with behind_proxy(etl) as (slow, proxy):
        proxy.up.delay_seconds = 0.01
        async with slow.loading(path, "--workers", 4, "--batch-rows", 30) as load:

            async def is_half() -> bool:
                return await etl.rows() > ROWS // 2

            await eventually(is_half, seconds=60)
            ended = await stop(load, number, fault_report, at_most=PROMPT_SECONDS)
    fault_report.judge(await judge_stopped(etl, ended, file))
    assert 0 < await etl.rows() < ROWS
    fault_report.judge(await judge_loaded(etl, await etl.load(path, "--batch-rows", 500), file))


@pytest.mark.fault("E2", "a second SIGTERM while a batch waits for somebody's lock")
async def test_second_signal_stops_now_and_rolls_back_what_was_in_hand(
    etl: EtlCommand, fault_report: FaultReport
) -> None:
    """The first lets the batch go on waiting; the second ends the process with status 1, and the batch is not there."""
    path, file = some_file(etl)
    async with code_taken(etl, file, 1_500), etl.loading(path, "--workers", 1, "--batch-rows", 500) as load:
        await eventually(etl.is_waiting_for_lock, seconds=60)
        load.send_signal(signal.SIGTERM)
        await load.wait_event("Received shutdown signal")
        ended = await stop(load, signal.SIGTERM, fault_report, at_most=PROMPT_SECONDS)
        assert "Stopped by force" in ended.log
        fault_report.judge(judge_ended(ended, FORCED), await judge_leftovers(etl))
    fault_report.judge(await judge_load(etl, file))
    assert 0 < await etl.rows() < ROWS
    fault_report.judge(await judge_loaded(etl, await etl.load(path), file))


@pytest.mark.parametrize(
    "how",
    [
        pytest.param(
            "lock",
            marks=[
                pytest.mark.fault("E2", "SIGTERM, and a batch waits for a lock beyond the budget"),
                pytest.mark.thorough,
            ],
        ),
        pytest.param("hole", marks=pytest.mark.fault("E2", "SIGTERM, and COPY is in a black hole beyond the budget")),
    ],
)
async def test_stop_that_outlasts_its_budget_is_forced(etl: EtlCommand, fault_report: FaultReport, how: str) -> None:
    """At the end of `grace_seconds` the process ends with status 1; what was in hand is rolled back."""
    path, file = some_file(etl)
    grace = {"GRACE_SECONDS": str(GRACE_SECONDS)}
    async with contextlib.AsyncExitStack() as stack:
        slow, proxy = await stack.enter_async_context(behind_proxy(etl))
        if how == "lock":
            await stack.enter_async_context(code_taken(etl, file, 1_500))
        load = await stack.enter_async_context(slow.loading(path, "--workers", 1, "--batch-rows", 500, variables=grace))
        if how == "lock":
            await eventually(etl.is_waiting_for_lock, seconds=60)
        else:
            await eventually(etl.ranges, seconds=60)
            proxy.up.slice_bytes, proxy.up.delay_seconds = 1_024, 0.05
            await eventually(slow.copies_under_way, seconds=60)
            proxy.up.swallow()
        ended = await stop(load, signal.SIGTERM, fault_report, at_most=GRACE_SECONDS + PROMPT_SECONDS)
        assert "Stopped by force" in ended.log
        proxy.reset()
        # The process is ended by force 3 s behind its budget, which is about when the driver gives up its COPY.
        is_cut_off = how == "hole" and log_lines(ended.log)[-1]["event"] == CUT_OFF[1]
        fault_report.judge(judge_ended(ended, CUT_OFF if is_cut_off else FORCED), await judge_leftovers(etl))
    fault_report.judge(await judge_load(etl, file))
    assert 0 < await etl.rows() < ROWS
    fault_report.judge(await judge_loaded(etl, await etl.load(path), file))


@pytest.mark.fault("E2", "SIGTERM while Postgres is awaited at the start")
async def test_signal_while_postgres_is_awaited_at_the_start_ends_the_load(
    etl: EtlCommand, fault_report: FaultReport
) -> None:
    """Nothing was begun: status 75 at once, and not after the time in which Postgres may come."""
    path, file = some_file(etl)
    async with behind_proxy(etl) as (cut_off, proxy):
        proxy.refuse()
        async with cut_off.loading(path) as load:
            await load.wait_event("No connection could be opened")
            ended = await stop(load, signal.SIGTERM, fault_report, at_most=PROMPT_SECONDS)
    fault_report.judge(judge_ended(ended, STOPPED), await judge_leftovers(etl))
    fault_report.judge(await judge_loaded(etl, await etl.load(path), file))


@pytest.mark.fault("E2", "SIGTERM while batches wait for a Postgres that went away")
async def test_signal_while_batches_wait_for_postgres_ends_the_load(etl: EtlCommand, fault_report: FaultReport) -> None:
    """The wait is cut short: status 75, and the report says what is known without asking the ledger."""
    path, file = some_file(etl)
    async with (
        behind_proxy(etl) as (cut_off, proxy),
        cut_off.loading(path, "--workers", 2, "--batch-rows", 100) as load,
    ):
        await eventually(etl.ranges, seconds=60)
        proxy.refuse()
        proxy.reset()
        await load.wait_event("Waiting for Postgres")
        ended = await stop(load, signal.SIGTERM, fault_report, at_most=PROMPT_SECONDS)
    assert etl.report()["outcome"] == "stopped"
    fault_report.judge(judge_ended(ended, STOPPED), await judge_leftovers(etl), await judge_load(etl, file))
    fault_report.judge(await judge_loaded(etl, await etl.load(path), file))


@pytest.mark.fault("E2", "SIGTERM while standard input brings nothing more")
async def test_signal_while_standard_input_is_awaited_ends_the_load(etl: EtlCommand, fault_report: FaultReport) -> None:
    """Whoever writes may hold the pipe open for ever: status 75 at once, and the spool is gone."""
    async with etl.loading("-") as load:
        assert load.process.stdin is not None
        load.process.stdin.write(HEADER)
        await load.process.stdin.drain()
        await load.wait_event("Admin server listening")
        await asyncio.sleep(0.5)  # it is at standard input by then, or finds the signal before it: both are to end
        ended = await stop(load, signal.SIGTERM, fault_report, at_most=PROMPT_SECONDS)
    assert etl.report()["outcome"] == "stopped"
    fault_report.judge(judge_ended(ended, STOPPED), await judge_leftovers(etl))
