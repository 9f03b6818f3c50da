"""AtomicCounter."""

import sys
import threading
from collections.abc import Callable, Iterator

import pytest

from patterns.atomic import AtomicCounter, AtomicCounterStatistics

THREADS = 8
ROUNDS = 100_000
ROUNDS_EAGER = 500


@pytest.fixture
def eager_switching() -> Iterator[None]:
    """Let the interpreter change threads fifty times as often as usual; more often, it does little else."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-4)
    yield
    sys.setswitchinterval(before)


def run_in_threads(work: Callable[[], object]) -> None:
    """Run the same work in eight threads that start together."""
    start = threading.Barrier(THREADS)

    def begin() -> None:
        start.wait()
        work()

    threads = [threading.Thread(target=begin) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


@pytest.mark.timeout(60)  # 800,000 fights for one lock: half a second alone, much more on a machine that is busy
def test_eight_threads_adding_lose_nothing() -> None:
    """Eight threads that add 100,000 times each make exactly 800,000."""
    counter = AtomicCounter()

    def add_many() -> None:
        for _ in range(ROUNDS):
            counter.add()

    run_in_threads(add_many)
    assert counter.load() == THREADS * ROUNDS


@pytest.mark.usefixtures("eager_switching")
def test_every_sum_is_returned_to_one_thread_only() -> None:
    """No two adds return the same value, so each can serve as a ticket."""
    counter = AtomicCounter()
    tickets: list[list[int]] = []

    def draw() -> None:
        tickets.append([counter.add() for _ in range(ROUNDS_EAGER)])

    run_in_threads(draw)
    assert sorted(ticket for drawn in tickets for ticket in drawn) == list(range(1, THREADS * ROUNDS_EAGER + 1))


@pytest.mark.usefixtures("eager_switching")
def test_compare_and_swap_is_won_by_one_thread_a_value() -> None:
    """Of eight threads that swap n for n + 1, exactly one succeeds for each n."""
    counter = AtomicCounter()
    won = AtomicCounter()

    def climb() -> None:
        for value in range(ROUNDS_EAGER):
            if counter.compare_and_swap(value, value + 1):
                won.add()

    run_in_threads(climb)
    assert counter.load() == won.load()


def test_compare_and_swap_with_another_value_present_changes_nothing() -> None:
    """A swap whose old value is not there returns False and leaves the counter as it was."""
    counter = AtomicCounter(5)
    assert counter.compare_and_swap(4, 9) is False
    assert counter.load() == 5
    assert counter.compare_and_swap(5, 9) is True
    assert counter.load() == 9


def test_swap_returns_the_value_it_replaced() -> None:
    """Swap stores the new value and gives the old one back."""
    counter = AtomicCounter(3)
    assert counter.swap(8) == 3
    assert counter.load() == 8


def test_add_beyond_64_bits_does_not_wrap_around() -> None:
    """Where Go's Int64 wraps around, the sum here stays true; negative amounts count down."""
    counter = AtomicCounter(2**63 - 1)
    assert counter.add() == 2**63
    assert counter.add(-(2**63)) == 0


def test_statistics_show_the_value() -> None:
    """The statistics hold the value of the moment."""
    assert AtomicCounter(7).statistics() == AtomicCounterStatistics(value=7)
