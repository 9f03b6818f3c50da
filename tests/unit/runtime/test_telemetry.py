"""W3C trace context: what is read, what is refused, what is passed on."""

import asyncio

import pytest

from runtime.telemetry import TraceContext, bind, continue_trace, current_trace, request_id

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
GOOD = f"00-{TRACE}-{SPAN}-01"


def test_a_traceparent_is_read_and_written_back_the_same() -> None:
    """Text and bytes give the same context, whose header is the one that was read."""
    assert TraceContext.parse(GOOD) == TraceContext.parse(GOOD.encode()) == TraceContext(TRACE, SPAN, is_sampled=True)
    for header in (GOOD, f"00-{TRACE}-{SPAN}-00"):
        trace = TraceContext.parse(header)
        assert trace is not None
        assert trace.format() == header


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "junk",
        GOOD.upper(),
        GOOD + "\n",
        GOOD + "-more",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE[:-1]}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-1",
        f"00-{TRACE[:-1]}٣-{SPAN}-01",
        f"01-{TRACE}-{SPAN}-01-{'x' * 600}",
        b"\xff" * 55,
    ],
)
def test_a_malformed_traceparent_is_as_good_as_none(header: str | bytes | None) -> None:
    """Nothing that the standard does not allow is read, and reading never raises."""
    assert TraceContext.parse(header) is None
    assert TraceContext.parse(continue_trace(header).format()) is not None


def test_a_later_version_is_read_as_far_as_it_is_known() -> None:
    """Version 01 with more behind gives the ids, and what is passed on is version 00."""
    trace = TraceContext.parse(f"01-{TRACE}-{SPAN}-03-future")
    assert trace == TraceContext(TRACE, SPAN, is_sampled=True)
    assert trace is not None
    assert trace.format() == GOOD


def test_a_continued_trace_keeps_its_id_and_gets_a_new_step() -> None:
    """The child has the trace's id and sampling, and a span id of its own each time."""
    children = [continue_trace(f"00-{TRACE}-{SPAN}-00") for _ in range(100)]
    assert {child.trace_id for child in children} == {TRACE}
    assert len({child.span_id for child in children} | {SPAN}) == 101
    assert not any(child.is_sampled for child in children)


def test_new_traces_differ_and_are_well_formed() -> None:
    """A hundred new traces have a hundred ids, each of which can be read back."""
    traces = [TraceContext.new() for _ in range(100)]
    assert len({trace.trace_id for trace in traces}) == 100
    assert all(TraceContext.parse(trace.format()) == trace for trace in traces)


async def test_a_binding_reaches_tasks_started_inside_and_ends_with_its_block() -> None:
    """A task started in the block sees trace and request id even after the block; the code behind it does not."""

    async def look() -> tuple[TraceContext | None, str | None]:
        await asyncio.sleep(0)
        return current_trace.get(), request_id.get()

    trace = TraceContext.new()
    with bind(trace, "r-1"):
        inside = asyncio.create_task(look())
        with bind(request="r-2"):
            assert await look() == (trace, "r-2")
    assert await inside == (trace, "r-1")
    assert await look() == (None, None)
