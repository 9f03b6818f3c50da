"""The steps of stored offsets, judged record by record."""

from tests.support.consumer_judge import Step, judge_steps
from tests.support.judgement import Rule

ENDS = {0: 4, 1: 2}


def test_steps_over_each_record_once_are_in_order() -> None:
    """However the partitions are cut into steps, and in whatever order these came."""
    assert judge_steps([Step(0, 0, 3), Step(1, 0, 2), Step(0, 3, 4)], ENDS).is_ok


def test_record_that_no_step_went_over_is_lost() -> None:
    """It is named by its place."""
    judgement = judge_steps([Step(0, 0, 1), Step(0, 2, 4), Step(1, 0, 2)], ENDS)
    assert judgement.differences[Rule.NOTHING_LOST] == ("0/1 was not settled",)
    assert not judgement.failed(Rule.NOTHING_DOUBLED)


def test_step_back_doubles_what_is_stepped_over_again() -> None:
    """The step back itself settles nothing; the way forward again does."""
    judgement = judge_steps([Step(0, 0, 4), Step(0, 4, 2), Step(0, 2, 4), Step(1, 0, 2)], ENDS)
    assert judgement.differences[Rule.NOTHING_DOUBLED] == ("0/2 was settled 2 times", "0/3 was settled 2 times")
    assert not judgement.failed(Rule.NOTHING_LOST)
