"""What the clients wrote down is read back as it was written, whatever cut the writing off."""

from pathlib import Path

import pytest

from sandbox.coupon_file import CouponFile
from sandbox.journal import (
    ACKNOWLEDGED,
    ATTEMPTED,
    Acknowledgement,
    Attempt,
    Journal,
    JournalBusyError,
    Operation,
    Seed,
    SeededReward,
    read_journal,
)

SEED = Seed(points={"m-1": 100}, rewards={"rw-1": SeededReward(10, 5, 300, "EUR", 30)})


def test_lines_are_read_back_as_written(tmp_path: Path) -> None:
    """Seed, attempts, failures and acknowledgements come back equal."""
    with Journal(tmp_path) as journal:
        journal.seeded(SEED)
        first = journal.attempt(
            Operation.REDEEM_REWARD, "m-1", expected=("201", "409 sold-out"), target="rw-1", key="k"
        )
        second = journal.attempt(Operation.SEE_POINTS, "m-1", expected=("200",), repeats=None)
        journal.fail(second, "ReadError")
        answer = Acknowledgement(first.number, 201, None, {"redemption_id": "x"}, 0.25)
        journal.acknowledge(answer)
    record = read_journal(tmp_path)
    assert record.seed == SEED
    assert record.attempts == {1: first, 2: second}
    assert record.acknowledgements == {1: answer}
    assert record.failures == {2: "ReadError"}


def test_writes_of_consents_are_read_back_as_written(tmp_path: Path) -> None:
    """Each write comes back with its content and its outcome, if it has one, numbered in one row with the requests."""
    content = {"member_id": "m-1", "changed_at": "2026-03-01T00:00:00.000+00:00"}
    with Journal(tmp_path) as journal:
        journal.seeded(SEED)
        first = journal.write_consent("consent_master", "i:1", content)
        request = journal.attempt(Operation.SEE_POINTS, "m-1", expected=("200",))
        refused = journal.write_consent("consent_master", "i:1", None)
        unknown = journal.write_consent("consent_master", "i:1", None)
        journal.settle_consent(first, had_effect=True)
        journal.settle_consent(refused, had_effect=False)
    record = read_journal(tmp_path)
    assert record.consent_writes == {1: first, 3: refused, 4: unknown}
    assert record.consent_outcomes == {1: True, 3: False}
    assert (record.attempts, record.acknowledgements) == ({2: request}, {})


def test_journal_without_consents_is_read(tmp_path: Path) -> None:
    """A journal of a release that knew no consents, and no campaigns, is read as ever."""
    with Journal(tmp_path) as journal:
        journal.seeded(SEED)
    attempt = (
        '{"attempt":{"number":1,"operation":"see points","member_id":"m-1","target":"","key":null,'
        '"expected":["200"],"repeats":null,"at":1.5}}\n'
    )
    with (tmp_path / ATTEMPTED).open("a") as file:
        file.write(attempt)
    record = read_journal(tmp_path)
    assert record.attempts == {1: Attempt(1, Operation.SEE_POINTS, "m-1", "", None, ("200",), None, 1.5)}
    assert (record.consent_writes, record.consent_outcomes) == ({}, {})


def test_files_are_read_back_with_what_was_told_of_their_loads(tmp_path: Path) -> None:
    """A file is there from before its load, by the numbers that make it again; a load that was told is told apart."""
    begun, done = CouponFile(10, 1), CouponFile(20, 2, 1.5, 2.5)
    with Journal(tmp_path) as journal:
        journal.seeded(SEED)
        journal.load(begun)
        journal.load(done)
        journal.loaded(done)
    assert read_journal(tmp_path).files == {begun: False, done: True}


def test_line_is_on_file_when_the_call_returns(tmp_path: Path) -> None:
    """Nothing waits in a buffer of this process: the file has the line before the next statement runs."""
    with Journal(tmp_path) as journal:
        journal.seeded(SEED)
        attempt = journal.attempt(Operation.SEE_POINTS, "m-1", expected=("200",))
        assert read_journal(tmp_path).attempts == {1: attempt}


def test_last_line_cut_off_is_left_out(tmp_path: Path) -> None:
    """A line that a killed writer did not finish announces nothing."""
    with Journal(tmp_path) as journal:
        journal.seeded(SEED)
        journal.attempt(Operation.SEE_POINTS, "m-1", expected=("200",))
        journal.attempt(Operation.SEE_POINTS, "m-1", expected=("200",))
    path = tmp_path / ATTEMPTED
    path.write_bytes(path.read_bytes()[:-5])
    assert list(read_journal(tmp_path).attempts) == [1]


def test_damaged_line_in_the_middle_is_an_error(tmp_path: Path) -> None:
    """Damage anywhere else is not passed over."""
    with Journal(tmp_path) as journal:
        journal.seeded(SEED)
    (tmp_path / ACKNOWLEDGED).write_bytes(b'{"attempt": 1, "sta\n{}\n')
    with pytest.raises(ValueError, match="line 1"):
        read_journal(tmp_path)


def test_journal_without_a_seed_is_an_error(tmp_path: Path) -> None:
    """Without the state before the first request nothing can be added up."""
    Journal(tmp_path).close()
    with pytest.raises(ValueError, match="before the first request"):
        read_journal(tmp_path)


def test_continued_journal_counts_on_and_gives_up_what_had_no_answer(tmp_path: Path) -> None:
    """Numbers go on, a line that was cut off is gone, and only requests without any word are abandoned."""
    with Journal(tmp_path) as journal:
        journal.seeded(SEED)
        answered, failed, _ = (journal.attempt(Operation.SEE_POINTS, "m-1", expected=("200",)) for _ in range(3))
        journal.acknowledge(Acknowledgement(answered.number, 200, None, {}, 0.25))
        journal.fail(failed, "ReadError")
    with (tmp_path / ATTEMPTED).open("ab") as file:
        file.write(b'{"attempt": {"num')
    numbers = []
    for _ in range(2):
        with Journal(tmp_path, continued=read_journal(tmp_path)) as journal:
            numbers.append(journal.attempt(Operation.SEE_POINTS, "m-1", expected=("200",)).number)
    record = read_journal(tmp_path)
    assert numbers == [4, 5]
    assert list(record.attempts) == [1, 2, 3, 4, 5]
    assert record.failures == {2: "ReadError"}
    assert record.abandoned == {3, 4}
    assert record.seed == SEED


def test_continued_journal_counts_on_behind_a_write_of_a_consent(tmp_path: Path) -> None:
    """No number is given twice, whatever was written down last, and a write without a word stays of unknown outcome."""
    with Journal(tmp_path) as journal:
        journal.seeded(SEED)
        journal.attempt(Operation.SEE_POINTS, "m-1", expected=("200",))
        before = journal.write_consent("consent_master", "i:1", None)
    with Journal(tmp_path, continued=read_journal(tmp_path)) as journal:
        after = journal.write_consent("consent_master", "i:2", None)
    record = read_journal(tmp_path)
    assert record.consent_writes == {2: before, 3: after}
    assert record.consent_outcomes == {}
    assert record.abandoned == {1}


def test_journal_beside_another_one_in_its_directory_touches_nothing(tmp_path: Path) -> None:
    """A directory belongs to one journal at a time."""
    with Journal(tmp_path) as journal:
        journal.seeded(SEED)
        with pytest.raises(JournalBusyError, match="another process"):
            Journal(tmp_path)
    assert read_journal(tmp_path).seed == SEED
