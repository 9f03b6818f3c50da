"""Cancelling with real processes on both sides, killed at each step."""

import signal
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import httpx
import pytest

from deploy.settings import MigrateSettings
from runtime.auth import sign_token
from sandbox.servers import PostgresServer
from tests.support.coupon_api_process import open_coupon_api
from tests.support.fault_report import FaultReport
from tests.support.ledger import digest, judge_units
from tests.support.reward_store_process import Place, open_reward_store
from tests.support.reward_world import PostgresWorld
from tests.support.service_process import SECRET, HttpServiceProcess
from tests.support.stored_coupon import put_coupon

REDEEM = {"reward_id": "rw-coffee"}
KEY = {"idempotency-key": "key-0001"}
QUICK = {
    "COUPON_API__TIMEOUT_SECONDS": "1",
    "POSTGRES__ACQUIRE_TIMEOUT_SECONDS": "1",
    "POSTGRES__STATEMENT_TIMEOUT_SECONDS": "1",
    "POSTGRES__LOCK_TIMEOUT_SECONDS": "1",
    "CANCEL__LEASE_SECONDS": "3.5",
    "CANCEL__INTERVAL_SECONDS": "0.3",
}


@pytest.fixture
async def coupons(postgres: PostgresServer, databases: MigrateSettings) -> AsyncIterator[asyncpg.Connection]:
    """A superuser's connection to the coupons database, whose table is empty."""
    connection = await asyncpg.connect(postgres.url(databases.coupons_database), timeout=10)
    try:
        await connection.execute("truncate coupons")
        yield connection
    finally:
        await connection.close()


@pytest.fixture
async def coupon_api(
    postgres: PostgresServer, databases: MigrateSettings, tmp_path: Path, coupons: asyncpg.Connection
) -> AsyncIterator[HttpServiceProcess]:
    """A running coupon_api on the empty table."""
    del coupons
    async with open_coupon_api(postgres, databases.coupons_database, tmp_path) as service:
        await service.wait_readiness(200)
        yield service


def settings(coupon_api: HttpServiceProcess, **more: str) -> dict[str, str]:
    """Return what reward_store is told: where coupon_api is, behind an address where nobody listens."""
    return {**QUICK, "COUPON_API__URLS": f"http://127.0.0.1:9,http://127.0.0.1:{coupon_api.port}", **more}


def write_token(service: HttpServiceProcess, secret: str) -> None:
    """Let reward_store come to coupon_api with another token."""
    token = sign_token("reward-store", "operator", secret)
    Path(service.variables["COUPON_API__TOKEN_FILE"]).write_text(token)


async def arrive(world: PostgresWorld, coupons: asyncpg.Connection) -> str:
    """Let the one coupon arrive in coupon_api's database, as the consumer would bring it; return its code."""
    [redemption] = await world.redemptions()
    await put_coupon(coupons, redemption.coupon())
    return redemption.coupon_code


async def redeem(client: httpx.AsyncClient) -> str:
    """Redeem and return the path that cancels."""
    answer = await client.post("/v1/redemptions", json=REDEEM, headers=KEY)
    assert answer.status_code == 201, answer.text
    return f"/v1/redemptions/{answer.json()['redemption_id']}/cancel"


async def balance(world: PostgresWorld) -> tuple[int, int, str, int]:
    """Return points, stock, the one redemption's status, and the number of events."""
    [redemption] = await world.redemptions()
    member, reward = await world.store.member("m-1"), await world.store.reward("rw-coffee")
    return member.points, reward.stock, redemption.status.value, len(await world.events())


async def coupon_state(coupons: asyncpg.Connection) -> list[tuple[str, int]]:
    """Return status and version of each coupon."""
    return [(row["status"], row["version"]) for row in await coupons.fetch("select status, version from coupons")]


@pytest.mark.parametrize("has_arrived", [True, False], ids=["arrived", "not-arrived"])
async def test_a_cancellation_kills_the_coupon_and_gives_all_back(
    place: Place,
    world: PostgresWorld,
    coupons: asyncpg.Connection,
    coupon_api: HttpServiceProcess,
    *,
    has_arrived: bool,
) -> None:
    """Both databases agree, also when the coupon has not arrived yet: then its late event finds it cancelled."""
    async with open_reward_store(place, **settings(coupon_api)) as service:
        await service.wait_readiness(200)
        async with service.client("m-1") as client:
            path = await redeem(client)
            if has_arrived:
                await arrive(world, coupons)
            answers = [await client.post(path) for _ in range(2)]
    assert [(answer.status_code, answer.json()["status"]) for answer in answers] == [(200, "cancelled")] * 2
    assert await balance(world) == (250, 10, "cancelled", 2)
    assert await coupon_state(coupons) == [("cancelled", 2)]


