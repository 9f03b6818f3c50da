"""Files that come twice, together, with the same codes, or change while they are read."""

import asyncio
import gzip
import os
import signal
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Final

import pytest

from etl.settings import Duplicates
from sandbox.coupon_file import HEADER, FileRow, coupon_rows
from tests.support.etl_judge import deadlocks, judge_deadlocks, judge_ended, judge_leftovers, judge_load, judge_loaded
from tests.support.etl_model import read_model
from tests.support.etl_process import Ended, EtlCommand
from tests.support.etl_scene import (
    behind_proxy,
    contradicting,
    empty,
    overwrite,
    pair_of,
    some_file,
    terminate,
    with_codes_of,
)
from tests.support.eventually import eventually
from tests.support.fault_report import FaultReport
from tests.support.judgement import Judgement, Rule, judge
from tests.support.seeds import seeded
from tests.support.service_process import armed

ENDED: Final = "Process stopped"
REFUSED: Final = (4, ENDED)
BUSY: Final = "another process loads a file of this content now"
INSTANTS: Final = 20
RUNS: Final = 10
SMALL: Final = ("--batch-rows", 100)


def judge_either(ended: Sequence[Ended], allowed: set[int]) -> Judgement:
    """Look whether one process loaded the file, and each other one did too or found it busy (L8)."""
    statuses = [one.status for one in ended]
    return judge(Rule.RIGHT_END, [] if 3 in statuses and set(statuses) <= allowed else [f"they ended with {statuses}"])


@pytest.mark.thorough
@pytest.mark.timeout(600)
@pytest.mark.fault("E6", f"{INSTANTS} times two processes started on one content in the same instant")
async def test_two_processes_in_the_same_instant_load_a_content_once(
    etl: EtlCommand, fault_report: FaultReport
) -> None:
    """One of them loads it, the other finds it busy or loaded; nothing is there twice, no reject is missing."""
    busy = 0
    for seed in range(INSTANTS):
        path, file = some_file(etl, rows=1_000, seed=seed)
        ended = await asyncio.gather(*(one.load(path, *SMALL) for one in pair_of(etl)))
        fault_report.judge(judge_either(ended, {3, 4}), await judge_load(etl, file), await judge_leftovers(etl))
        assert await etl.rows() == file.rows
        busy += any(one.status == 4 for one in ended)
        await empty(etl)
    fault_report.measure(found_busy=str(busy))


@pytest.mark.fault(
    "E6", "a second process, and a third with the content as gzip, while the first is frozen in mid-file"
)
async def test_content_that_another_process_loads_is_refused_and_left_to_it(
    etl: EtlCommand, fault_report: FaultReport
) -> None:
    """Both are told that it is busy, with status 4; thawed, the first one loads all; then again: nothing to do."""
    path, file = some_file(etl)
    packed = etl.directory / "packed.csv.gz"
    packed.write_bytes(gzip.compress(file.content))
    async with etl.loading(path, *SMALL, variables=armed("before-load", 9, "freeze")) as first:
        await eventually(etl.ranges, seconds=60)
        for other in (path, packed):
            ended = await etl.load(other, *SMALL)
            assert etl.report()["detail"] == BUSY
            fault_report.judge(judge_ended(ended, REFUSED))
        await eventually(first.is_frozen, seconds=60)
        first.send_signal(signal.SIGCONT)
        fault_report.judge(await judge_loaded(etl, await first.end(), file))
    for again in (path, packed):
        fault_report.judge(await judge_loaded(etl, await etl.load(again, "--batch-rows", 70), file))


