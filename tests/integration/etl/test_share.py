"""Several processes load one file together: each some of it, and no row is loaded twice, whoever dies or sleeps."""

import asyncio
import gzip
import signal
from contextlib import AsyncExitStack
from pathlib import Path

import asyncpg
import pytest

from etl.settings import Duplicates
from sandbox.coupon_file import HEADER, FileRow, coupon_rows
from tests.support.etl_judge import judge_leftovers, judge_load
from tests.support.etl_model import FileModel, read_model
from tests.support.etl_process import NOTHING, Ended, EtlCommand
from tests.support.etl_scene import behind_proxy
from tests.support.etl_share import CLAIMANTS, IMPATIENT, PART_BYTES, Sharer, is_stopped, open_sharer, open_sharers
from tests.support.eventually import eventually
from tests.support.fault_report import FaultReport
from tests.support.service_process import armed

pytestmark = pytest.mark.timeout(180)

ROWS = 2_500
SMALL = ("--batch-rows", 20)
PATIENT = {"SHARE__LEASE_SECONDS": "600"}


@pytest.fixture(scope="module")
def file() -> FileModel:
    """A file whose rows come again far behind, a few longer than a part, some bad; the last is, and has no line end."""
    rows = list(coupon_rows(ROWS, seed=23, bad_percent=2, duplicate_percent=20))
    long = b'BAD,"' + b"a line of it\n" * (PART_BYTES // 10) + b'",r,1,EUR,x,y\n'
    for at in range(ROWS - 200, 0, -200):
        rows.insert(at, FileRow(long, None))
    return read_model((HEADER + b"".join(row.raw for row in rows))[:-2])


def write(etl: EtlCommand, file: FileModel, name: str = "coupons.csv") -> Path:
    """Write the file."""
    path = etl.directory / name
    path.write_bytes(gzip.compress(file.content) if name.endswith(".gz") else file.content)
    return path


async def assert_loaded(
    etl: EtlCommand,
    file: FileModel,
    sharers: list[Sharer],
    rule: Duplicates = Duplicates.FIRST,
    fault_report: FaultReport | None = None,
) -> None:
    """All of the file is loaded, once, and whoever came to its end reports all of it."""
    judgement = await judge_load(etl, file, rule=rule) | await judge_leftovers(etl)
    assert judgement.is_ok, judgement
    if fault_report is not None:
        fault_report.judge(judgement)
    inserted = len(file.winners(rule))
    for sharer in sharers:
        report = sharer.report()
        assert (report["inserted"], report["rejected"], report["rows"]) == (inserted, len(file.bad), file.rows)


async def ends(sharers: list[Sharer]) -> list[Ended]:
    """Wait for the ends of some processes."""
    return list(await asyncio.gather(*(sharer.end(seconds=120) for sharer in sharers)))


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        ("coupons.csv", Duplicates.FIRST),
        ("coupons.csv", Duplicates.LAST),
        pytest.param("coupons.csv.gz", Duplicates.FIRST, marks=pytest.mark.thorough),
    ],
)
async def test_three_processes_load_one_file_each_some_of_it(
    etl: EtlCommand, file: FileModel, name: str, rule: Duplicates
) -> None:
    """The same table as by one process, each row in the hands of one of them, and of each of them some."""
    options = (*SMALL, "--duplicates", rule)
    async with open_sharers(etl, write(etl, file, name), *options, variables=[NOTHING] * 3) as sharers:
        ended = await ends(sharers)
    assert [one.status for one in ended] == [3, 3, 3], ended
    own = [sharer.report()["own_rows"] for sharer in sharers]
    assert min(own) > 0
    assert sum(own) == file.rows
    await assert_loaded(etl, file, sharers, rule)
    shown = await etl.run("rejects", "show", etl.directory / name, "--rejects-directory", etl.rejects_directory)
    assert shown.output.count("\n") == len(file.bad)


@pytest.mark.fault("E6", "3 processes share a file, kill -9 of one in mid-file")
async def test_what_a_dead_process_had_in_hand_is_loaded_by_the_others(
    etl: EtlCommand, file: FileModel, fault_report: FaultReport
) -> None:
    """Killed in the middle of a part, before a commit: the others end with all of the file."""
    variables = [armed("after-copy"), NOTHING, NOTHING]
    async with open_sharers(etl, write(etl, file), *SMALL, variables=variables) as sharers:
        ended = await ends(sharers)
    assert [one.status for one in ended] == [-signal.SIGKILL, 3, 3], ended
    await assert_loaded(etl, file, sharers[1:], fault_report=fault_report)


