"""The ETL as a process: what it loads, how it ends, and what survives its death."""

import asyncio
import gzip
import signal
from dataclasses import replace
from pathlib import Path

import asyncpg
import orjson
import pytest

from sandbox.coupon_file import HEADER, FileRow, coupon_rows
from tests.support.etl_process import EtlCommand, bad_lines, first_lines, last_lines
from tests.support.eventually import eventually
from tests.support.reject_file import rejects_in
from tests.support.service_process import armed

pytestmark = pytest.mark.timeout(120)

ROWS = 6_000
SMALL = ("--batch-rows", 250)
POINTS = [
    ("after-rejects", 3),
    ("before-load", 1),
    ("before-load", 9),
    ("after-copy", 2),
    ("after-copy", 17),
    ("after-commit", 5),
    ("before-finish", 1),
]


@pytest.fixture(scope="module")
def rows() -> list[FileRow]:
    """Rows of which some are bad, and some come again."""
    return list(coupon_rows(ROWS, seed=11, bad_percent=2, duplicate_percent=5))


async def assert_loaded(etl: EtlCommand, rows: list[FileRow]) -> None:
    """Every good code is there once, with its first line; every bad row is in the reject file once; counts agree."""
    assert await etl.stored() == first_lines(rows)
    report = etl.report()
    assert report["rows"] == len(rows)
    assert report["inserted"] == len(first_lines(rows))
    assert report["rejected"] == len(bad_lines(rows))
    assert report["skipped"] == len(rows) - report["inserted"] - report["rejected"]
    assert [row.line for row in rejects_in(Path(report["reject_file"]))] == bad_lines(rows)


@pytest.mark.parametrize("workers", [1, 8])
async def test_file_is_loaded_with_what_is_bad_left_out_and_told(
    etl: EtlCommand, rows: list[FileRow], workers: int
) -> None:
    """One worker or eight: the same table, the same rejects, and counts that add up to the rows."""
    ended = await etl.load(etl.write("a.csv", rows), "--workers", workers, *SMALL)
    assert ended.status == 3, ended.log
    await assert_loaded(etl, rows)
    assert f"Progress: {ROWS} processed" in ended.log


async def test_last_row_of_a_code_stays_if_told_so(etl: EtlCommand, rows: list[FileRow]) -> None:
    """With `--duplicates last` each code has its last line, whatever the batches' order."""
    assert (await etl.load(etl.write("a.csv", rows), "--duplicates", "last", "--workers", 8, *SMALL)).status == 3
    assert await etl.stored() == last_lines(rows)


async def test_same_content_is_never_loaded_twice_whatever_it_is_called_and_however_it_is_packed(
    etl: EtlCommand, rows: list[FileRow]
) -> None:
    """Again, renamed, and as gzip, it changes nothing and says the same; from standard input as well."""
    path = etl.write("a.csv", rows)
    assert (await etl.load(path)).status == 3
    renamed, packed = etl.write("b.csv", rows), etl.directory / "c.csv.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    for name in (path, renamed, packed):
        ended = await etl.load(name, *SMALL)
        assert ended.status == 3
        await assert_loaded(etl, rows)
        assert "Progress: 0 processed" in ended.log
    assert (await etl.load("-", content=path.read_bytes())).status == 3
    await assert_loaded(etl, rows)


@pytest.mark.parametrize("line_end", [b"", b"\r"])
async def test_last_row_that_is_bad_and_has_no_line_end_is_kept_whoever_loads_it_again(
    etl: EtlCommand, line_end: bytes
) -> None:
    """Its line is in its batch's range, so that a death before the end and a second load leave its reject there."""
    rows = [*coupon_rows(9, seed=1), FileRow(b"not a row" + line_end, None)]
    path = etl.write("a.csv", rows)
    assert (await etl.load(path, variables=armed("before-finish"))).status == -signal.SIGKILL
    for _ in range(2):
        assert (await etl.load(path)).status == 3
        await assert_loaded(etl, rows)
    assert await etl.ask("select max(line_end) from etl_ranges") == len(rows) + 2


