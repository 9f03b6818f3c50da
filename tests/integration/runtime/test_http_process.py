"""The HTTP server in processes of its own, on uvloop, stopped by real signals (faults H1 to H6, H14, H22)."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from runtime.listener import open_listener
from tests.support.busy_clients import BusyClients
from tests.support.eventually import eventually
from tests.support.fault_report import FaultReport
from tests.support.http_instance import open_instance
from tests.support.judgement import Rule, judge, judge_end, judge_time
from tests.support.raw_http import RawClient

STOP_SECONDS = 20.0
IN_ORDER = (0, "Process stopped")


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """A listening socket that the test holds and hands down."""
    with open_listener("127.0.0.1", 0) as listener:
        yield listener


@pytest.mark.timeout(180)
@pytest.mark.slow
@pytest.mark.fault("H1", "SIGTERM to one of two processes on a shared socket, 100 busy keep-alive clients, 20 times")
async def test_twenty_rolling_restarts_lose_no_request(
    listener: socket.socket, tmp_path: Path, fault_report: FaultReport
) -> None:
    """100 busy keep-alive clients on one shared socket see no error in 20 restarts; each old process ends with 0."""
    settings: dict[str, Any] = {"http__in_flight_max": 200}  # and the usual lag: busy clients of a busy machine pause
    slowest = 0.0
    async with AsyncExitStack() as first, BusyClients(listener.getsockname(), 100) as clients:
        stack, old = first, await first.enter_async_context(open_instance(listener, tmp_path, name="0", **settings))
        await old.wait_ready()
        for number in range(1, 21):
            new_stack = AsyncExitStack()
            new = await new_stack.enter_async_context(open_instance(listener, tmp_path, name=str(number), **settings))
            await new.wait_ready()
            await clients.wait_answers(200)
            old.process.send_signal(signal.SIGTERM)
            fault_report.judge(judge_end(old.process.name, *await old.end(STOP_SECONDS), wanted=IN_ORDER))
            (stopped,) = old.lines("Stop phase done")
            assert stopped["phase"] == "http"
            slowest = max(slowest, stopped["seconds"])
            await stack.aclose()
            stack, old = new_stack, new
            assert clients.errors == {}, f"restart {number}"
        await clients.wait_answers(200)
        first.push_async_callback(stack.aclose)
    assert clients.errors == {}
    assert clients.closing_answers > 0
    fault_report.judge(clients.judge(), judge_time("the slowest drain", slowest, at_most=STOP_SECONDS))
    fault_report.measure(requests=str(clients.answers), slowest_drain=f"{slowest:.1f} s")


@pytest.mark.fault("H2", "SIGTERM, a handler at work for 2 s, 5 s to finish in")
async def test_answer_under_way_is_delivered_before_the_end(
    listener: socket.socket, tmp_path: Path, fault_report: FaultReport
) -> None:
    """SIGTERM waits for a request at work: its answer arrives whole and says close, and the status is 0."""
    limits: dict[str, Any] = {"drain_lag_seconds": 0.1, "finish_seconds": 5, "request_timeout_seconds": 5}
    settings = {f"http__{name}": value for name, value in limits.items()}
    async with open_instance(listener, tmp_path, **settings) as instance:
        await instance.wait_ready()
        async with RawClient(listener.getsockname()) as client:
            await client.send(b"GET /sleep/2 HTTP/1.1\r\nHost: test\r\n\r\n")
            await asyncio.sleep(0.3)
            instance.process.send_signal(signal.SIGTERM)
            answer = await client.answer()
        fault_report.judge(judge_end("the server", *await instance.end(STOP_SECONDS), wanted=IN_ORDER))
        (stopped,) = instance.lines("Stop phase done")
    delivered = (answer.status, answer.closes) == (200, True)
    fault_report.judge(
        judge(Rule.NOTHING_LOST, [] if delivered else [f"the request under way was answered {answer}"]),
        judge_time("the drain", stopped["seconds"], at_most=STOP_SECONDS),
    )
    fault_report.measure(drain=f"{stopped['seconds']:.1f} s")


async def test_second_signal_ends_a_request_under_way_now(listener: socket.socket, tmp_path: Path) -> None:
    """With a second SIGTERM the process ends at once with status 1, and the client sees that its answer is cut."""
    async with open_instance(listener, tmp_path, http__drain_lag_seconds=5) as instance:
        await instance.wait_ready()
        async with RawClient(listener.getsockname()) as client:
            await client.send(b"GET /sleep/9 HTTP/1.1\r\nHost: test\r\n\r\n")
            await asyncio.sleep(0.3)
            instance.process.send_signal(signal.SIGTERM)
            await asyncio.sleep(0.3)
            instance.process.send_signal(signal.SIGTERM)
            assert await instance.process.wait(STOP_SECONDS) == 1
            with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
                await client.answer()
        assert instance.lines("Stopped by force")


async def test_request_longer_than_its_deadline_is_told_504_and_the_process_ends_in_order(
    listener: socket.socket, tmp_path: Path
) -> None:
    """In a stop as ever: the deadline is no longer than the time for what is in flight, so nothing is cut off."""
    settings: dict[str, Any] = {
        "http__drain_lag_seconds": 0.1,
        "http__finish_seconds": 0.5,
        "http__request_timeout_seconds": 0.5,
    }
    async with open_instance(listener, tmp_path, **settings) as instance:
        await instance.wait_ready()
        async with RawClient(listener.getsockname()) as client:
            await client.send(b"GET /sleep/30 HTTP/1.1\r\nHost: test\r\n\r\n")
            await asyncio.sleep(0.2)
            instance.process.send_signal(signal.SIGTERM)
            assert (await client.answer()).status == 504
        assert await instance.process.wait(STOP_SECONDS) == 0


async def test_request_begun_late_in_a_stop_is_cut_with_503_and_the_process_ends_with_1(
    listener: socket.socket, tmp_path: Path
) -> None:
    """A header that is only whole after the lag begins a request whose deadline the stop does not wait for."""
    settings: dict[str, Any] = {
        "http__drain_lag_seconds": 0.1,
        "http__finish_seconds": 3,
        "http__request_timeout_seconds": 3,
    }
    async with open_instance(listener, tmp_path, **settings) as instance:
        await instance.wait_ready()
        async with RawClient(listener.getsockname()) as client:
            await client.send(b"GET /sleep/30 HTTP/1.1\r\n")
            await asyncio.sleep(0.2)
            instance.process.send_signal(signal.SIGTERM)
            await eventually(lambda: instance.lines("Stop requested"))
            await asyncio.sleep(1.5)
            await client.send(b"Host: test\r\n\r\n")
            answer = await client.answer()
            assert (answer.status, answer.code) == (503, "shutting-down")
        assert await instance.process.wait(STOP_SECONDS) == 1
        (failed,) = instance.lines("Stop phase failed")
        assert "WorkCutOffError" in failed["error"]


@pytest.mark.fault("H4", "SIGINT, 25 busy and 25 idle event streams open")
async def test_streams_end_with_their_last_event_when_a_process_stops(
    listener: socket.socket, tmp_path: Path, fault_report: FaultReport
) -> None:
    """Fifty clients of endless streams get the farewell and a proper end; the stop does not wait for its limit."""
    async with open_instance(listener, tmp_path, http__drain_lag_seconds=0.1) as instance, AsyncExitStack() as stack:
        await instance.wait_ready()
        clients = [await stack.enter_async_context(RawClient(listener.getsockname())) for _ in range(50)]
        for number, client in enumerate(clients):
            await client.send(b"GET /events%b HTTP/1.1\r\nHost: test\r\n\r\n" % (b"/idle" if number % 2 else b""))
            await client.reader.readuntil(b"\r\n\r\n")
        instance.process.send_signal(signal.SIGINT)
        farewell = b"event: bye\ndata: restarting\n\n\r\n0\r\n\r\n"
        cut = [number for number, client in enumerate(clients) if not (await client.read_to_end()).endswith(farewell)]
        fault_report.judge(judge_end("the server", *await instance.end(STOP_SECONDS), wanted=IN_ORDER))
        (stopped,) = instance.lines("Stop phase done")
    fault_report.judge(
        judge(Rule.NOTHING_LOST, (f"stream {number} ended without its farewell" for number in cut)),
        judge_time("the drain", stopped["seconds"], at_most=9),
    )
    fault_report.measure(drain=f"{stopped['seconds']:.1f} s")


@pytest.mark.fault("H22", "the event loop blocked for 2 s by a handler")
async def test_blocked_loop_is_seen_by_watchdog_liveness_and_metrics(
    listener: socket.socket, tmp_path: Path, fault_report: FaultReport
) -> None:
    """While a handler blocks the loop, liveness answers from its own thread, and turns false at its limit."""
    async with open_instance(listener, tmp_path, admin__stall_seconds=1) as instance:
        await instance.wait_ready()
        assert (await instance.ask_admin("/livez")).status == 200
        async with RawClient(listener.getsockname()) as client:
            await client.send(b"GET /block HTTP/1.1\r\nHost: test\r\n\r\n")
            live = await instance.wait_admin("/livez", 503)
            assert live.json()["live"] is False
            assert b"lp_event_loop_lag_seconds" in (await instance.ask_admin("/metrics")).body
            assert (await client.answer()).status == 200
        await instance.wait_admin("/livez", 200)
        assert b'lp_event_loop_blocked_total{name="default"} 1.0' in (await instance.ask_admin("/metrics")).body
        (seen,) = instance.lines("The event loop is blocked")
        assert "time.sleep(2)" in seen["stack"]
        await eventually(lambda: instance.lines("The event loop turns again"))
        (over,) = instance.lines("The event loop turns again")
        instance.process.send_signal(signal.SIGTERM)
        fault_report.judge(judge_end("the server", *await instance.end(STOP_SECONDS), wanted=IN_ORDER))
    fault_report.measure(told_after=f"{seen['blocked_seconds']:.1f} s", longest_lag=f"{over['blocked_seconds']:.1f} s")


async def test_metrics_and_access_log_tell_of_each_request(listener: socket.socket, tmp_path: Path) -> None:
    """A request is counted by method, route and status, and its log line has its id and trace and nothing it sent."""
    trace = "0af7651916cd43dd8448eb211c80319c"
    async with open_instance(listener, tmp_path) as instance:
        await instance.wait_ready()
        async with RawClient(listener.getsockname()) as client:
            headers = {"traceparent": f"00-{trace}-b7ad6b7169203331-01", "x-request-id": "abc-1"}
            answer = await client.get("/ok?secret=1", **headers)
            assert answer.headers["x-request-id"] == "abc-1"
        metrics = (await instance.ask_admin("/metrics")).body.decode()
        assert 'lp_http_requests_total{method="GET",route="unmatched",status="200"} 1.0' in metrics
        assert 'lp_http_request_duration_seconds_count{method="GET",route="unmatched"} 1.0' in metrics
        assert "lp_http_requests_in_flight 0.0" in metrics
    (line,) = instance.lines("request")
    assert (line["request_id"], line["trace_id"], line["status"]) == ("abc-1", trace, 200)
    assert "secret" not in instance.log.read_text()