@pytest.mark.parametrize(
    ("place", "batch_rows"),
    [
        pytest.param(
            place,
            batch_rows,
            marks=[
                pytest.mark.fault("E6", f"a frozen process that lost its lock, overtaken: {place}, {batches}"),
                *more,
            ],
        )
        for place, batch_rows, batches, more in (
            ("one directory", 70, "other batches", []),
            ("two machines", 70, "other batches", [pytest.mark.thorough]),
            ("two machines", 100, "same batches", [pytest.mark.thorough]),
        )
    ],
)
async def test_holder_that_lost_its_lock_doubles_nothing(
    etl: EtlCommand, fault_report: FaultReport, place: str, batch_rows: int
) -> None:
    """Thawed, it finds in the ledger what another one loaded; where they share a directory, the other is kept out."""
    path, file = some_file(etl)
    is_shared = place == "one directory"
    other = etl if is_shared else replace(etl, directory=etl.directory / "other")
    other.directory.mkdir(exist_ok=True)
    async with etl.loading(path, *SMALL, variables=armed("after-rejects", 9, "freeze")) as first:
        await eventually(first.is_frozen, seconds=60)
        assert await terminate(etl)
        ended = await other.load(path, "--batch-rows", batch_rows)
        fault_report.judge(judge_ended(ended, REFUSED if is_shared else (3, ENDED)))
        first.send_signal(signal.SIGCONT)
        await first.end()
    again = await other.load(path)
    directories = {etl.rejects_directory, other.rejects_directory}
    fault_report.judge(await judge_loaded(other, again, file, directories=directories))


@pytest.mark.parametrize(
    ("workers", "runs", "rule"),
    [
        pytest.param(
            workers,
            runs,
            rule,
            marks=[
                pytest.mark.fault(
                    "E8", f"contradicting rows in and across two files, workers: {workers}, {rule}{times}"
                ),
                pytest.mark.timeout(600),
                *more,
            ],
        )
        for rule in (Duplicates.FIRST, Duplicates.LAST)
        for workers, runs, times, more in (
            (8, 1, "", [] if rule is Duplicates.LAST else [pytest.mark.thorough]),
            (1, RUNS, f", {RUNS} runs", [pytest.mark.thorough]),
            (8, RUNS, f", {RUNS} runs", [pytest.mark.thorough]),
        )
    ],
)
async def test_of_rows_that_contradict_one_another_the_rule_says_which_stays(
    etl: EtlCommand, fault_report: FaultReport, workers: int, runs: int, rule: Duplicates
) -> None:
    """The table is the same for any number of workers and in every run; that rows contradict one another is told."""
    random = Random(7)
    paths = [contradicting(etl, name, 700, random) for name in ("one.csv", "two.csv")]
    files = [read_model(path.read_bytes()) for path in paths]
    for _ in range(runs):
        for path in paths:
            ended = await etl.load(path, "--workers", workers, "--batch-rows", 60, "--duplicates", rule)
            fault_report.judge(judge_ended(ended, (0, ENDED)))
            report = etl.report()
            assert len(files[0].conflicting()) <= report["conflicting"] <= report["skipped"]
            assert "Rows differ from what is there under their code" in ended.log
        fault_report.judge(await judge_load(etl, *files, rule=rule))
        await empty(etl)


@pytest.mark.parametrize(
    ("rule", "rounds"),
    [
        pytest.param(
            rule,
            rounds,
            marks=[
                pytest.mark.fault("E9", f"{times}two files with the same codes in opposite orders at once, {rule}"),
                *more,
            ],
        )
        for rule in (Duplicates.FIRST, Duplicates.LAST)
        for rounds, times, more in ((1, "", []), (8, "8 times ", [pytest.mark.thorough, pytest.mark.timeout(600)]))
    ],
)
async def test_files_with_the_same_codes_in_opposite_orders_do_not_end_one_another(
    etl: EtlCommand, fault_report: FaultReport, rule: Duplicates, rounds: int
) -> None:
    """Each code has a row by the rule, every batch of both is loaded, and none waits for another in a circle."""
    random = seeded("order")
    before = await deadlocks(etl)
    for _ in range(rounds):
        there = list(coupon_rows(3_000, seed=random.randrange(10**6)))
        back = with_codes_of(reversed(there), coupon_rows(3_000, seed=random.randrange(10**6)))
        paths = [etl.write("there.csv", there), etl.write("back.csv", back)]
        ended = await asyncio.gather(
            *(
                one.load(path, "--workers", 8, "--batch-rows", 300, "--duplicates", rule)
                for one, path in zip(pair_of(etl), paths, strict=True)
            )
        )
        files = [read_model(path.read_bytes()) for path in paths]
        fault_report.judge(
            *(judge_ended(one, (0, ENDED)) for one in ended),
            await judge_load(etl, *files, rule=rule, is_in_order=False),
            await judge_leftovers(etl),
        )
        assert await etl.rows() == 6_000
        await empty(etl)
    fault_report.judge(judge_deadlocks(await deadlocks(etl) - before))


