"""coupon_api as a process: how it starts, how it ends, and what survives its death."""

import asyncio
import signal
import socket
from collections import Counter
from pathlib import Path

import asyncpg
import httpx
import pytest

from loyalty.coupon import Coupon
from sandbox.servers import PostgresServer
from tests.support.coupon_api_process import open_coupon_api
from tests.support.coupon_store_contract import some_coupon
from tests.support.fault_report import FaultReport
from tests.support.ledger import judge_units
from tests.support.service_process import HttpServiceProcess
from tests.support.stored_coupon import put_coupon

ORDER = {
    "member_id": "m-1",
    "reward_id": "rw-1",
    "value_cents": 500,
    "currency": "EUR",
    "expires_at": "2999-01-01T00:00:00Z",
}
KEY = {"idempotency-key": "key-00001"}


async def test_database_down_at_start_ends_with_1_and_the_last_error(
    own_postgres: PostgresServer, tmp_path: Path
) -> None:
    """The service waits as long as its setting says, then says why it gave up; HTTP was never served."""
    await own_postgres.stop_fast()
    async with open_coupon_api(own_postgres, "coupons", tmp_path, STARTUP_SECONDS="1") as service:
        status = await service.process.wait(20)
        text = service.process.log.read_text()

    assert status == 1
    assert "Waiting for the database" in service.events()
    assert "no connection within 1.0 s; last error: " in text
    assert "Connect" in text or "refused" in text
    assert "Starting HTTP server" not in service.events()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_signal_while_the_database_is_awaited_ends_with_0(
    own_postgres: PostgresServer, tmp_path: Path, number: signal.Signals
) -> None:
    """Nobody has to wait for the end of a start that is not wanted any more."""
    await own_postgres.stop_fast()
    async with open_coupon_api(own_postgres, "coupons", tmp_path) as service:
        await service.wait_event("Waiting for the database")
        assert await service.readiness() == 503
        service.process.send_signal(number)

        assert await service.process.wait(10) == 0
    assert "Starting HTTP server" not in service.events()


async def test_frozen_database_at_start_ends_with_1(own_postgres: PostgresServer, tmp_path: Path) -> None:
    """A server that accepts and never answers is given up as one that refuses."""
    own_postgres.freeze()
    try:
        async with open_coupon_api(own_postgres, "coupons", tmp_path, STARTUP_SECONDS="1") as service:
            assert await service.process.wait(20) == 1
    finally:
        own_postgres.thaw()


async def test_database_that_comes_late_is_waited_for(
    own_postgres: PostgresServer, migrated: str, tmp_path: Path
) -> None:
    """The service is not ready before its database is, and then it is, with no restart."""
    await own_postgres.stop_fast()
    async with open_coupon_api(own_postgres, migrated, tmp_path) as service:
        await service.wait_event("Waiting for the database")
        await own_postgres.start()
        await service.wait_readiness(200)
        service.process.send_signal(signal.SIGTERM)

        assert await service.process.wait(20) == 0


async def test_port_in_use_is_reported_through_server_errors(
    postgres: PostgresServer, coupons_database: str, tmp_path: Path
) -> None:
    """The status is 1, and the pool was closed in order all the same."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        async with open_coupon_api(postgres, coupons_database, tmp_path, HTTP__PORT=port) as service:
            status = await service.process.wait(20)

    events = service.events()
    assert status == 1
    assert "Server failed" in events
    assert [line["phase"] for line in service.log() if line["event"] == "Stop phase done"] == [
        "clean-up",
        "http server",
        "postgres",
    ]
    assert "Application shutdown completed" not in events


async def test_wait_beyond_thirty_seconds_is_a_bad_setting(
    postgres: PostgresServer, coupons_database: str, tmp_path: Path
) -> None:
    """The promise of thirty seconds is kept against the one who sets it otherwise, with status 78."""
    async with open_coupon_api(postgres, coupons_database, tmp_path, STARTUP_SECONDS="31") as service:
        assert await service.process.wait(20) == 78
        assert "startup_seconds" in service.process.log.read_text()


async def test_stop_under_load_loses_no_request(
    administrator: "asyncpg.Connection", postgres: PostgresServer, coupons_database: str, tmp_path: Path
) -> None:
    """Forty busy keep-alive clients see answers to all they sent; the log has the original's words in their order."""
    coupons = [some_coupon() for _ in range(40)]
    for coupon in coupons:
        await put_coupon(administrator, coupon)
    # The lag must outlast the busiest client's pause between connecting and sending: here forty share one loop.
    async with open_coupon_api(postgres, coupons_database, tmp_path, HTTP__DRAIN_LAG_SECONDS="5") as service:
        await service.wait_readiness(200)
        outcomes: Counter[str] = Counter()
        is_busy = asyncio.Event()
        clients = [asyncio.create_task(_read_until_refused(service, coupon, outcomes, is_busy)) for coupon in coupons]
        await is_busy.wait()
        service.process.send_signal(signal.SIGTERM)
        status = await service.process.wait(20)
        await asyncio.gather(*clients)

    words = ["Starting HTTP server", "Received shutdown signal", "Application shutdown completed"]
    assert status == 0
    assert set(outcomes) == {"200", "refused"}
    assert outcomes["refused"] == len(clients)
    assert [event for event in service.events() if event in words] == words


