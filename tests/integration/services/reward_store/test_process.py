"""reward_store as a process: how it starts, how it stops, and what a death in the middle leaves behind."""

import asyncio
import re
import signal
import socket
from collections import Counter
from pathlib import Path

import asyncpg
import httpx
import orjson
import pytest

from deploy.migrate import migrate
from loyalty.reward import Member
from sandbox.servers import KafkaServer, PostgresServer
from sandbox.servers.address import free_port
from tests.support.databases import migrate_settings
from tests.support.eventually import eventually
from tests.support.fault_report import FaultReport
from tests.support.judgement import judge_end
from tests.support.ledger import digest, judge_units
from tests.support.reward_store_contract import event_of
from tests.support.reward_store_process import Place, open_reward_store
from tests.support.reward_world import PostgresWorld
from tests.support.servers import create_topic
from tests.support.service_process import HttpServiceProcess
from tests.support.topic_reader import read_events

REDEEM = {"reward_id": "rw-coffee"}
KEY = {"idempotency-key": "key-0001"}
WORDS = ["Starting HTTP server", "Received shutdown signal", "Application shutdown completed"]
PHASES = ["background work", "http server", "kafka producer", "postgres"]
SHORT_LEASE = {
    "KAFKA__DELIVERY_TIMEOUT_SECONDS": "1",
    "POSTGRES__ACQUIRE_TIMEOUT_SECONDS": "1",
    "POSTGRES__STATEMENT_TIMEOUT_SECONDS": "1",
    "POSTGRES__LOCK_TIMEOUT_SECONDS": "1",
    "RELAY__LEASE_SECONDS": "3.5",
}


def phases(service: HttpServiceProcess) -> list[str]:
    """Return the phases of its stop that came to their end, in order."""
    return [line["phase"] for line in service.log() if line["event"] == "Stop phase done"]


async def test_a_redemption_travels_to_the_topic_and_the_stop_is_clean(place: Place, world: PostgresWorld) -> None:
    """What was redeemed is published and marked; SIGTERM then ends the process with 0, in the original's words."""
    async with open_reward_store(place) as service:
        await service.wait_readiness(200)
        async with service.client("m-1") as client:
            answer = await client.post("/v1/redemptions", json=REDEEM, headers=KEY)
            assert answer.status_code == 201, answer.text
        await world.wait_published()
        service.process.send_signal(signal.SIGTERM)
        assert await service.process.wait(20) == 0
    events = service.events()
    code = orjson.loads(answer.content)["coupon_code"]
    assert [event for event in events if event in WORDS] == WORDS
    assert phases(service) == PHASES
    assert code not in service.process.log.read_text()
    [event] = await read_events(place.kafka.bootstrap, place.topic, 1)
    assert event.coupon.code == code