async def test_two_processes_at_once_load_a_content_once(etl: EtlCommand, rows: list[FileRow]) -> None:
    """One of them loads it; the other one finds it busy, or done."""
    first, second = etl.write("a.csv", rows), etl.write("b.csv", rows)
    other = replace(etl, report_name="second.json")
    ended = await asyncio.gather(etl.load(first, *SMALL), other.load(second, *SMALL))
    assert {each.status for each in ended} <= {3, 4}
    assert 3 in {each.status for each in ended}
    assert await etl.stored() == first_lines(rows)


async def test_signal_ends_a_load_between_batches_and_the_same_command_goes_on(
    etl: EtlCommand, rows: list[FileRow]
) -> None:
    """SIGTERM in the middle: status 75, whole batches only; the next try loads the rest, with other batches too."""
    path = etl.write("a.csv", rows)
    own = ("--report", etl.report_path, "--rejects-directory", etl.directory / "rejects")
    async with etl.start("load", path, "--batch-rows", 50, "--workers", 1, *own) as process:
        await eventually(etl.stored, seconds=60)
        process.send_signal(signal.SIGTERM)
        _, log = await process.communicate()
    assert process.returncode == 75, log.decode()
    assert orjson.loads(log.splitlines()[-1])["status"] == 75
    report = etl.report()
    assert report["outcome"] == "stopped"
    assert 0 < report["rows"] < ROWS
    assert len(await etl.stored()) == report["inserted"]
    ended = await etl.load(path, "--batch-rows", 333)
    assert ended.status == 3, ended.log
    await assert_loaded(etl, rows)


@pytest.mark.parametrize(("point", "hit"), POINTS)
async def test_death_anywhere_costs_nothing_and_doubles_nothing(
    etl: EtlCommand, rows: list[FileRow], point: str, hit: int
) -> None:
    """Killed at a named point, and started again with other batches: every row once, every reject once."""
    path = etl.write("a.csv", rows)
    killed = await etl.load(path, *SMALL, variables=armed(point, hit))
    assert killed.status == -signal.SIGKILL, killed.log
    ended = await etl.load(path, "--batch-rows", 700)
    assert ended.status == 3, ended.log
    await assert_loaded(etl, rows)


@pytest.mark.parametrize("on_error", ["finish", "stop"])
async def test_bad_row_ends_the_load_if_told_so(etl: EtlCommand, on_error: str) -> None:
    """The first bad row ends it with status 1 and its line; good batches before it stay."""
    good = list(coupon_rows(1_000, seed=1))
    rows = [*good[:600], FileRow(b"not a row\n", None), *good[600:]]
    ended = await etl.load(etl.write("a.csv", rows), "--on-error", on_error, "--batch-rows", 10, "--workers", 1)
    assert ended.status == 1
    assert "line 602" in etl.report()["detail"]
    assert set(await etl.stored()) <= {row.code for row in good[:600]}


async def test_more_bad_rows_than_allowed_end_the_load(etl: EtlCommand, rows: list[FileRow]) -> None:
    """At the first row beyond `--max-rejects` the load fails; with as many as there are it does not."""
    path, bad = etl.write("a.csv", rows), len(bad_lines(rows))
    assert (await etl.load(path, *SMALL, "--max-rejects", bad - 1)).status == 1
    report = etl.report()
    assert 0 < report["inserted"] == len(await etl.stored())
    assert report["rows"] == await etl.rows()
    assert (await etl.load(path, *SMALL, "--max-rejects", bad)).status == 3
    await assert_loaded(etl, rows)


async def test_rejects_may_be_accepted(etl: EtlCommand, rows: list[FileRow]) -> None:
    """With `--accept-rejects` a load with rejects ends with 0; the report tells of them all the same."""
    assert (await etl.load(etl.write("a.csv", rows), "--accept-rejects")).status == 0
    await assert_loaded(etl, rows)
    assert etl.report()["outcome"] == "loaded with rejects"