async def _read_until_refused(
    service: HttpServiceProcess, coupon: Coupon, outcomes: "Counter[str]", is_busy: asyncio.Event
) -> None:
    """Read one coupon over and over, on a connection that is kept alive, until nobody accepts a new one."""
    async with service.client("m-1", "member") as client:
        while True:
            try:
                response = await client.get(f"/v1/coupons/{coupon.code}")
            except httpx.ConnectError:
                outcomes["refused"] += 1
                return
            except httpx.TransportError as error:
                outcomes[type(error).__name__] += 1
                return
            outcomes[str(response.status_code)] += 1
            if outcomes["200"] == 400:
                is_busy.set()


@pytest.mark.parametrize(
    "point",
    [
        pytest.param(point, marks=pytest.mark.fault("H7", f"kill -9 of coupon_api while it issues a coupon, {point}"))
        for point in ("after-claim", "after-insert", "after-commit")
    ],
)
async def test_order_whose_server_died_is_done_once_by_its_repetition(
    administrator: "asyncpg.Connection",
    postgres: PostgresServer,
    coupons_database: str,
    tmp_path: Path,
    fault_report: FaultReport,
    point: str,
) -> None:
    """Wherever kill -9 hits, the same order with the same key gets an answer, again the same, and one coupon exists."""
    crash = {"CRASH__IS_TEST": "true", "CRASH__POINT": point}
    async with open_coupon_api(postgres, coupons_database, tmp_path, **crash) as service:
        await service.wait_readiness(200)
        async with service.client("ops-1", "operator") as operator:
            with pytest.raises(httpx.TransportError):
                await operator.post("/v1/coupons", json=ORDER, headers=KEY)
        assert await service.process.wait(20) == 128 + signal.SIGKILL
    left = await administrator.fetchval("select count(*) from coupons")
    async with open_coupon_api(postgres, coupons_database, tmp_path) as service:
        await service.wait_readiness(200)
        async with service.client("ops-1", "operator") as operator:
            answers = [await operator.post("/v1/coupons", json=ORDER, headers=KEY) for _ in range(2)]

    assert left == (1 if point == "after-commit" else 0)
    assert [answer.status_code for answer in answers] == [201, 201]
    assert answers[0].content == answers[1].content
    told = [(KEY["idempotency-key"], answer.json()["code"]) for answer in answers]
    stored = [(KEY["idempotency-key"], row["code"]) for row in await administrator.fetch("select code from coupons")]
    fault_report.judge(judge_units(told, told, stored))


async def test_database_restart_is_ridden_out(own_postgres: PostgresServer, migrated: str, tmp_path: Path) -> None:
    """While the database is away reads get 503 with Retry-After; when it is back they work, in the same process."""
    async with open_coupon_api(own_postgres, migrated, tmp_path) as service:
        await service.wait_readiness(200)
        async with service.client("ops-1", "operator") as operator:
            code = (await operator.post("/v1/coupons", json=ORDER, headers=KEY)).json()["code"]
            await own_postgres.stop_immediately()
            away = await operator.get(f"/v1/coupons/{code}")
            await service.wait_readiness(503)
            await own_postgres.start()
            await service.wait_readiness(200)
            back = await operator.get(f"/v1/coupons/{code}")

    assert (away.status_code, away.headers["retry-after"], away.json()["code"]) == (503, "1", "dependency-unavailable")
    assert (back.status_code, back.json()["code"]) == (200, code)


async def test_frozen_database_costs_each_request_its_own_deadline(
    own_postgres: PostgresServer, migrated: str, tmp_path: Path
) -> None:
    """Every read of a database that never answers ends with 503 or 504; after the thaw reads work, with no restart."""
    settings = {"HTTP__REQUEST_TIMEOUT_SECONDS": "1", "POSTGRES__ACQUIRE_TIMEOUT_SECONDS": "0.5"}
    async with open_coupon_api(own_postgres, migrated, tmp_path, **settings) as service:
        await service.wait_readiness(200)
        async with service.client("ops-1", "operator") as operator:
            code = (await operator.post("/v1/coupons", json=ORDER, headers=KEY)).json()["code"]
            own_postgres.freeze()
            try:
                answers = await asyncio.gather(*(operator.get(f"/v1/coupons/{code}") for _ in range(30)))
                await service.wait_readiness(503)
            finally:
                own_postgres.thaw()
            await service.wait_readiness(200)
            back = await operator.get(f"/v1/coupons/{code}")

    assert {answer.status_code for answer in answers} <= {503, 504}
    assert back.status_code == 200