async def test_a_port_in_use_is_reported_through_server_errors(place: Place) -> None:
    """The status is 1, and no deferred call was skipped: everything was closed in order all the same."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        async with open_reward_store(place, HTTP__PORT=str(other.getsockname()[1])) as service:
            assert await service.process.wait(20) == 1
    assert "Server failed" in service.events()
    assert "Address already in use" in service.process.log.read_text() or "in use" in service.process.log.read_text()
    assert phases(service) == PHASES
    assert "Application shutdown completed" not in service.events()


async def test_a_database_down_at_start_ends_with_1_and_the_last_error(
    own_postgres: PostgresServer, kafka: KafkaServer, tmp_path: Path
) -> None:
    """The service waits as long as its setting says, then says why it gave up; HTTP was never served."""
    await own_postgres.stop_fast()
    place = Place(own_postgres, kafka, "rewards", "coupon-events", tmp_path)
    async with open_reward_store(place, STARTUP_SECONDS="1") as service:
        assert await service.process.wait(20) == 1
    assert re.search(r"no connection within [0-9.]+ s; last error: \w+", service.process.log.read_text())
    assert "Starting HTTP server" not in service.events()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_while_the_database_is_awaited_ends_with_0(
    own_postgres: PostgresServer, kafka: KafkaServer, tmp_path: Path, number: signal.Signals
) -> None:
    """Nobody has to wait for the end of a start that is not wanted any more."""
    await own_postgres.stop_fast()
    async with open_reward_store(Place(own_postgres, kafka, "rewards", "coupon-events", tmp_path)) as service:
        await service.wait_event("Waiting for the database")
        assert await service.readiness() == 503
        service.process.send_signal(number)
        assert await service.process.wait(10) == 0
    assert "Starting HTTP server" not in service.events()


async def test_a_broker_that_is_away_keeps_nobody_from_redeeming(place: Place, world: PostgresWorld) -> None:
    """The service is ready without a broker, redeems, shows the backlog, and stops with 0 when told to."""
    async with open_reward_store(place, KAFKA__BOOTSTRAP=f"127.0.0.1:{free_port()}", **SHORT_LEASE) as service:
        await service.wait_readiness(200)
        async with service.client("m-1") as client:
            assert (await client.post("/v1/redemptions", json=REDEEM, headers=KEY)).status_code == 201
        await service.wait_event("Publishing failed")
        await service.wait_metrics(lp_outbox_backlog_rows=1)
        service.process.send_signal(signal.SIGTERM)
        assert await service.process.wait(30) == 0
    assert (await world.outbox.backlog()).rows == 1


async def _redeem_until_refused(
    service: HttpServiceProcess, member: str, told: dict[str, str], ends: Counter[str]
) -> None:
    """Redeem over and over on a connection that is kept alive, until nobody accepts a new one."""
    async with service.client(member, connections=1) as client:
        number = 0
        while True:
            number += 1
            try:
                answer = await client.post(
                    "/v1/redemptions", json=REDEEM, headers={"idempotency-key": f"key-{number:05}"}
                )
            except httpx.ConnectError:
                ends["refused"] += 1
                return
            except httpx.TransportError as error:
                ends[type(error).__name__] += 1
                return
            ends[str(answer.status_code)] += 1
            if answer.status_code == 201:
                told[answer.json()["redemption_id"]] = member


@pytest.mark.timeout(240)
@pytest.mark.fault("H1", "SIGTERM to the only reward_store under 40 members who redeem on keep-alive connections")
async def test_a_stop_under_load_loses_no_request_and_no_event(
    place: Place, world: PostgresWorld, fault_report: FaultReport
) -> None:
    """Forty busy members see an answer to each request; what they were told is there, and its events are not lost."""
    members = [f"m-b{number}" for number in range(40)]
    for member in members:
        await world.put_member(Member(member, 1_000_000))
    await world.administrator.execute("update rewards set stock = 1000000")
    told: dict[str, str] = {}
    ends: Counter[str] = Counter()
    # The lag must outlast the busiest client's pause between connecting and sending: here forty share one loop.
    async with open_reward_store(place, HTTP__DRAIN_LAG_SECONDS="5") as service:
        await service.wait_readiness(200)
        clients = [asyncio.create_task(_redeem_until_refused(service, member, told, ends)) for member in members]
        await eventually(lambda: len(told) >= 200, seconds=30)
        service.process.send_signal(signal.SIGTERM)
        end = await service.end(40)
        await asyncio.gather(*clients)
    promised = [(redemption_id, digest(member)) for redemption_id, member in told.items()]
    stored = [(str(one.redemption_id), digest(one.member_id)) for one in await world.redemptions()]
    fault_report.judge(
        judge_units(promised, promised, stored), judge_end("reward_store", *end, wanted=(0, "Process stopped"))
    )
    assert set(ends) == {"201", "refused"}
    assert ends["refused"] == len(members)
    async with open_reward_store(place) as service:  # what was left in the outbox goes out with the next one
        await service.wait_readiness(200)
        await world.wait_published()
    events = await read_events(place.kafka.bootstrap, place.topic, len(told))
    assert {str(event.coupon.redemption_id) for event in events} == set(told)
    fault_report.measure(redemptions=str(len(told)))


@pytest.mark.parametrize(
    "point",
    [
        pytest.param(point, marks=pytest.mark.fault("H7", f"kill -9 of reward_store in a redemption, {point}"))
        for point in ("after-begin", "after-key", "after-insert", "after-commit")
    ],
)
async def test_a_death_in_a_redemption_leaves_one_effect_for_the_same_key(
    place: Place, world: PostgresWorld, fault_report: FaultReport, point: str
) -> None:
    """Killed at the point, the service answers the repetition as if nothing had happened: once taken, once recorded."""
    async with open_reward_store(place, CRASH__IS_TEST="true", CRASH__POINT=point) as service:
        await service.wait_readiness(200)
        async with service.client("m-1") as client:
            with pytest.raises(httpx.TransportError):
                await client.post("/v1/redemptions", json=REDEEM, headers=KEY)
        assert await service.process.wait(10) == 128 + signal.SIGKILL
    committed = await world.redemptions()
    assert len(committed) == (1 if point == "after-commit" else 0)
    async with open_reward_store(place) as service:
        await service.wait_readiness(200)
        async with service.client("m-1") as client:
            answers = [await client.post("/v1/redemptions", json=REDEEM, headers=KEY) for _ in range(2)]
        await world.wait_published()
    redemptions = await world.redemptions()
    told = [(KEY["idempotency-key"], answer.json()["redemption_id"]) for answer in answers]
    stored = [(KEY["idempotency-key"], str(redemption.redemption_id)) for redemption in redemptions]
    fault_report.judge(judge_units(told, told, stored))
    assert [answer.status_code for answer in answers] == [201, 201]
    assert answers[0].content == answers[1].content
    assert committed in ([], redemptions)
    assert (await world.store.member("m-1")).points == 150
    assert (await world.store.reward("rw-coffee")).stock == 9
    assert len(await world.events()) == 1


@pytest.mark.parametrize("point", ["after-claim", "after-publish"])
async def test_a_death_of_the_relay_in_its_batch_loses_no_event(place: Place, world: PostgresWorld, point: str) -> None:
    """The next process takes the rows when their lease ends; a record may be there twice, always as the same event."""
    armed = {"CRASH__IS_TEST": "true", "CRASH__POINT": point, **SHORT_LEASE}
    async with open_reward_store(place, **armed) as service:
        await service.wait_readiness(200)
        async with service.client("m-1") as client:
            await client.post("/v1/redemptions", json=REDEEM, headers=KEY)
        assert await service.process.wait(10) == 128 + signal.SIGKILL
    assert (await world.outbox.backlog()).rows == 1
    async with open_reward_store(place, **SHORT_LEASE) as service:
        await service.wait_readiness(200)
        await world.wait_published()
    events = await read_events(place.kafka.bootstrap, place.topic, 1 if point == "after-claim" else 2)
    [row] = await world.events()
    assert len(events) == (1 if point == "after-claim" else 2)
    assert all(event == event_of(row) for event in events)


@pytest.mark.timeout(120)
async def test_a_database_that_goes_and_comes_is_answered_503_and_needs_no_restart(
    own_postgres: PostgresServer, kafka: KafkaServer, tmp_path: Path
) -> None:
    """While it is away requests get 503 with Retry-After, readiness is 503; afterwards all goes on, events too."""
    await migrate(migrate_settings(own_postgres))
    administrator = await asyncpg.connect(own_postgres.url("rewards"))
    await administrator.execute("insert into rewards values ('rw-coffee', 'Coffee', 100, 10, 350, 'EUR', 30)")
    await administrator.execute("insert into members values ('m-1', 250)")
    await administrator.close()
    place = Place(own_postgres, kafka, "rewards", await create_topic(kafka), tmp_path)
    async with open_reward_store(place) as service:
        await service.wait_readiness(200)
        async with service.client("m-1") as client:
            assert (await client.post("/v1/redemptions", json=REDEEM, headers=KEY)).status_code == 201
            await own_postgres.stop_immediately()
            away = await client.post("/v1/redemptions", json=REDEEM, headers={"idempotency-key": "key-0002"})
            assert (away.status_code, away.json()["code"]) == (503, "dependency-unavailable")
            assert int(away.headers["retry-after"]) >= 1
            await service.wait_readiness(503)
            await own_postgres.start()
            await service.wait_readiness(200)
            back = await client.post("/v1/redemptions", json=REDEEM, headers={"idempotency-key": "key-0002"})
            assert back.status_code == 201, back.text
        events = await read_events(kafka.bootstrap, place.topic, 2)
        assert len({event.event_id for event in events}) == 2
        service.process.send_signal(signal.SIGTERM)
        assert await service.process.wait(20) == 0


async def test_a_second_signal_stops_at_once_with_1(place: Place) -> None:
    """Whoever asks twice is in a hurry: the drain is cut off, and the status says so."""
    async with open_reward_store(place, HTTP__DRAIN_LAG_SECONDS="8") as service:
        await service.wait_readiness(200)
        service.process.send_signal(signal.SIGTERM)
        await service.wait_event("Received shutdown signal")
        service.process.send_signal(signal.SIGTERM)
        assert await service.process.wait(5) == 1
    log = service.process.log.read_text()
    assert "Stopped by force" in log
    assert "Application shutdown completed" not in log
