"""The ledger tells current work from late work, and keeps bytes within their bound, for threads."""

import threading

from runtime.partition_ledger import LedgerStatistics, PartitionLedger

NOW = 0.0
LONG = 8.0


def test_each_assignment_begins_a_new_generation() -> None:
    """A partition that comes back has another generation, so work of the first one cannot begin."""
    ledger = PartitionLedger(100)
    first = ledger.assign([1, 2])
    ledger.revoke([1])
    assert ledger.owned() == {2: first[2]}
    assert not ledger.begin(1, first[1])
    second = ledger.assign([1])
    assert second[1] > max(first.values())
    assert not ledger.begin(1, first[1])
    assert ledger.begin(1, second[1])
    ledger.end(1)


def test_renew_of_an_older_generation_changes_nothing() -> None:
    """Only the current generation can be renewed."""
    ledger = PartitionLedger(100)
    old = ledger.assign([1])[1]
    new = ledger.renew(1, old)
    assert new is not None
    assert new > old
    assert ledger.renew(1, old) is None
    assert ledger.renew(2, 1) is None
    assert ledger.generation(1) == new


def test_wait_idle_ends_when_the_work_ends() -> None:
    """A thread that waits for two pieces of work on a partition goes on after the second, not minding others."""
    ledger = PartitionLedger(100)
    generations = ledger.assign([1, 2])
    for partition in (1, 1, 2):
        assert ledger.begin(partition, generations[partition])
    assert not ledger.wait_idle([1], NOW)
    outcome: list[bool] = []
    waiter = threading.Thread(target=lambda: outcome.append(ledger.wait_idle([1], LONG)))
    waiter.start()
    ledger.end(1)
    assert ledger.is_in_work(1)
    ledger.end(1)
    waiter.join(LONG)
    assert outcome == [True]
    assert (ledger.is_in_work(1), ledger.is_in_work(2)) == (False, True)


def test_bytes_beyond_the_bound_wait_until_some_come_back() -> None:
    """A taker waits while it does not fit, and a single one larger than the bound passes alone."""
    ledger = PartitionLedger(100)
    assert ledger.take_bytes(60, NOW)
    assert not ledger.take_bytes(50, NOW)
    outcome: list[bool] = []
    taker = threading.Thread(target=lambda: outcome.append(ledger.take_bytes(50, LONG)))
    taker.start()
    ledger.give_bytes(60)
    taker.join(LONG)
    assert outcome == [True]
    assert not ledger.take_bytes(1_000, NOW)
    ledger.give_bytes(50)
    assert ledger.take_bytes(1_000, NOW)
    assert not ledger.take_bytes(1, NOW)
    assert ledger.statistics() == LedgerStatistics(owned=0, in_work=0, bytes_held=1_000, bytes_peak=1_000)


def test_stored_notes_are_taken_once_and_only_for_partitions_that_are_ours() -> None:
    """Notes for the lag tools are kept for owned partitions and for work that a revoke waits for."""
    ledger = PartitionLedger(100)
    generations = ledger.assign([1, 2, 3])
    assert ledger.begin(2, generations[2])
    ledger.revoke([2, 3])
    for partition in (1, 2, 3):
        ledger.stored(partition, 10 * partition)
    assert ledger.take_stored([2]) == {2: 20}
    assert ledger.take_stored() == {1: 10}
    assert ledger.take_stored() == {}
    ledger.end(2)
