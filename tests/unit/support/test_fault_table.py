"""The table of faults: rows in their order, and a page of which each run writes its own part."""

from collections.abc import Sequence

import pytest

from tests.support.fault_report import FaultReport, Outcome
from tests.support.fault_table import put_part, table_of
from tests.support.judgement import Rule, judge, judge_time

pytest_plugins = ["pytester"]

PAGE = """# Faults
<!-- one: made by make faults -->
old
<!-- one: end -->
between
<!-- two: made by make faults -->
<!-- two: end -->
"""
RUN = """
import os
import pytest
from tests.support.fault_table import fault_report, pytest_addoption, pytest_runtest_makereport, pytest_terminal_summary
from tests.support.judgement import Rule, judge

@pytest.fixture
def broken():
    raise OSError("no server")

@pytest.fixture
def unclean():
    yield
    raise OSError("left behind")

@pytest.mark.fault("H1", "held")
def test_held(fault_report):
    fault_report.judge(judge(Rule.NOTHING_LOST))

@pytest.mark.fault("H2", "no set-up")
def test_no_set_up(broken, fault_report):
    pass

@pytest.mark.fault("H3", "no clean end")
def test_no_clean_end(unclean, fault_report):
    fault_report.judge(judge(Rule.NOTHING_LOST))

@pytest.mark.fault("H4", "left out")
@pytest.mark.skip(reason="of root")
def test_left_out(fault_report):
    pass

@pytest.mark.fault("H5", "not judged")
def test_not_judged(fault_report):
    pass
"""


def _line(row: str, outcome: Outcome = "passed") -> dict[str, object]:
    report = FaultReport(row, f"what is done in {row}")
    report.judge(judge(Rule.NOTHING_LOST))
    report.measure(first_success="0.3 s")
    return report.line(outcome)


def test_rows_are_in_order_and_the_sum_comes_last() -> None:
    """H2 comes before H10; what failed says so in its row and in the sum."""
    table = table_of([_line("H10"), _line("H2", "failed"), _line("G1")])
    assert table[0].startswith("| row | injected | L1 | L2 |")
    assert [row.split(" | ")[0] for row in table[2:5]] == ["| G1", "| H2", "| H10"]
    assert table[2] == "| G1 | what is done in G1 | ok | - | - | - | - | - | - | - | first success 0.3 s |"
    assert "**FAILED**" in table[3]
    assert table[-1] == "3 faults in 3 rows: 1 failed."


def test_report_fails_its_test_at_the_first_difference_and_keeps_it() -> None:
    """The message names row and difference; the table shows which rule it was."""
    report = FaultReport("H9", "a stop")
    with pytest.raises(AssertionError, match=r"H9: L7: the return took 3\.0 s, more than 1 s"):
        report.judge(judge_time("the return", 3, at_most=1))
    assert report.line("failed")["marks"][6] == "FAILED"


def test_row_without_a_guard_shows_the_rule_that_noticed() -> None:
    """What fails there is what was asked for; a rule that holds without the guard fails the test."""
    assert not FaultReport("G3", "nothing yet").is_judged
    report = FaultReport("G3", "without the lease")
    report.notice(judge(Rule.NOTHING_DOUBLED, ["e-1 is stored 2 times"]), Rule.NOTHING_DOUBLED)
    assert report.is_judged
    assert report.line("passed")["marks"] == ["-", "noticed", *["-"] * 6]
    with pytest.raises(AssertionError, match="nothing is wrong with L1 without the guard"):
        report.notice(judge(Rule.NOTHING_LOST), Rule.NOTHING_LOST)


@pytest.mark.parametrize("lines", [["new"], []])
def test_page_keeps_what_is_not_its_part(lines: Sequence[str]) -> None:
    """Only what stands between the part's marks is written anew, however often."""
    once = put_part(PAGE, "one", lines)
    assert "old" not in once
    assert once.startswith("# Faults\n")
    assert once.endswith(PAGE[PAGE.index("between") :])
    assert put_part(once, "one", lines) == once


def test_page_without_the_part_is_refused() -> None:
    """Nothing is written to a page that has no place for it."""
    with pytest.raises(ValueError, match="no part three"):
        put_part(PAGE, "three", [])


def test_row_of_a_test_that_failed_outside_its_own_lines_has_failed(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Set-up, clean-up and a missing judgement count, what was left out is told; the page waits for a good run."""
    page = pytester.path / "page.md"
    page.write_text(PAGE.replace("one", "embedded"), "utf-8")
    monkeypatch.setattr("tests.support.fault_table.PAGE", page)
    pytester.makeconftest(RUN.partition("@pytest.mark")[0])
    pytester.makepyfile(RUN)
    pytester.makeini("[pytest]\nmarkers = fault\nasyncio_default_fixture_loop_scope = function")
    result = pytester.runpytest_inprocess("--faults-page", "-p", "no:randomly", "-p", "no:cacheprovider")
    result.stdout.fnmatch_lines(
        [
            "| H1 | held | ok | * |  |",
            "| H2 | no set-up | - | * | [*][*]FAILED[*][*] |",
            "| H3 | no clean end | ok | * |  |",
            "| H3 | no clean end | ok | * | [*][*]FAILED[*][*] |",
            "| H4 | left out | - | * | skipped |",
            "| H5 | not judged | - | * | [*][*]FAILED[*][*] |",
            "6 faults in 5 rows: 3 failed, 1 skipped.",
            "page.md is left as it was: the run failed",
        ]
    )
    assert "old" in page.read_text("utf-8")
    result = pytester.runpytest_inprocess("--faults-page", "-p", "no:cacheprovider", "-k", "held or left")
    result.stdout.fnmatch_lines(["2 faults in 2 rows: none failed, 1 skipped."])
    assert "| H1 | held | ok |" in page.read_text("utf-8")
