"""The table of `make faults`: a row a fault, what was injected, the eight rules, what was measured; its sum last.

A test that is one row has the mark `fault(row, injected)` and takes the fixture `fault_report`. With `--faults-page`
the table is also written to docs/faults.md, into the part that belongs to this run's servers, unless something failed:
a test whose process died has no row, so only a run without a failure is known to be whole.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import pytest

from tests.support.fault_report import PROPERTY, FaultReport, report_of
from tests.support.judgement import Rule
from tests.support.servers import IN_CONTAINERS

_REPORT: Final = pytest.StashKey[FaultReport]()
FAULTS: Final = pytest.StashKey[set[tuple[str, str]]]()
PAGE: Final = Path(__file__).parents[2] / "docs" / "faults.md"
_KINDS: Final = ("passed", "failed", "error", "skipped")
_OUTCOMES: Final = {"passed": "", "failed": "**FAILED**", "skipped": "skipped"}
_PART: Final = "containers" if IN_CONTAINERS else "embedded"

Line = dict[str, Any]  # Any: JSON, which travels between test processes


@pytest.fixture
def fault_report(request: pytest.FixtureRequest) -> FaultReport:
    """Return the row of the table that this test fills in."""
    report = request.node.stash[_REPORT] = report_of(request)
    return report


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option that writes the page."""
    parser.addoption("--faults-page", action="store_true", help="write the table of faults to docs/faults.md")


def note_faults(config: pytest.Config, items: Iterable[pytest.Item]) -> None:
    """Keep row and injection of every fault among the tests that were found, before some are left out."""
    config.stash[FAULTS] = {mark.args for item in items if (mark := item.get_closest_marker("fault"))}


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """Let a row travel with its test's report, also where the test had no end; a row that judged nothing has failed."""
    report: pytest.TestReport = yield  # type: ignore[assignment]  # pluggy sends the hook's result
    mark = item.get_closest_marker("fault")
    if mark is not None and (call.when == "call" or not report.passed):
        fault = item.stash.get(_REPORT, None) or FaultReport(*mark.args)
        if report.passed and not fault.is_judged:
            report.outcome = "failed"
            report.longrepr = f"{fault.row} passed without any judgement"
        report.user_properties.append((PROPERTY, fault.line(report.outcome)))
    return report  # type: ignore[return-value]  # as above


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, exitstatus: int, config: pytest.Config) -> None:
    """Print the table, its sum last, and write the page if nothing failed."""
    reports = [report for kind in _KINDS for report in terminalreporter.stats.get(kind, [])]
    lines = [value for report in reports for name, value in getattr(report, "user_properties", ()) if name == PROPERTY]
    if not lines:
        return
    table = table_of(lines)
    terminalreporter.section("faults")
    for row in table:
        terminalreporter.line(row)
    if config.getoption("--faults-page"):
        if exitstatus == pytest.ExitCode.OK:
            PAGE.write_text(put_part(PAGE.read_text("utf-8"), _PART, table), "utf-8")
        else:
            terminalreporter.line(f"{PAGE.name} is left as it was: the run failed")


def table_of(lines: Sequence[Line]) -> list[str]:
    """Return the rows in their order, as a Markdown table, and under it the sum."""
    count = Counter(line["outcome"] for line in lines)
    total = f"{len(lines)} faults in {len({line['row'] for line in lines})} rows: {count['failed'] or 'none'} failed"
    skipped = f", {count['skipped']} skipped" if count["skipped"] else ""
    return [*_rows(sorted(lines, key=_order)), "", f"{total}{skipped}."]


def put_part(page: str, part: str, lines: Sequence[str]) -> str:
    """Return the page with other lines between a part's two marks.

    Raises:
        ValueError: the page has no such part.
    """
    begin, end = f"<!-- {part}: made by make faults -->", f"<!-- {part}: end -->"
    before, middle, rest = page.partition(begin)
    _, last, after = rest.partition(end)
    if not (middle and last):
        raise ValueError(f"the page of faults has no part {part}")
    return "\n".join([before + begin, "", *lines, "", end + after])


def _order(line: Line) -> tuple[str, int, str]:
    row = line["row"]
    return row[0], int(row[1:]), line["injected"]


def _rows(lines: list[Line]) -> Iterator[str]:
    yield _row("row", "injected", *Rule, "measured")
    yield _row(*["---"] * (len(Rule) + 3))
    for line in lines:
        measured = ", ".join(f"{name.replace('_', ' ')} {figure}" for name, figure in line["measured"].items())
        yield _row(line["row"], line["injected"], *line["marks"], f"{_OUTCOMES[line['outcome']]} {measured}".strip())


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"
