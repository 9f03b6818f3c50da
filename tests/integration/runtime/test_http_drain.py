"""A stop loses no request: the order of the drain, step by step, in one process (faults H2, H3, H4)."""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress
from typing import Any

import pytest
from starlette.types import ASGIApp, Receive, Scope, Send
from structlog.testing import capture_logs

from patterns import Channel
from runtime import http_protocol
from runtime.acceptor import Acceptor
from runtime.errors import WorkCutOffError
from runtime.health import Health
from runtime.http_edge import HttpEdge
from runtime.http_protocol import HttpProtocol
from runtime.http_server import HttpServer
from runtime.listener import open_listener
from runtime.problem import ProblemTable
from runtime.settings import HttpSettings
from tests.support.busy_clients import BusyClients
from tests.support.eventually import eventually
from tests.support.http_process import routes
from tests.support.http_serving import open_server, serve
from tests.support.raw_http import RawClient

GET = b"GET /ok HTTP/1.1\r\nHost: test\r\n\r\n"
SLEEP = b"GET /sleep/%b HTTP/1.1\r\nHost: test\r\n\r\n"


async def test_port_in_use_arrives_in_server_errors_and_a_drain_then_ends_at_once() -> None:
    """A taken port is an error in the channel, not an exit; the stop that follows has nothing to wait for."""
    with open_listener("127.0.0.1", 0) as taken:
        settings = HttpSettings(port=taken.getsockname()[1], drain_lag_seconds=60)
        server = HttpServer(routes, settings, Health())
        server_errors: Channel[BaseException] = Channel(1)
        server.start(server_errors)
        error = await server_errors.receive()
        assert isinstance(error, OSError)
        assert "in use" in str(error)
        async with asyncio.timeout(5):
            await server.drain()


async def test_inherited_number_that_does_not_listen_arrives_in_server_errors() -> None:
    """A descriptor that is no listening socket is reported as a port in use is."""
    with socket.socket() as idle:
        server = HttpServer(routes, HttpSettings(listen_fd=idle.fileno()), Health())
        server_errors: Channel[BaseException] = Channel(1)
        server.start(server_errors)
        assert isinstance(await server_errors.receive(), OSError)


async def test_drain_serves_for_the_lag_with_close_then_refuses() -> None:
    """In the lag new and old connections are served, each answer saying close; after it the port is closed."""
    async with open_server(drain_lag_seconds=0.5) as server, RawClient(server.address) as old:
        assert not (await old.get()).closes
        drain = asyncio.ensure_future(server.drain())
        await asyncio.sleep(0.05)
        async with RawClient(server.address) as new:
            assert [(await old.get()).closes, (await new.get()).closes] == [True, True]
        report = await drain
        assert report.cut_off_connections == 0
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection(*server.address)


async def test_readiness_turns_false_before_anything_else() -> None:
    """From the first moment of the drain the health says draining."""
    health = Health()
    server = HttpServer(routes, HttpSettings(port=0, drain_lag_seconds=0.1), health)
    server.start(Channel(1))
    health.set_ready()
    drain = asyncio.ensure_future(server.drain())
    await asyncio.sleep(0)
    assert (await health.report()).not_ready == {"process": "draining"}
    await drain


async def test_request_shorter_than_the_limit_is_finished() -> None:
    """A request at work when the drain begins, and longer than the lag, gets its answer, which says close."""
    async with open_server(drain_lag_seconds=0.05) as server, RawClient(server.address) as client:
        await client.send(SLEEP % b"0.4")
        await eventually(lambda: server.statistics().running)
        await server.drain()
        answer = await client.answer()
        assert (answer.status, answer.closes) == (200, True)


def _behind_the_edge(app: ASGIApp, *, request_timeout_seconds: float) -> HttpEdge:
    """Put an application behind the edge with a request's deadline that the server's settings do not know of."""
    settings = HttpSettings(request_timeout_seconds=request_timeout_seconds, finish_seconds=request_timeout_seconds)
    return HttpEdge(app, settings, problems=ProblemTable({}))


