"""The report of a load: the gravest outcome decides the exit status, and the file is there whole."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from itertools import permutations
from pathlib import Path

import orjson
import pytest

from etl.report import EXIT_STATUS, FileReport, Outcome, worst, write_report


def test_every_outcome_has_an_exit_status_of_its_own() -> None:
    """No two outcomes share a status, and only a whole load is 0."""
    assert EXIT_STATUS.keys() == set(Outcome)
    assert len(set(EXIT_STATUS.values())) == len(Outcome)
    assert [outcome for outcome, status in EXIT_STATUS.items() if status == 0] == [Outcome.LOADED]


@pytest.mark.parametrize("outcomes", list(permutations([Outcome.LOADED, Outcome.LOADED_WITH_REJECTS, Outcome.FAILED])))
def test_gravest_outcome_counts_whatever_the_order(outcomes: tuple[Outcome, ...]) -> None:
    """A file that failed is told, also when others were loaded."""
    assert worst(list(outcomes)) is Outcome.FAILED
    assert worst([one for one in outcomes if one is not Outcome.FAILED]) is Outcome.LOADED_WITH_REJECTS
    assert worst([]) is Outcome.LOADED


def test_report_holds_what_became_of_each_file(tmp_path: Path) -> None:
    """The counts add up to the rows, and a former report is replaced."""
    path = tmp_path / "report.json"
    path.write_text("old")
    loaded = FileReport("a.csv", Outcome.LOADED_WITH_REJECTS, inserted=3, skipped=2, rejected=1)
    loaded.reasons = Counter({"fields: 6 instead of 7": 1})
    write_report(path, [loaded, FileReport("b.csv", Outcome.REFUSED, detail="there is no header")])
    found = orjson.loads(path.read_bytes())
    assert found["outcome"] == "refused"
    assert [file["rows"] for file in found["files"]] == [6, 0]
    assert found["files"][0]["reasons"] == {"fields: 6 instead of 7": 1}
    assert found["files"][1]["detail"] == "there is no header"
    assert [each.name for each in tmp_path.iterdir()] == ["report.json"]


def test_two_processes_that_write_one_path_at_once_both_write_it(tmp_path: Path) -> None:
    """Neither takes the other's file away before it is in its place; the last one's report stays, whole."""
    reports = [FileReport("a.csv", Outcome.LOADED)]
    with ThreadPoolExecutor(4) as pool:
        for _ in pool.map(lambda _: write_report(tmp_path / "report.json", reports), range(200)):
            pass
    assert [path.name for path in tmp_path.iterdir()] == ["report.json"]
    assert orjson.loads((tmp_path / "report.json").read_bytes())["outcome"] == "loaded"
