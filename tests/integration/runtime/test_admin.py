"""The admin port: liveness, readiness and metrics, whatever the process is doing."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import generate_latest

from runtime.admin import CONNECTIONS_MAX, AdminServer
from runtime.health import Health
from runtime.listener import open_listener
from runtime.metrics import ReadinessCollector
from runtime.settings import AdminSettings
from tests.support.raw_http import RawClient, ask


@pytest.fixture
def health() -> Health:
    """The health that is served."""
    return Health(cache_seconds=0)


@pytest.fixture
async def admin(health: Health) -> AsyncIterator[AdminServer]:
    """A running admin server."""
    server = AdminServer(AdminSettings(port=0, stall_seconds=1), health, lambda: b"lp_up 1\n")
    server.start(asyncio.get_running_loop())
    yield server
    server.close()


def _get(path: str, method: str = "GET") -> bytes:
    return f"{method} {path} HTTP/1.1\r\nHost: admin\r\n\r\n".encode()


async def test_liveness_looks_at_no_dependency(admin: AdminServer, health: Health) -> None:
    """A process that is not started, and whose dependency is down, is alive all the same."""

    async def broken() -> None:
        raise ConnectionRefusedError

    health.add_check("postgres", broken)
    assert (await ask(admin.address, _get("/livez"))).status == 200
    health.set_ready()
    health.set_draining()
    assert (await ask(admin.address, _get("/livez"))).status == 200


async def test_readiness_names_what_is_not_ready(admin: AdminServer, health: Health) -> None:
    """503 with the part and its reason until all is well, 200 then, and 503 again in a drain."""
    is_down = True

    async def check() -> None:
        if is_down:
            raise ConnectionRefusedError

    health.add_check("postgres", check)
    answer = await ask(admin.address, _get("/readyz"))
    assert (answer.status, answer.json()) == (503, {"ready": False, "not_ready": {"process": "starting"}})
    health.set_ready()
    answer = await ask(admin.address, _get("/readyz"))
    assert (answer.status, answer.json()["not_ready"]) == (503, {"postgres": "ConnectionRefusedError"})
    is_down = False
    assert (await ask(admin.address, _get("/readyz?verbose=1"))).json() == {"ready": True, "not_ready": {}}
    health.set_draining()
    assert (await ask(admin.address, _get("/readyz"))).json()["not_ready"] == {"process": "draining"}


async def test_scrape_asks_for_readiness_and_shows_it(health: Health) -> None:
    """A monitor that only scrapes sees readiness as it is now, with the part that is missing and why."""
    registry = CollectorRegistry()
    server = AdminServer(AdminSettings(port=0), health, lambda: generate_latest(registry))
    registry.register(ReadinessCollector(lambda: server.readiness))
    is_down = True

    async def check() -> None:
        if is_down:
            raise ConnectionRefusedError

    health.add_check("postgres", check)
    server.start(asyncio.get_running_loop())
    try:
        assert (
            b'lp_not_ready{part="process",reason="starting"} 1.0' in (await ask(server.address, _get("/metrics"))).body
        )
        health.set_ready()
        body = (await ask(server.address, _get("/metrics"))).body
        assert b"lp_ready 0.0" in body
        assert b'lp_not_ready{part="postgres",reason="ConnectionRefusedError"} 1.0' in body
        is_down = False
        body = (await ask(server.address, _get("/metrics"))).body
        assert b"lp_ready 1.0" in body
        assert b"lp_not_ready{" not in body
    finally:
        server.close()


async def test_metrics_are_served_and_head_has_no_body(admin: AdminServer) -> None:
    """The rendered text comes with Prometheus' media type; HEAD gets the header alone."""
    answer = await ask(admin.address, _get("/metrics"))
    assert (answer.body, answer.headers["content-type"]) == (b"lp_up 1\n", "text/plain; version=0.0.4; charset=utf-8")
    async with RawClient(admin.address) as client:
        await client.send(_get("/metrics", "HEAD"))
        head = await client.read_to_end()
        assert head.endswith(b"\r\n\r\n")
        assert b"content-length: 8\r\n" in head


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [(_get("/other"), 404), (_get("/"), 404), (_get("/livez", "POST"), 405), (b"nonsense\r\n\r\n", 400)],
)
async def test_anything_else_is_refused(admin: AdminServer, request_bytes: bytes, status: int) -> None:
    """Unknown paths, other methods and no HTTP at all get their status and nothing more."""
    assert (await ask(admin.address, request_bytes)).status == status


async def test_header_without_end_is_dropped(admin: AdminServer) -> None:
    """A request larger than 8 KiB ends the connection without an answer."""
    async with RawClient(admin.address) as client:
        client.writer.write(b"GET /livez HTTP/1.1\r\n" + b"x" * 200_000)
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await client.answer()


async def test_crowd_of_silent_connections_is_bounded(admin: AdminServer) -> None:
    """Beyond the cap a connection is closed at once, and there is room again when others leave."""
    silent = [RawClient(admin.address) for _ in range(CONNECTIONS_MAX)]
    for client in silent:
        await client.__aenter__()
    async with RawClient(admin.address) as refused:
        assert await refused.read_to_end() == b""
    for client in silent:
        await client.__aexit__(None, None, None)
    async with asyncio.timeout(10):
        while True:
            try:
                assert (await ask(admin.address, _get("/livez"))).status == 200
                break
            except (ConnectionError, asyncio.IncompleteReadError):
                await asyncio.sleep(0.01)


async def test_blocked_loop_shows_in_liveness_and_readiness(health: Health) -> None:
    """While the loop stands still, both answer from the other thread: not ready at once, not live after the limit."""
    health.set_ready()
    admin = AdminServer(AdminSettings(port=0, stall_seconds=0.5), health, bytes)
    admin.start(asyncio.get_running_loop())
    try:
        await asyncio.sleep(0.3)
        assert admin.stalled_seconds < 0.5
        answers = asyncio.create_task(asyncio.to_thread(_ask_from_a_thread, admin.address))
        await asyncio.sleep(0.05)
        time.sleep(2.5)  # noqa: ASYNC251 - a loop that is blocked is what this test is about
        live, ready = await answers
        assert (live, ready) == (503, 503)
        await asyncio.sleep(0.5)
        assert (await ask(admin.address, _get("/livez"))).status == 200
    finally:
        admin.close()


def _ask_from_a_thread(address: tuple[str, int]) -> tuple[int, int]:
    async def ask_both() -> tuple[int, int]:
        await asyncio.sleep(1.6)
        live = await ask(address, _get("/livez"))
        ready = await ask(address, _get("/readyz"))
        return live.status, ready.status

    return asyncio.run(ask_both())


async def test_port_in_use_is_an_error_of_start(health: Health) -> None:
    """A taken port is an OSError, at once and in the caller's thread."""
    with open_listener("127.0.0.1", 0) as taken:
        admin = AdminServer(AdminSettings(port=taken.getsockname()[1]), health, bytes)
        with pytest.raises(OSError, match="in use"):
            admin.start(asyncio.get_running_loop())
        admin.close()