async def test_a_used_coupon_is_refused_and_the_redemption_stands(
    place: Place, world: PostgresWorld, coupons: asyncpg.Connection, coupon_api: HttpServiceProcess
) -> None:
    """Nobody gets points back for a coupon that was spent."""
    async with open_reward_store(place, **settings(coupon_api)) as service:
        await service.wait_readiness(200)
        async with service.client("m-1") as client, coupon_api.client("m-1", "member") as spender:
            path = await redeem(client)
            code = await arrive(world, coupons)
            assert (await spender.post(f"/v1/coupons/{code}/redeem")).status_code == 200
            answer = await client.post(path)
    assert (answer.status_code, answer.json()["code"]) == (409, "coupon-used")
    assert await balance(world) == (150, 9, "issued", 1)


@pytest.mark.parametrize(
    "point",
    [
        pytest.param(point, marks=pytest.mark.fault("H7", f"kill -9 of reward_store in a cancellation, {point}"))
        for point in ("after-cancelling", "after-coupon-cancelled", "after-give-back")
    ],
)
async def test_a_death_in_a_cancellation_is_made_good_by_another_process(
    place: Place,
    world: PostgresWorld,
    coupons: asyncpg.Connection,
    coupon_api: HttpServiceProcess,
    fault_report: FaultReport,
    point: str,
) -> None:
    """Killed between the steps, the wish stays recorded; a finisher ends it with nobody asking again."""
    armed = settings(coupon_api, CRASH__IS_TEST="true", CRASH__POINT=point)
    async with open_reward_store(place, **armed) as service:
        await service.wait_readiness(200)
        async with service.client("m-1") as client:
            path = await redeem(client)
            await arrive(world, coupons)
            with pytest.raises(httpx.TransportError):
                await client.post(path)
        assert await service.process.wait(10) == 128 + signal.SIGKILL
    assert await balance(world) == (150, 9, "cancelling", 1)
    assert await coupon_state(coupons) == [("issued", 1) if point == "after-cancelling" else ("cancelled", 2)]
    async with open_reward_store(place, **settings(coupon_api)) as service:
        await service.wait_event("An abandoned cancellation was finished")
    points, *_ = await balance(world)
    wish = [("m-1", digest("points given back"))]
    fault_report.judge(judge_units(wish, wish, wish * ((points - 150) // 100)))
    assert await balance(world) == (250, 10, "cancelled", 2)
    assert await coupon_state(coupons) == [("cancelled", 2)]


async def test_coupon_api_away_is_503_and_the_finisher_goes_on_when_it_is_back(
    postgres: PostgresServer,
    databases: MigrateSettings,
    place: Place,
    world: PostgresWorld,
    coupons: asyncpg.Connection,
    coupon_api: HttpServiceProcess,
) -> None:
    """Nothing is given back before coupon_api has spoken, and everything is once it has."""
    async with open_reward_store(place, **settings(coupon_api)) as service:
        await service.wait_readiness(200)
        async with service.client("m-1") as client:
            path = await redeem(client)
            await arrive(world, coupons)
            await coupon_api.process.stop()
            answer = await client.post(path)
            assert (answer.status_code, answer.json()["code"]) == (503, "dependency-unavailable")
            assert await balance(world) == (150, 9, "cancelling", 1)
            port = str(coupon_api.port)
            async with open_coupon_api(postgres, databases.coupons_database, place.directory, HTTP__PORT=port):
                await service.wait_event("An abandoned cancellation was finished")
    assert await balance(world) == (250, 10, "cancelled", 2)


async def test_a_wrong_token_is_told_of_and_the_cancellation_is_finished_once_it_is_mended(
    place: Place, world: PostgresWorld, coupons: asyncpg.Connection, coupon_api: HttpServiceProcess
) -> None:
    """The member gets 503, the log an error, the gauges one row; the finisher needs no restart to use the new token."""
    async with open_reward_store(place, **settings(coupon_api)) as service:
        await service.wait_readiness(200)
        write_token(service, SECRET[::-1])
        async with service.client("m-1") as client:
            path = await redeem(client)
            await arrive(world, coupons)
            answer = await client.post(path)
        assert (answer.status_code, answer.json()["code"]) == (503, "dependency-unavailable")
        await service.wait_event("A cancellation was rejected")
        line = next(line for line in service.log() if line["event"] == "A cancellation was rejected")
        assert (line["level"], line["reason"].split()[:2]) == ("error", ["answered", "401"])
        await service.wait_metrics(lp_cancelling_rows=1)
        assert await balance(world) == (150, 9, "cancelling", 1)
        write_token(service, SECRET)
        await service.wait_event("An abandoned cancellation was finished")
        await service.wait_metrics(lp_cancelling_rows=0)
        metrics = await service.metrics()
        assert metrics['lp_cancellations_total{end="rejected"}'] >= 1
    assert await balance(world) == (250, 10, "cancelled", 2)
    assert await coupon_state(coupons) == [("cancelled", 2)]