@pytest.mark.parametrize(
    "point",
    [
        pytest.param(
            point,
            marks=[pytest.mark.fault("E6", f"3 processes share a file, one frozen {point}, later thawed"), *more],
        )
        for point, more in (
            ("before-load", [pytest.mark.thorough]),
            ("after-copy", []),
            ("after-commit", [pytest.mark.thorough]),
        )
    ],
)
async def test_what_a_frozen_process_has_in_hand_is_loaded_by_the_others_and_not_again_by_itself(
    etl: EtlCommand, file: FileModel, point: str, fault_report: FaultReport
) -> None:
    """The others come to the end while it is frozen; when it goes on it changes nothing, and reports as they did."""
    variables = [{**IMPATIENT, **armed(point, action="freeze")}, IMPATIENT, IMPATIENT]
    async with open_sharers(etl, write(etl, file), *SMALL, variables=variables) as sharers:
        ended = await ends(sharers[1:])
        assert [one.status for one in ended] == [3, 3], ended
        assert sharers[0].process.returncode is None
        before = await etl.ask("select array_agg(coupons order by code) from coupons")
        sharers[0].send_signal(signal.SIGCONT)
        ended = await ends(sharers[:1])
    assert [one.status for one in ended] == [3], ended[0].log
    assert await etl.ask("select array_agg(coupons order by code) from coupons") == before
    await assert_loaded(etl, file, sharers, fault_report=fault_report)


@pytest.mark.fault("E6", "2 processes share a file, one frozen in the middle of a COPY, later thawed")
async def test_process_frozen_in_the_middle_of_a_copy_keeps_nobody_waiting(
    etl: EtlCommand, file: FileModel, fault_report: FaultReport
) -> None:
    """Neither its lease nor a timeout of the server ends the COPY: the others do, and load what it was about to."""
    path = write(etl, file)
    variables = {**IMPATIENT, "SHARE__PART_BYTES": "100000"}
    async with behind_proxy(etl) as (slow, proxy):
        proxy.up.slice_bytes, proxy.up.delay_seconds = 1_024, 0.05
        async with open_sharer(slow, path, "frozen", "--workers", 1, variables=variables) as frozen:
            await eventually(slow.copies_under_way, seconds=60)
            frozen.send_signal(signal.SIGSTOP)
            proxy.up.swallow()
            async with open_sharer(etl, path, "other", variables=variables) as other:
                assert await etl.copies_under_way()
                ended = await ends([other])
                assert [one.status for one in ended] == [3], ended[0].log
            proxy.up.restore()
            frozen.send_signal(signal.SIGCONT)
            ended = await ends([frozen])
    assert [one.status for one in ended] == [3], ended[0].log
    await assert_loaded(etl, file, [other, frozen], fault_report=fault_report)


@pytest.mark.fault("E6", "3 processes share a file, SIGTERM to one in mid-file")
async def test_process_that_is_stopped_leaves_the_rest_to_the_others(
    etl: EtlCommand, file: FileModel, fault_report: FaultReport
) -> None:
    """SIGTERM in the middle of a part: status 75 for that one, and the others end with all of the file."""
    async with open_sharers(
        etl, write(etl, file), *SMALL, variables=[NOTHING] * 3, signals=[signal.SIGTERM]
    ) as sharers:
        ended = await ends(sharers)
    assert [one.status for one in ended] == [75, 3, 3], ended
    assert sharers[0].report()["outcome"] == "stopped"
    await assert_loaded(etl, file, sharers[1:], fault_report=fault_report)


async def test_process_that_waits_for_others_is_stopped_by_a_signal(etl: EtlCommand, file: FileModel) -> None:
    """Nothing is left to claim, the holder of the last part is frozen: whoever waits for it ends with 75."""
    path = write(etl, file)
    variables = [{**PATIENT, **armed("before-load", action="freeze")}, NOTHING]
    async with open_sharers(etl, path, "--workers", 1, *SMALL, variables=variables) as sharers:

        async def waits() -> bool:
            claimants = await etl.ask(f"select cardinality(({CLAIMANTS}))")
            return claimants == 1 and await etl.ask("select count(*) from etl_ranges") != 0

        await eventually(waits, seconds=60)
        sharers[1].send_signal(signal.SIGTERM)
        ended = await ends(sharers[1:])
        assert [one.status for one in ended] == [75], ended
        assert "Waiting for other processes" in ended[0].log
        sharers[0].send_signal(signal.SIGCONT)
        ended = await ends(sharers[:1])
    assert [one.status for one in ended] == [3], ended
    await assert_loaded(etl, file, sharers[:1])


@pytest.mark.fault("E6", "3 processes share a file and divide it in three ways")
async def test_processes_that_divide_the_file_otherwise_do_no_harm(
    etl: EtlCommand, file: FileModel, fault_report: FaultReport
) -> None:
    """With other parts and other batches they come into one another's way, and the ledger alone decides."""
    variables = [{"SHARE__PART_BYTES": str(PART_BYTES + n * 1_111)} for n in range(3)]
    async with AsyncExitStack() as stack:
        path = write(etl, file)
        sharers = [
            await stack.enter_async_context(
                open_sharer(etl, path, f"other-{n}", "--batch-rows", 17 + 5 * n, variables=own)
            )
            for n, own in enumerate(variables)
        ]
        ended = await ends(sharers)
    assert [one.status for one in ended] == [3, 3, 3], ended
    await assert_loaded(etl, file, sharers, fault_report=fault_report)


