"""What of a file is still to be loaded: everything that no range covers, and nothing twice."""

from itertools import pairwise
from random import Random

from etl.ledger import Gap, gaps_of
from tests.support.etl_rows import done_range

ROWS = Gap(byte_start=20, byte_end=100, first_line=2)


def test_file_that_nothing_was_loaded_of_is_one_gap() -> None:
    """Without a range all of the rows are to be loaded."""
    assert gaps_of(ROWS, ()) == [ROWS]


def test_file_that_is_loaded_whole_has_no_gap() -> None:
    """Nothing is left where ranges of any size cover all."""
    assert gaps_of(ROWS, [done_range(5, 10), done_range(2, 5)]) == []


def test_file_without_rows_has_no_gap() -> None:
    """A header alone leaves nothing to load."""
    assert gaps_of(Gap(20, 20, 2), ()) == []


def test_ranges_that_reach_beyond_a_part_leave_what_is_between_them() -> None:
    """Whoever loaded with other borders may have done the begin of a part, and its end with what follows."""
    part = Gap(byte_start=40, byte_end=80, first_line=4)
    assert gaps_of(part, [done_range(2, 5), done_range(7, 11)]) == [Gap(50, 70, 5)]
    assert gaps_of(part, [done_range(2, 11)]) == []


def test_gaps_and_ranges_cover_each_byte_once_whatever_was_loaded() -> None:
    """For random ranges the gaps are just what they leave, each with the line that it begins with."""
    random = Random(7)
    for _ in range(300):
        cuts = sorted(random.sample(range(2, 11), random.randint(2, 9)))
        parts = [(first, behind) for first, behind in pairwise(cuts) if random.random() < 0.5]
        random.shuffle(parts)
        gaps = gaps_of(ROWS, [done_range(*part) for part in parts])
        covered = [n for part in parts for n in range(*part)]
        covered += [n for gap in gaps for n in range(gap.byte_start // 10, gap.byte_end // 10)]
        assert sorted(covered) == list(range(2, 10))
        assert all(gap.first_line == gap.byte_start // 10 for gap in gaps)
