"""The ETL with one of its guards taken out: what each of them keeps from happening, seen to happen."""

import contextlib
import signal
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Final

import pytest

from etl.settings import Duplicates
from sandbox.coupon_file import coupon_rows
from tests.support.etl_judge import deadlocks, judge_deadlocks, judge_ended, judge_load, judge_loaded
from tests.support.etl_model import read_model
from tests.support.etl_process import Ended, EtlCommand
from tests.support.etl_scene import behind_proxy, code_taken, overwrite, pair_of, some_file, terminate, with_codes_of
from tests.support.eventually import eventually
from tests.support.fault_report import FaultReport
from tests.support.judgement import Judgement, Rule
from tests.support.service_process import armed

SMALL: Final = ("--workers", 1, "--batch-rows", 100)
ENDED: Final = "Process stopped"


async def overtake(
    etl: EtlCommand, *, frozen_without: str | None, without: str | None, batch_rows: int
) -> tuple[Judgement, Ended]:
    """Freeze a load in front of a batch, load the content on another machine, thaw; judge, and tell how it ended."""
    path, file = some_file(etl)
    frozen = replace(etl, without=frozen_without)
    other = replace(etl, directory=etl.directory / "other", without=without)
    other.directory.mkdir()
    async with frozen.loading(path, *SMALL, variables=armed("before-load", 9, "freeze")) as first:
        await eventually(first.is_frozen, seconds=60)
        if without is None:
            await terminate(etl)
        ended = await other.load(path, "--batch-rows", batch_rows)
        assert ended.status == 3, ended.log
        first.send_signal(signal.SIGCONT)
        thawed = await first.end()
    return await judge_load(etl, file, directories=[etl.rejects_directory, other.rejects_directory]), thawed


@pytest.mark.thorough
@pytest.mark.fault("G17", "a process frozen in front of a batch, which another one loads, thawed")
async def test_batch_that_another_process_loaded_is_found_in_the_ledger(
    etl: EtlCommand, fault_report: FaultReport
) -> None:
    """The claim of its bytes finds the other's, and the counts stay what they were."""
    judgement, thawed = await overtake(etl, frozen_without=None, without=None, batch_rows=100)
    fault_report.judge(judgement, judge_ended(thawed, (3, ENDED)))


@pytest.mark.fault("G17", "without the guard: a process frozen in front of a batch, which another one loads, thawed")
async def test_without_the_claim_a_batch_is_counted_as_if_nothing_of_it_came_in(
    etl: EtlCommand, fault_report: FaultReport
) -> None:
    """Loaded again, all of its rows lose to themselves, and the ledger says that they were skipped."""
    judgement, _ = await overtake(etl, frozen_without="claim", without=None, batch_rows=100)
    fault_report.notice(judgement, Rule.PROGRESS_SAVED)


@pytest.mark.thorough
@pytest.mark.fault("G20", "without the lock on a file: a second process at once, with the same batches")
async def test_without_the_lock_the_ledger_alone_keeps_a_content_from_being_loaded_twice(
    etl: EtlCommand, fault_report: FaultReport
) -> None:
    """The lock spares work: with two processes at once all is exact without it."""
    judgement, thawed = await overtake(etl, frozen_without=None, without="lock", batch_rows=100)
    fault_report.judge(judgement, judge_ended(thawed, (3, ENDED)))


@contextlib.asynccontextmanager
async def ranges_not_apart(etl: EtlCommand) -> AsyncIterator[None]:
    """Take the constraint off by which no two batches of a file have a byte in common."""
    definition = await etl.ask("select pg_get_constraintdef(oid) from pg_constraint where conname = 'etl_ranges_apart'")
    await etl.ask("alter table etl_ranges drop constraint etl_ranges_apart")
    try:
        yield
    finally:
        await etl.ask("truncate etl_ranges")
        await etl.ask(f"alter table etl_ranges add constraint etl_ranges_apart {definition}")


@pytest.mark.thorough
@pytest.mark.fault("G20", "a process frozen in front of a batch, overtaken by one with other batches, thawed")
async def test_batch_of_which_another_process_loaded_a_part_is_not_loaded(
    etl: EtlCommand, fault_report: FaultReport
) -> None:
    """The ledger takes no two batches with a byte in common: the late one fails, with status 1, and changes nothing."""
    judgement, thawed = await overtake(etl, frozen_without=None, without=None, batch_rows=70)
    fault_report.judge(judgement, judge_ended(thawed, (1, ENDED)))


@pytest.mark.fault("G20", "without the guard: a process overtaken by one with other batches, thawed")
async def test_without_the_constraint_bytes_are_loaded_twice(etl: EtlCommand, fault_report: FaultReport) -> None:
    """Both batches are in the ledger, and it counts more rows than the file has."""
    async with ranges_not_apart(etl):
        judgement, _ = await overtake(etl, frozen_without=None, without=None, batch_rows=70)
    fault_report.notice(judgement, Rule.NOTHING_DOUBLED)