@pytest.mark.fault("E6", "3 processes share a file, all connections cut in mid-file")
async def test_claims_that_are_lost_end_no_load(etl: EtlCommand, file: FileModel, fault_report: FaultReport) -> None:
    """When all connections are cut in the middle, all processes come to the end."""
    async with open_sharers(etl, write(etl, file), *SMALL, variables=[NOTHING] * 3) as sharers:
        assert await etl.ask(
            "select count(pg_terminate_backend(pid)) from pg_stat_activity where usename = 'etl' and datname ="
            " current_database()"
        )
        ended = await ends(sharers)
    assert [one.status for one in ended] == [3, 3, 3], ended
    await assert_loaded(etl, file, sharers, fault_report=fault_report)


async def test_whoever_wants_a_file_alone_is_refused_while_others_share_it_and_the_other_way_round(
    etl: EtlCommand, file: FileModel
) -> None:
    """A lone loader is told that the file is busy, and so is a sharer beside a lone loader."""
    path = write(etl, file)
    async with open_sharers(
        etl, path, *SMALL, variables=[{**PATIENT, **armed("after-copy", action="freeze")}]
    ) as sharers:
        refused = await etl.load(path)
        assert refused.status == 4, refused.log
        assert "another process" in etl.report()["detail"]
        sharers[0].send_signal(signal.SIGCONT)
        assert [one.status for one in await ends(sharers)] == [3]
    other = etl.write("other.csv", list(coupon_rows(100, seed=1)))
    async with etl.loading(other, variables=armed("after-copy", action="freeze")) as alone:
        await eventually(lambda: is_stopped(alone.process.pid), seconds=60)
        async with open_sharer(etl, other, "sharer") as sharer:
            assert [one.status for one in await ends([sharer])] == [4]
        alone.send_signal(signal.SIGCONT)
        assert (await alone.end()).status == 0


async def test_process_that_comes_late_has_nothing_to_do(etl: EtlCommand, file: FileModel) -> None:
    """When all is loaded it says what the others said, and has read no row; nor does a lone loader."""
    path = write(etl, file)
    for name in ("first", "late"):
        async with open_sharer(etl, path, name) as sharer:
            assert [one.status for one in await ends([sharer])] == [3]
        assert sharer.report()["own_rows"] == (file.rows if name == "first" else 0)
        await assert_loaded(etl, file, [sharer])
    assert (await etl.load(path)).status == 3
    assert etl.report()["own_rows"] == 0


async def test_bad_rows_are_counted_over_all_processes(etl: EtlCommand, file: FileModel) -> None:
    """One more than `--max-rejects` fails all of them, wherever it is; as many as there are fails none."""
    path = write(etl, file)
    for most, status in ((len(file.bad) - 1, 1), (len(file.bad), 3)):
        options = (*SMALL, "--max-rejects", most)
        async with AsyncExitStack() as stack:
            sharers = [
                await stack.enter_async_context(open_sharer(etl, path, f"{most}-{n}", *options)) for n in range(3)
            ]
            ended = await ends(sharers)
        assert [one.status for one in ended] == [status] * 3, ended
    assert (await judge_load(etl, file)).is_ok


async def test_duplicates_across_parts_fail_whoever_meets_them(etl: EtlCommand, file: FileModel) -> None:
    """With `--duplicates fail` nobody ends with all of the file, and nobody waits for another for ever."""
    options = (*SMALL, "--duplicates", "fail")
    async with open_sharers(etl, write(etl, file), *options, variables=[NOTHING] * 3) as sharers:
        ended = await ends(sharers)
    assert [one.status for one in ended] == [1, 1, 1], ended


async def test_batches_that_fail_by_themselves_leave_nobody_waiting_for_another(
    etl: EtlCommand, file: FileModel, administrator: asyncpg.Connection
) -> None:
    """The table takes no row of some members, who are in each part: all others are loaded, and all processes fail."""
    refused = [row.code for row in file.good if row.values[0].endswith("7")]
    await administrator.execute(
        "alter table coupons add constraint odd check (not starts_with(reverse(member_id), '7'))"
    )
    try:
        options = ("--batch-rows", 5)
        async with open_sharers(etl, write(etl, file), *options, variables=[NOTHING] * 3) as sharers:
            ended = await ends(sharers)
    finally:
        await administrator.execute("alter table coupons drop constraint odd")
    assert [one.status for one in ended] == [1, 1, 1], ended[0].log
    assert set(await etl.stored()).isdisjoint(refused)
    async with open_sharer(etl, etl.directory / "coupons.csv", "after") as sharer:
        assert [one.status for one in await ends([sharer])] == [3]
    await assert_loaded(etl, file, [sharer])


async def test_standard_input_cannot_be_shared(etl: EtlCommand) -> None:
    """It is another one for each process: a wrong command line."""
    ended = await etl.run("load", "--share", "-")
    assert ended.status == 2
    assert "standard input" in ended.log
