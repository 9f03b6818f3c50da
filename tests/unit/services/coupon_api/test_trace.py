"""The tracer keeps true, bounded spans under tasks and threads."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from services.coupon_api import trace
from services.coupon_api.trace import REQUEST_SPANS, Span, Tracer, TracerStatistics, gather, server_timing


class Clock:
    """A clock that moves when it is told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        """Tell the time."""
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The tracer's clock, in the test's hands."""
    clock = Clock()
    monkeypatch.setattr(trace, "perf_counter", clock)
    return clock


def test_finished_span_has_its_method_and_its_duration(clock: Clock) -> None:
    """A span lasts from start to finish, in seconds."""
    tracer = Tracer(capacity=8)
    finish = tracer.start("get_coupon")
    clock.now += 0.25
    finish()

    assert tracer.spans() == [Span("get_coupon", 0.25)]


def test_unfinished_span_is_not_seen() -> None:
    """Only what has ended is known."""
    tracer = Tracer(capacity=8)
    tracer.start("get_coupon")

    assert tracer.spans() == []


def test_finishing_twice_records_once(clock: Clock) -> None:
    """A second call is void, so a finish in a `finally` may follow an early one."""
    tracer = Tracer(capacity=8)
    finish = tracer.start("get_coupon")
    finish()
    clock.now += 1
    finish()

    assert tracer.spans() == [Span("get_coupon", 0.0)]
    assert tracer.statistics() == TracerStatistics(finished=1, kept=1, capacity=8)


def test_spans_returns_a_copy() -> None:
    """Changing what `spans` gave changes nothing in the tracer, and later spans do not slip into it."""
    tracer = Tracer(capacity=8)
    tracer.start("one")()
    copy = tracer.spans()
    tracer.start("two")()
    assert [span.method for span in copy] == ["one"]
    copy.clear()

    assert [span.method for span in tracer.spans()] == ["one", "two"]


def test_full_tracer_keeps_the_newest() -> None:
    """The memory of a tracer has a bound: a hundred spans later it holds the last three."""
    tracer = Tracer(capacity=3)
    for number in range(100):
        tracer.start(str(number))()

    assert [span.method for span in tracer.spans()] == ["97", "98", "99"]
    assert tracer.statistics() == TracerStatistics(finished=100, kept=3, capacity=3)


def test_capacity_below_one_is_refused() -> None:
    """A tracer that can hold nothing is a mistake, told at once."""
    with pytest.raises(ValueError, match="capacity"):
        Tracer(capacity=0)


def test_spans_of_many_threads_are_all_counted() -> None:
    """Eight threads record a thousand spans each while another reads: none is lost, no copy is torn."""
    tracer = Tracer(capacity=100_000)
    go = threading.Barrier(9)

    def record(number: int) -> None:
        go.wait()
        for _ in range(1_000):
            tracer.start(str(number))()

    def read() -> None:
        go.wait()
        for _ in range(50):
            assert all(span.duration >= 0 for span in tracer.spans())

    with ThreadPoolExecutor(9) as threads:
        for future in [*(threads.submit(record, number) for number in range(8)), threads.submit(read)]:
            future.result()

    counts = {str(number): 0 for number in range(8)}
    for span in tracer.spans():
        counts[span.method] += 1
    assert counts == {str(number): 1_000 for number in range(8)}


def test_one_finish_called_by_many_threads_records_once() -> None:
    """Sixteen threads race to finish the same span: it is recorded once."""
    tracer = Tracer(capacity=8)
    finish = tracer.start("get_coupon")
    go = threading.Barrier(16)

    def race() -> None:
        go.wait()
        finish()

    with ThreadPoolExecutor(16) as threads:
        for future in [threads.submit(race) for _ in range(16)]:
            future.result()

    assert tracer.statistics().finished == 1


async def test_interleaved_requests_gather_their_own_spans_alone() -> None:
    """Two requests that take turns on one loop each end with their own span, and the tracer with both."""
    tracer = Tracer(capacity=8)
    both_started = asyncio.Barrier(2)

    async def request(method: str) -> list[Span]:
        spans = gather()
        finish = tracer.start(method)
        await both_started.wait()
        finish()
        await both_started.wait()
        return spans

    first, second = await asyncio.gather(request("one"), request("two"))

    assert [span.method for span in first] == ["one"]
    assert [span.method for span in second] == ["two"]
    assert {span.method for span in tracer.spans()} == {"one", "two"}


async def test_spans_of_child_tasks_and_threads_belong_to_the_request() -> None:
    """What a request starts in a task or a thread of its own appears among its spans."""
    tracer = Tracer(capacity=8)

    async def child() -> None:
        tracer.start("task")()

    spans = gather()
    await asyncio.create_task(child())

    def in_thread() -> None:
        finish = tracer.start("thread")
        finish()

    await asyncio.to_thread(in_thread)

    assert [span.method for span in spans] == ["task", "thread"]


async def test_request_gathers_a_bounded_number() -> None:
    """A request that loops does not grow its header without end; the tracer still has every span."""
    tracer = Tracer(capacity=1_000)
    spans = gather()
    for _ in range(REQUEST_SPANS + 10):
        tracer.start("step")()

    assert len(spans) == REQUEST_SPANS
    assert tracer.statistics().finished == REQUEST_SPANS + 10


def test_server_timing_names_each_span_in_milliseconds() -> None:
    """The header's value is the list of the spans, in order."""
    assert server_timing([Span("find", 0.0015), Span("store", 0.25)]) == "find;dur=1.500, store;dur=250.000"


def test_server_timing_of_a_method_that_is_no_token_stays_one_header() -> None:
    """A separator in a method's name cannot break the header."""
    assert server_timing([Span("a b;c,\r\nd", 0.0), Span("", 0.0)]) == "a_b_c___d;dur=0.000, _;dur=0.000"