def cut(path: Path) -> None:
    """Cut the file off in its second half."""
    os.truncate(path, path.stat().st_size * 3 // 4)


def grow(path: Path) -> None:
    """Append rows."""
    with path.open("ab") as file:
        file.writelines(row.raw for row in coupon_rows(100, seed=77))


def replace_it(path: Path) -> None:
    """Put another file in its place."""
    new = path.with_name("new")
    new.write_bytes(HEADER + b"".join(row.raw for row in coupon_rows(100, seed=77)))
    new.replace(path)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(overwrite, marks=pytest.mark.fault("E6", "a file's second half overwritten while it is loaded")),
        pytest.param(cut, marks=[pytest.mark.fault("E6", "a file cut off while it is loaded"), pytest.mark.thorough]),
        pytest.param(
            grow, marks=[pytest.mark.fault("E6", "a file that grows while it is loaded"), pytest.mark.thorough]
        ),
        pytest.param(replace_it, marks=pytest.mark.fault("E6", "a file replaced while it is loaded")),
    ],
)
async def test_file_that_changes_while_it_is_loaded_is_refused(
    etl: EtlCommand, fault_report: FaultReport, change: Callable[[Path], None]
) -> None:
    """Status 4 and a word on it; what is loaded is what the file was at first, and that content can be gone on with."""
    path, file = some_file(etl, rows=20_000)
    async with behind_proxy(etl) as (slow, proxy):
        proxy.up.delay_seconds = 0.02
        async with slow.loading(path, "--workers", 1, "--batch-rows", 500) as load:
            await eventually(etl.ranges, seconds=60)
            change(path)
            proxy.up.delay_seconds = 0.0
            ended = await load.end()
    assert "while it was read" in etl.report()["detail"]
    fault_report.judge(judge_ended(ended, REFUSED), await judge_load(etl, file), await judge_leftovers(etl))
    path.write_bytes(file.content)
    fault_report.judge(await judge_loaded(etl, await etl.load(path), file))


@pytest.mark.parametrize(
    "workers",
    [
        pytest.param(
            workers,
            marks=[
                pytest.mark.fault("E8", f"a code of the first half again in the last line, workers: {workers}, fail"),
                *more,
            ],
        )
        for workers, more in ((1, []), (8, [pytest.mark.thorough]))
    ],
)
async def test_code_that_comes_twice_fails_the_load_if_told_so(
    etl: EtlCommand, fault_report: FaultReport, workers: int
) -> None:
    """The batch of one of both rows is not loaded, its line is told, and what is loaded is there whole."""
    rows = list(coupon_rows(3_000, seed=6))
    rows[-1] = FileRow(rows[700].raw[:16] + rows[-1].raw[16:], rows[700].code)
    path = etl.write("twice.csv", rows)
    file = read_model(path.read_bytes())
    options = ("--duplicates", "fail", "--workers", workers, *SMALL)
    for _ in range(2):
        ended = await etl.load(path, *options)
        assert "its code is there from line 702" in etl.report()["detail"]
        fault_report.judge(
            judge_ended(ended, (1, ENDED)),
            await judge_load(etl, file, rule=Duplicates.FAIL),
            await judge_leftovers(etl),
        )
        assert await etl.rows() <= 2_900