async def die_after_commits(etl: EtlCommand) -> Judgement:
    """Kill a load behind some commits, and let the same command go on; judge the end."""
    path, file = some_file(etl, bad_percent=10)
    killed = await etl.load(path, *SMALL, variables=armed("after-commit", 9))
    assert killed.status == -signal.SIGKILL
    return await judge_loaded(etl, await etl.load(path), file)


@pytest.mark.thorough
@pytest.mark.fault("G18", "kill -9 behind the ninth commit")
async def test_rejects_of_committed_batches_survive_a_death(etl: EtlCommand, fault_report: FaultReport) -> None:
    """They were on disk before their batches counted."""
    fault_report.judge(await die_after_commits(etl))


@pytest.mark.fault("G18", "without the guard: rejects written when the file ends, kill -9 behind the ninth commit")
async def test_without_rejects_first_a_death_costs_them(etl: EtlCommand, fault_report: FaultReport) -> None:
    """Nobody looks at those batches again, and their bad rows are nowhere."""
    fault_report.notice(await die_after_commits(replace(etl, without="rejects-first")), Rule.NOTHING_LOST)


async def change_while_loading(etl: EtlCommand) -> Judgement:
    """Write other amounts into the second half of a file while the first one is loaded."""
    path, file = some_file(etl, rows=20_000)
    async with behind_proxy(etl) as (slow, proxy):
        proxy.up.delay_seconds = 0.02
        async with slow.loading(path, "--workers", 1, "--batch-rows", 500) as load:
            await eventually(etl.ranges, seconds=60)
            overwrite(path)
            proxy.up.delay_seconds = 0.0
            await load.end()
    return await judge_load(etl, file)


@pytest.mark.thorough
@pytest.mark.fault("G19", "a file's second half overwritten under a load that has begun")
async def test_piece_that_changed_is_not_loaded(etl: EtlCommand, fault_report: FaultReport) -> None:
    """Each piece is held against the checksum that the first reading took of it."""
    fault_report.judge(await change_while_loading(etl))


@pytest.mark.fault("G19", "without the guard: a file's second half overwritten under a load")
async def test_without_checksums_another_content_is_loaded_under_the_files_name(
    etl: EtlCommand, fault_report: FaultReport
) -> None:
    """What the ledger says was loaded is not what is in the table."""
    fault_report.notice(await change_while_loading(replace(etl, without="checksum")), Rule.RIGHT_CONTENT)


async def meet(etl: EtlCommand, *, without: str | None) -> Judgement:
    """Have two processes load files with the same codes, and meet in the middle of a batch; judge who waits for whom.

    Somebody else has a code of the middle, until both wait.
    """
    some = list(coupon_rows(500, seed=3))
    same = with_codes_of(some, coupon_rows(500, seed=4))
    paths = [etl.write("some.csv", some), etl.write("same.csv", same)]
    files = [read_model(path.read_bytes()) for path in paths]
    by_code = sorted(range(500), key=lambda row: files[0].good[row].code)
    before = await deadlocks(etl)
    async with contextlib.AsyncExitStack() as stack:
        async with code_taken(etl, files[0], by_code[250]):
            one, other = pair_of(etl)
            loads = [
                await stack.enter_async_context(process.loading(path, "--workers", 1))
                for process, path in zip((one, replace(other, without=without)), paths, strict=True)
            ]
            await eventually(lambda: etl.is_waiting_for_lock(at_least=2), seconds=60)
        ended = [await load.end() for load in loads]
    return (
        judge_ended(ended[0], (0, ENDED))
        | judge_ended(ended[1], (0, ENDED))
        | await judge_load(etl, *files, rule=Duplicates.FIRST, is_in_order=False)
        | judge_deadlocks(await deadlocks(etl) - before)
    )


@pytest.mark.fault("G21", "2 processes load files with the same codes, and meet in the middle of a batch")
async def test_loads_never_wait_for_one_another_in_a_circle(etl: EtlCommand, fault_report: FaultReport) -> None:
    """Each takes codes without a row before those with one, both in their order."""
    fault_report.judge(await meet(etl, without=None))


@pytest.mark.fault("G21", "without the guard: 2 processes, one of which takes its codes in descending order, meet")
async def test_without_an_order_of_codes_loads_wait_in_circles(etl: EtlCommand, fault_report: FaultReport) -> None:
    """The server ends one of them after a second, and it is done again."""
    fault_report.notice(await meet(etl, without="code-order"), Rule.IN_TIME)
