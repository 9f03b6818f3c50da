"""What a test of a fault tells the table of `make faults`: what was injected, the judgement, what was measured."""

from dataclasses import dataclass, field
from typing import Any, Final, Literal

import pytest

from tests.support.judgement import Judgement, Rule

PROPERTY: Final = "fault"
Outcome = Literal["passed", "failed", "skipped"]


@dataclass(slots=True)
class FaultReport:
    """One row of the table, filled in as the test goes.

    Attributes:
        row: the fault's name in docs/faults.md.
        injected: what was done, in a few words.
        judgement: everything that was judged so far.
        noticed: the rules that failed where a guard was taken out, as they should.
        measured: figures that are reported and not asserted: a name, and the figure with its unit.
    """

    row: str
    injected: str
    judgement: Judgement = field(default_factory=Judgement)
    noticed: set[Rule] = field(default_factory=set)
    measured: dict[str, str] = field(default_factory=dict)

    def judge(self, *judgements: Judgement) -> None:
        """Add what was found; the test fails at the first that is not in order, with its differences."""
        for judgement in judgements:
            self.judgement |= judgement
            assert judgement.is_ok, f"{self.row}: {judgement}"

    def notice(self, judgement: Judgement, *rules: Rule) -> None:
        """Add what was found without a guard; the test fails at the first of these rules that holds all the same."""
        for rule in rules:
            assert judgement.failed(rule), f"{self.row}: nothing is wrong with {rule} without the guard; {judgement}"
            self.noticed.add(rule)

    @property
    def is_judged(self) -> bool:
        """Whether some rule was looked at."""
        return bool(self.judgement.differences or self.noticed)

    def measure(self, **figures: str) -> None:
        """Add figures that the table shows."""
        self.measured |= figures

    def line(self, outcome: Outcome) -> dict[str, Any]:  # Any: JSON, which travels between test processes
        """Return the row as it travels to the table."""
        return {
            "row": self.row,
            "injected": self.injected,
            "marks": [
                "noticed" if rule in self.noticed else mark
                for rule, mark in zip(Rule, self.judgement.marks(), strict=True)
            ],
            "measured": self.measured,
            "outcome": outcome,
        }


def report_of(request: pytest.FixtureRequest) -> FaultReport:
    """Return the report that a test's mark `fault(row, injected)` asks for.

    Raises:
        pytest.UsageError: the test has no such mark.
    """
    mark = request.node.get_closest_marker("fault")
    if mark is None:
        raise pytest.UsageError(f"{request.node.nodeid} takes fault_report and has no mark `fault(row, injected)`")
    row, injected = mark.args
    return FaultReport(row, injected)
