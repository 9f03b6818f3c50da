"""The ledger judge: it finds each kind of difference, and nothing where there is none."""

from pathlib import Path

import pytest

from tests.support.judgement import Judgement, Rule, judge, judge_end, judge_progress, judge_time
from tests.support.ledger import Ledger, judge_units

ORDERLY = [("a", "1"), ("b", "2")]


def _failed(judgement: Judgement) -> set[Rule]:
    return {rule for rule in Rule if judgement.failed(rule)}


@pytest.mark.parametrize(
    ("stored", "dead", "failed"),
    [
        ([("a", "1"), ("b", "2")], [], set()),
        ([("a", "1"), ("b", "2"), ("c", "3")], [], set()),
        ([("a", "1")], ["b"], set()),
        ([("a", "1")], [], {Rule.NOTHING_LOST}),
        ([("a", "1"), ("b", "2"), ("b", "2")], [], {Rule.NOTHING_DOUBLED}),
        ([("a", "1"), ("b", "2")], ["b"], {Rule.NOTHING_DOUBLED}),
        ([("a", "1"), ("b", "2"), ("x", "9")], [], {Rule.NOTHING_INVENTED}),
        ([("a", "1"), ("b", "2")], ["x"], {Rule.NOTHING_INVENTED}),
        ([("a", "1"), ("b", "3")], [], {Rule.RIGHT_CONTENT}),
    ],
)
def test_each_difference_fails_its_own_rule(stored: list[tuple[str, str]], dead: list[str], failed: set[Rule]) -> None:
    """What was attempted without an answer (`c`) may be there or not; everything else must be as it was promised."""
    assert _failed(judge_units([*ORDERLY, ("c", "3")], ORDERLY, stored, dead=dead)) == failed


@pytest.mark.parametrize(("stored", "is_right"), [("1", False), ("2", True), ("3", True), ("4", False)])
def test_content_is_the_last_that_was_promised_or_one_asked_for_after_it(stored: str, *, is_right: bool) -> None:
    """Versions 1 and 2 were acknowledged; 3 was asked for later and never answered."""
    judgement = judge_units([("a", "1"), ("a", "2"), ("a", "3")], [("a", "1"), ("a", "2")], [("a", stored)])
    assert judgement.failed(Rule.RIGHT_CONTENT) is not is_right


def test_files_are_read_back_as_they_were_written(tmp_path: Path) -> None:
    """A ledger that was written in two runs judges both; a line is on the disk before the call returns."""
    ledger = Ledger(tmp_path)
    for name in ("a", "b"):
        with ledger:
            ledger.attempt(name, {"value": name})
            assert name in (tmp_path / "attempted.jsonl").read_text()
            ledger.acknowledge(name, {"value": name})
    assert ledger.judge([("a", {"value": "a"}), ("b", {"value": "b"})]).is_ok
    assert _failed(ledger.judge([("a", {"value": "b"})])) == {Rule.NOTHING_LOST, Rule.RIGHT_CONTENT}


def test_judgements_add_up_and_show_their_differences() -> None:
    """Each rule keeps the differences of both; one that nobody looked at is no success."""
    together = judge(Rule.NO_LEAK) | judge_time("the stop", 3.0, at_most=2) | judge_time("the return", 1.0, at_most=2)
    assert together.marks() == ["-", "-", "-", "-", "-", "ok", "FAILED", "-"]
    assert str(together) == "L7: the stop took 3.0 s, more than 2 s"
    assert not together.is_ok
    assert judge(Rule.NO_LEAK).is_ok
    assert not Judgement().is_ok


def test_progress_and_ends_are_compared_by_name() -> None:
    """What stands elsewhere, is missing or is unknown differs; so does another status or another last word."""
    assert judge_progress({"0": 5, "1": 7}, {"0": 5, "1": 7}).is_ok
    assert str(judge_progress({"0": 5}, {"0": 4, "1": 1})) == (
        "L5: 0 stands at 4 instead of 5\nL5: 1 stands at 1 instead of None"
    )
    assert judge_end("api", 0, "completed", wanted=(0, "completed")).is_ok
    assert judge_end("api", 143, "completed", wanted=(0, "completed")).failed(Rule.RIGHT_END)