async def test_dry_run_checks_all_and_loads_nothing(etl: EtlCommand, rows: list[FileRow]) -> None:
    """A dry run counts the bad rows and leaves neither a row nor a ledger's entry nor a reject file."""
    path = etl.write("a.csv", rows)
    assert (await etl.load(path, "--dry-run")).status == 3
    assert etl.report()["rejected"] == len(bad_lines(rows))
    assert await etl.stored() == {}
    assert not (etl.directory / "rejects").exists()
    assert (await etl.run("status", path)).status == 4


async def test_file_without_the_right_header_is_refused_and_the_others_are_loaded(etl: EtlCommand) -> None:
    """A refused file is told by status 4, and does not keep the next one from being loaded."""
    refused = etl.directory / "refused.csv"
    refused.write_bytes(b"code,code,member_id\n")
    good = list(coupon_rows(20, seed=1))
    ended = await etl.load(refused, etl.write("a.csv", good))
    assert ended.status == 4
    assert "reward_id" in etl.report()["detail"]
    assert await etl.stored() == first_lines(good)


@pytest.mark.parametrize("on_error", ["reject", "finish", "stop"])
async def test_row_that_the_table_refuses_is_neither_in_the_log_nor_in_the_report(
    etl: EtlCommand, administrator: asyncpg.Connection, on_error: str
) -> None:
    """Both say which rule of the table it breaks, and the log where in the program; the server's copy of it is left."""
    rows = list(coupon_rows(20, seed=1))
    code, member = rows[7].raw.decode().split(",")[:2]
    await administrator.execute(f"alter table coupons add constraint odd check (member_id <> '{member}')")
    try:
        ended = await etl.load(etl.write("a.csv", rows), "--on-error", on_error)
    finally:
        await administrator.execute("alter table coupons drop constraint odd")
    assert ended.status == 1
    report = etl.report_path.read_text()
    for told in (ended.log, report):
        assert 'violates check constraint \\"odd\\"' in told
        assert code not in told
        assert member not in told


async def test_file_whose_ledger_cannot_be_read_does_not_keep_the_report_from_being_written(
    etl: EtlCommand, administrator: asyncpg.Connection
) -> None:
    """What the server refuses for good fails each file by itself: all of them are in the report, with their reason."""
    paths = [etl.write(name, list(coupon_rows(20, seed=seed))) for seed, name in enumerate(("a.csv", "b.csv"))]
    await administrator.execute("alter table etl_files rename to etl_files_away")
    try:
        ended = await etl.load(*paths)
    finally:
        await administrator.execute("alter table etl_files_away rename to etl_files")
    assert ended.status == 1
    files = orjson.loads(etl.report_path.read_bytes())["files"]
    assert [(one["name"], one["outcome"], one["detail"]) for one in files] == [
        (str(path), "failed", 'relation "etl_files" does not exist') for path in paths
    ]


async def test_status_and_rejects_tell_what_became_of_a_file(etl: EtlCommand, rows: list[FileRow]) -> None:
    """`status` has the ledger's counts, `rejects show` a line a row, and `rejects export` a file to be mended."""
    path = etl.write("a.csv", rows)
    directory = ("--rejects-directory", etl.directory / "rejects")
    assert (await etl.load(path)).status == 3
    status = await etl.run("status", path)
    assert status.status == 0
    assert f'"rejected": {len(bad_lines(rows))}' in status.output
    shown = await etl.run("rejects", "show", path, *directory)
    assert shown.output.count("\n") == len(bad_lines(rows))
    exported = await etl.run("rejects", "export", path, *directory)
    assert exported.output.encode() == HEADER + b"".join(row.raw for row in rows if row.code is None)


async def test_wrong_command_line_is_2_and_bad_settings_are_78(etl: EtlCommand) -> None:
    """A wrong option and a wrong setting are told, each with a status of its own."""
    assert (await etl.run("load", "a.csv", "--workers", 0)).status == 2
    ended = await etl.run("load", "a.csv", variables={"RETRY__FIRST_SECONDS": "0"})
    assert ended.status == 78
    assert "ETL_RETRY__FIRST_SECONDS" in ended.log