@pytest.mark.parametrize("has_edge", [True, False])
async def test_request_at_work_at_the_end_of_a_drain_is_answered_503_and_its_handler_cancelled(has_edge: bool) -> None:
    """Work that its own deadline did not end is cancelled, so that it can roll back, and told 503; the phase fails."""
    rolled_back: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await routes(scope, receive, send)
        except asyncio.CancelledError:
            rolled_back.append(scope["path"])
            raise

    settings = HttpSettings(port=0, drain_lag_seconds=0.0, finish_seconds=0.1, request_timeout_seconds=0.1)
    served = _behind_the_edge(app, request_timeout_seconds=60) if has_edge else app
    async with serve(served, settings) as server, RawClient(server.address) as client:
        await client.send(SLEEP % b"60")
        await eventually(lambda: server.statistics().running)
        with capture_logs() as lines, pytest.raises(WorkCutOffError, match="1 requests"):
            await server.drain()
        answer = await client.answer()
        assert (answer.status, answer.code, answer.closes) == (503, "shutting-down", True)
        assert rolled_back == ["/sleep/60"]
        cut_off = [(line["requests"], line["connections"]) for line in lines if "cut off" in line["event"]]
        assert cut_off == [(1, 1)]


async def test_request_whose_deadline_comes_in_a_drain_is_answered_504_and_the_drain_succeeds() -> None:
    """A deadline that is no longer than the time for what is in flight comes first, and nothing is left to cut off."""
    settings = HttpSettings(port=0, drain_lag_seconds=0.05, finish_seconds=60, request_timeout_seconds=60)
    served = _behind_the_edge(routes, request_timeout_seconds=0.3)
    async with serve(served, settings) as server, RawClient(server.address) as client:
        await client.send(SLEEP % b"60")
        await eventually(lambda: server.statistics().running)
        assert (await server.drain()).cut_off_connections == 0
        assert (await client.answer()).status == 504


async def test_drain_that_cuts_off_a_silent_connection_says_so_and_succeeds() -> None:
    """A client that never finishes its request does not decide how the stop ends, and is counted."""
    async with open_server(drain_lag_seconds=0.0, finish_seconds=0.1, request_timeout_seconds=0.1) as server:
        async with RawClient(server.address) as client:
            await client.send(b"GET /ok HTTP/1.1\r\nHost:")
            await eventually(lambda: server.statistics().connections)
            with capture_logs() as lines:
                report = await server.drain()
        assert report.cut_off_connections == 1
        assert [line["connections"] for line in lines if "cut off" in line["event"]] == [1]


async def test_cancelled_drain_closes_everything_at_once() -> None:
    """When the stop is forced, connections are cut and handlers cancelled without waiting for any limit."""
    async with open_server(drain_lag_seconds=60) as server, RawClient(server.address) as client:
        await client.send(SLEEP % b"60")
        await eventually(lambda: server.statistics().running)
        drain = asyncio.ensure_future(server.drain())
        await asyncio.sleep(0.05)
        drain.cancel()
        with suppress(asyncio.CancelledError):
            await drain
        await eventually(lambda: server.statistics().connections == server.statistics().running == 0)
        with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
            await client.answer()


async def test_idle_connection_is_closed_in_peace_and_a_fresh_one_may_still_ask() -> None:
    """After the lag an idle connection gets our FIN; one that was just opened is served once before it ends."""
    async with open_server(drain_lag_seconds=0.4) as server, RawClient(server.address) as idle:
        assert (await idle.get()).status == 200
        drain = asyncio.ensure_future(server.drain())
        await asyncio.sleep(0.35)
        async with RawClient(server.address) as fresh:
            await eventually(idle.reader.at_eof)
            answer = await fresh.get()
            assert (answer.status, answer.closes) == (200, True)
        assert (await drain).cut_off_connections == 0


async def _ask_behind_the_loop(server: HttpServer, client: RawClient) -> HttpProtocol:
    """Put a request into the kernel's buffer of a connection in a drain, before the loop can see it."""
    assert (await client.get()).status == 200
    (connection,) = server._state.connections
    assert isinstance(connection, HttpProtocol)
    server._state.listener_is_closed = server._state.is_draining = True
    sent = socket.socket(fileno=client.writer.get_extra_info("socket").fileno())
    try:
        sent.send(GET)
    finally:
        sent.detach()
    return connection


async def test_request_in_the_kernel_at_the_moment_of_the_close_is_served() -> None:
    """A connection that looks idle is not closed over a request that lies unread in its buffer."""
    async with open_server(drain_lag_seconds=0.0) as server, RawClient(server.address) as client:
        (await _ask_behind_the_loop(server, client)).close_if_quiet()
        answer = await client.answer()
        assert (answer.status, answer.closes) == (200, True)


