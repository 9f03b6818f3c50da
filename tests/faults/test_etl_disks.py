"""The disks of the ETL itself full or failing: of its rejects, its report and its spool; and no descriptor free."""

import signal
from dataclasses import replace
from typing import Final

import pytest

from etl.rejects import reject_path
from tests.support.etl_judge import judge_ended, judge_leftovers, judge_load, judge_loaded
from tests.support.etl_process import EtlCommand
from tests.support.etl_scene import some_file, terminate
from tests.support.eventually import eventually
from tests.support.fault_report import FaultReport
from tests.support.service_process import armed
from tests.support.small_disk import open_small_disk
from tests.support.system_call import injected, no_more_descriptors

FAILED: Final = (1, "Process stopped")
ROWS_MANY: Final = 8_000
BAD_PERCENT: Final = 50
ROOM_BYTES: Final = 400_000
"""For about half of the rejects of that file."""


@pytest.mark.fault("E5", "the disk of the rejects full in mid-file, 4 workers, then with room again")
async def test_full_disk_of_the_rejects_ends_the_load_before_one_is_dropped(
    etl: EtlCommand, fault_report: FaultReport
) -> None:
    """What the ledger counts as rejected is in the file, whole; with room the same command goes on."""
    path, file = some_file(etl, rows=ROWS_MANY, bad_percent=BAD_PERCENT)
    with open_small_disk(3) as disk:
        etl.rejects_directory.symlink_to(disk.path)
        ballast = disk.path / "ballast"
        ballast.write_bytes(b"\0" * (3 * 1024**2 - ROOM_BYTES))
        ended = await etl.load(path, "--workers", 4, "--batch-rows", 100)
        assert "the rejects cannot be kept: No space left on device" in etl.report()["detail"]
        fault_report.judge(judge_ended(ended, FAILED), await judge_load(etl, file), await judge_leftovers(etl))
        assert 0 < await etl.rows() < file.rows
        disk.free()
        fault_report.judge(await judge_loaded(etl, await etl.load(path), file))


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(
            f"{call}:error={error}:when=9+",
            marks=[
                pytest.mark.fault("E5", f"the ninth {call} of the rejects, and each behind it: {error}"),
                *([] if (call, error) == ("fsync", "EIO") else [pytest.mark.thorough]),
            ],
        )
        for call in ("write", "fsync")
        for error in ("ENOSPC", "EIO")
    ],
)
async def test_disk_of_the_rejects_that_fails_ends_the_load_before_one_is_dropped(
    etl: EtlCommand, fault_report: FaultReport, fault: str
) -> None:
    """Whichever call fails, the batch of those rejects does not count; the same command goes on."""
    path, file = some_file(etl, bad_percent=20)
    rejects = reject_path(etl.rejects_directory, file.sha256)
    ended = await replace(etl, under=injected(fault, path=rejects)).load(path, "--workers", 4, "--batch-rows", 100)
    assert "the rejects cannot be kept" in etl.report()["detail"]
    fault_report.judge(judge_ended(ended, FAILED), await judge_load(etl, file), await judge_leftovers(etl))
    assert 0 < await etl.rows() < file.rows
    fault_report.judge(await judge_loaded(etl, await etl.load(path), file))


@pytest.mark.fault("E5", "the disk of the report full at the end of a load")
async def test_full_disk_of_the_report_is_told_and_keeps_the_report_before(
    etl: EtlCommand, fault_report: FaultReport
) -> None:
    """All is loaded, the process fails for its report's sake, and the same command writes it when there is room."""
    path, file = some_file(etl)
    with open_small_disk(1) as disk:
        report = disk.path / "report.json"
        report.write_bytes(b"{}")
        disk.fill()
        places = ("--report", report, "--rejects-directory", etl.rejects_directory)
        ended = await etl.run("load", path, *places)
        assert f"No space left on device: '{report}'" in ended.log
        assert report.read_bytes() == b"{}"
        assert not list(disk.path.glob("*.new"))
        fault_report.judge(judge_ended(ended, FAILED), await judge_load(etl, file))
        disk.free()
        again = await etl.run("load", path, *places)
        etl.report_path.write_bytes(report.read_bytes())
    fault_report.judge(await judge_loaded(etl, again, file))


@pytest.mark.fault("E5", "the disk of the spool full while standard input is kept")
async def test_full_disk_of_the_spool_ends_the_load_before_it_begins(
    etl: EtlCommand, fault_report: FaultReport
) -> None:
    """Nothing is loaded, nothing stays on that disk, and the error says which directory it was."""
    path, file = some_file(etl, rows=20_000)
    content = path.read_bytes()
    with open_small_disk(1) as disk:
        before = disk.used_bytes()
        ended = await etl.load("-", content=content, variables={"SPOOL_DIRECTORY": str(disk.path)})
        assert disk.used_bytes() == before
        assert f"spool directory: No space left on device: '{disk.path}'" in etl.report()["detail"]
    fault_report.judge(judge_ended(ended, FAILED), await judge_load(etl, file), await judge_leftovers(etl))
    fault_report.judge(await judge_loaded(etl, await etl.load("-", content=content), file))


@pytest.mark.thorough
@pytest.mark.fault("E5", "no room to clean the reject file of a load that was killed")
async def test_reject_file_that_cannot_be_cleaned_stays_as_it_was(etl: EtlCommand, fault_report: FaultReport) -> None:
    """The load fails before it begins, and takes no room; what counts is in the file then and in the end."""
    path, file = some_file(etl, bad_percent=BAD_PERCENT)
    assert (await etl.load(path, "--batch-rows", 100, variables=armed("after-rejects", 20))).status == -signal.SIGKILL
    rejects = reject_path(etl.rejects_directory, file.sha256)
    with open_small_disk(1) as disk:
        kept = rejects.read_bytes()
        rejects.unlink()
        etl.rejects_directory.rmdir()
        etl.rejects_directory.symlink_to(disk.path)
        rejects.write_bytes(kept)
        disk.fill()
        ended = await etl.load(path)
        assert rejects.read_bytes() == kept
        fault_report.judge(judge_ended(ended, FAILED), await judge_load(etl, file), await judge_leftovers(etl))
        disk.free()
        fault_report.judge(await judge_loaded(etl, await etl.load(path), file))


@pytest.mark.thorough
@pytest.mark.fault("X2", "no descriptor free for the ETL while all its connections are lost (EMFILE), then again")
async def test_descriptors_that_are_all_in_use_are_waited_for(etl: EtlCommand, fault_report: FaultReport) -> None:
    """No connection can be opened in the place of those that were lost; when one can, the load goes on."""
    path, file = some_file(etl)
    async with etl.loading(path, "--workers", 2, "--batch-rows", 50) as load:
        await eventually(etl.ranges, seconds=60)
        with no_more_descriptors(load.process.pid):
            await terminate(etl)
            await load.wait_event("No connection could be opened")
        ended = await load.end()
    assert "Too many open files" in ended.log
    fault_report.judge(await judge_loaded(etl, ended, file))