async def test_without_the_look_into_the_kernel_that_request_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """The guard is needed: a close that does not look first loses the request, and the loss is counted."""
    monkeypatch.setattr(http_protocol, "unread_bytes", lambda _: 0)
    async with open_server(drain_lag_seconds=0.0) as server, RawClient(server.address) as client:
        (await _ask_behind_the_loop(server, client)).close_if_quiet()
        with pytest.raises(asyncio.IncompleteReadError):
            await client.answer()
        assert server.statistics().refused == {"raced_with_close": 1}


async def _ask_in_the_queue(server: HttpServer) -> bytes:
    """Connect and send while the loop stands, drain at once, and give what comes back; a reset gives nothing."""
    async with RawClient(server.address) as first:
        assert (await first.get()).status == 200
    loop = asyncio.get_running_loop()
    with socket.create_connection(server.address) as queued:
        queued.send(GET)
        queued.setblocking(False)
        drain = asyncio.ensure_future(server.drain())
        async with asyncio.timeout(10):
            try:
                return await loop.sock_recv(queued, 12)
            except ConnectionResetError:
                return b""
            finally:
                await drain


async def test_connection_in_the_kernels_queue_is_served_when_the_socket_is_ours_alone() -> None:
    """What the kernel accepted for us before the listener closed is taken in and answered, not reset."""
    async with open_server(drain_lag_seconds=0.0) as server:
        assert await _ask_in_the_queue(server) == b"HTTP/1.1 200"


async def test_without_taking_in_the_queue_that_connection_is_reset(monkeypatch: pytest.MonkeyPatch) -> None:
    """The guard is needed: a listener that is closed with a full queue resets who waits in it."""
    stop = Acceptor.stop

    async def stop_without(acceptor: Acceptor, *, take_queued: bool) -> None:
        assert take_queued
        await stop(acceptor, take_queued=False)

    monkeypatch.setattr(Acceptor, "stop", stop_without)
    async with open_server(drain_lag_seconds=0.0) as server:
        acceptor = server._acceptor
        assert acceptor is not None
        monkeypatch.setattr(acceptor, "_accept_one", lambda: False)
        loop = asyncio.get_running_loop()
        with socket.create_connection(server.address) as queued:
            queued.send(GET)
            queued.setblocking(False)
            await server.drain()
            with pytest.raises(ConnectionResetError):
                await loop.sock_recv(queued, 12)


async def test_streams_say_goodbye_when_the_listener_is_closed() -> None:
    """Fifty event streams each get their last event and a whole end, and the drain ends well before its limit."""
    async with open_server(drain_lag_seconds=0.1, finish_seconds=30) as server:
        clients = [RawClient(server.address) for _ in range(50)]
        for client in clients:
            await client.__aenter__()
            await client.send(b"GET /events HTTP/1.1\r\nHost: test\r\n\r\n")
        await eventually(lambda: server.statistics().running == 50)
        report = await server.drain()
        answers = [await client.answer() for client in clients]
        assert all(answer.body.endswith(b"event: bye\ndata: restarting\n\n") for answer in answers)
        assert report.cut_off_connections == 0
        assert report.seconds < 10
        for client in clients:
            await client.__aexit__(None, None, None)


async def test_pipelined_requests_are_all_answered_in_a_drain() -> None:
    """Only the last answer on a connection says close: those queued before it are not lost."""
    async with open_server(drain_lag_seconds=0.3) as server, RawClient(server.address) as client:
        await client.send(SLEEP % b"0.1")
        await eventually(lambda: server.statistics().running)
        drain = asyncio.ensure_future(server.drain())
        await asyncio.sleep(0)
        await client.send(SLEEP % b"0.01" + SLEEP % b"0")
        assert [(await client.answer()).closes for _ in range(3)] == [False, False, True]
        assert (await drain).cut_off_connections == 0


@pytest.mark.parametrize("pause_seconds", [0.0, 0.1, 1.5])
async def test_hundred_keep_alive_clients_lose_nothing_to_a_drain(pause_seconds: float) -> None:
    """Two servers share a listening socket; one drains under 100 clients, busy, slower, or idle for long: no error."""
    with open_listener("127.0.0.1", 0) as listener:
        shared: dict[str, Any] = {"listen_fd": listener.fileno(), "in_flight_max": 200, "drain_lag_seconds": 0.5}
        async with (
            open_server(**shared) as old,
            open_server(**shared),
            BusyClients(listener.getsockname(), 100, pause_seconds=pause_seconds) as clients,
        ):
            await clients.wait_answers(110)
            report = await old.drain()
            await clients.wait_answers(110)
        assert clients.errors == {}
        assert report.cut_off_connections == 0
