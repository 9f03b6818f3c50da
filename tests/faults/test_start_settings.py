"""Settings that are wrong, and secrets that are rotated while the services run (X6)."""

import secrets
import time
from http import HTTPStatus
from pathlib import Path

import asyncpg
import httpx
import pytest
from pymongo import AsyncMongoClient

from sandbox.instance import COUPON_FLOW, Service
from sandbox.seed import make_seed, plant
from sandbox.system import System, open_system, secret_file
from services.consent_consumer.change_stream import CONSENT_MASTER
from services.consent_consumer.record import MASTER_OBJECT
from tests.support.consent_consumer_process import master
from tests.support.eventually import eventually
from tests.support.fault_report import FaultReport
from tests.support.judgement import Rule, judge, judge_end, judge_time
from tests.support.ledger import Ledger
from tests.support.order_book import OrderBook
from tests.support.service_process import ServiceProcess, open_service

END_SECONDS = 60.0
BACK_SECONDS = 30.0
SETTINGS_ERROR = 78
ON_MONGO = tuple(service for service in Service if service.needs_mongo)


def _wrong(database: str, number: str) -> dict[str, str]:
    """Return one of each kind: missing, mistyped, no number, out of range, no such word, a secret given twice."""
    return {
        f"{database}__HSOT": "db",
        f"{database}__USER": "x",
        f"{database}__{number}": "many",
        f"{database}__PASSWORD": "very-secret",
        f"{database}__PASSWORD_FILE": "/nowhere",
        "GRACE_SECONDS": "-1",
        "LOG_LEVEL": "LOUD",
        "ADMIN__PORT": "0",
    }


@pytest.mark.fault("X6", "settings missing, mistyped, no number, out of range and no such word, each service")
async def test_wrong_settings_end_each_service_with_78_and_every_problem_told(
    tmp_path: Path, fault_report: FaultReport
) -> None:
    """Nothing is opened; one message names every variable at fault, and no secret."""
    for service in Service:
        database, number = ("MONGO", "POOL_MAX") if service.needs_mongo else ("POSTGRES", "PORT")
        names = ("GRACE_SECONDS", "LOG_LEVEL", f"{database}__DATABASE", f"{database}__HSOT", f"{database}__{number}")
        async with open_service(ServiceProcess, service, tmp_path, _wrong(database, number)) as process:
            status = await process.process.wait(END_SECONDS)
            text = process.process.log.read_text()
        told = tuple(name for name in names if f"{service.upper()}_{name}: " in text)
        fault_report.judge(
            judge_end(service, status, ", ".join(told), wanted=(SETTINGS_ERROR, ", ".join(names))),
        )
        assert "very-secret" not in text


async def _rotate_passwords(system: System) -> None:
    """Give each service's role another password, write its file, and end every connection that was made before."""
    connection = await asyncpg.connect(system.postgres.superuser_url)
    try:
        for service in COUPON_FLOW:
            password = secrets.token_urlsafe(24)
            await connection.execute(f"alter role {service} password '{password}'")
            (system.directory / "secrets" / f"{service}-password").write_text(password)
        await connection.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity where usename = any($1)", list(COUPON_FLOW)
        )
    finally:
        await connection.close()


def _rotate_token_secret(system: System) -> None:
    """Sign with another secret from now on, the operator's token with which reward_store asks coupon_api too."""
    secret_file(system.directory).write_text(secrets.token_urlsafe(48))
    (system.directory / "secrets" / "operator-token").write_text(system.token("reward-store", is_operator=True))


async def _cancel(system: System, redemption_id: str) -> httpx.Response:
    return await system.client.request(
        "POST",
        f"{system.base_url(Service.REWARD_STORE)}/v1/redemptions/{redemption_id}/cancel",
        headers={"authorization": f"Bearer {system.token('m-1')}"},
        timeout=BACK_SECONDS,
    )


@pytest.mark.fault("X6", "passwords of all roles and the tokens' secret rotated, every database connection ended")
async def test_rotated_secrets_need_no_restart(tmp_path: Path, fault_report: FaultReport) -> None:
    """The same processes take the new files: they reach their databases, and refuse what the old secret signed."""
    async with open_system(tmp_path, services=COUPON_FLOW) as system:
        await plant(make_seed(1, 10_000), system.rewards_url)
        processes = [(await system.start(service)).process.pid for service in system.services]
        with Ledger(tmp_path) as ledger:
            orders = OrderBook(system, ledger)
            await orders.redeem_told("before-rotation")
            old_token = system.token("m-1")
            await _rotate_passwords(system)
            _rotate_token_secret(system)
            began = time.monotonic()
            answer = await orders.redeem_told("after-rotation")
            seconds = time.monotonic() - began

            async def is_refused() -> bool:
                late = await orders.redeem("old-token", token=old_token)
                return late.status_code == HTTPStatus.UNAUTHORIZED

            await eventually(is_refused)
            await orders.wait_coupons(2)
            cancelled = await _cancel(system, answer.json()["redemption_id"])
            fault_report.judge(await orders.judge_coupons(), judge_time("coming back", seconds, at_most=BACK_SECONDS))
        running = [instance.process.pid for instance in system.instances if instance.process.is_running]
        fault_report.judge(judge(Rule.RIGHT_END, [] if running == processes else ["a service was restarted"]))
        await system.stop_services()
        ends = [judge_end(one.name, one.status, "", wanted=(0, "")) for one in system.ended]
        fault_report.judge(*ends)
    assert cancelled.status_code == HTTPStatus.OK, cancelled.text
    fault_report.measure(first_success=f"{seconds:.1f} s")


async def _rotate_mongo_passwords(system: System) -> None:
    """Give each service's user of MongoDB another password, write its file, and end every connection by a restart."""
    assert system.mongo_servers is not None
    mongo = system.mongo_servers.mongo
    async with mongo.connect() as client:
        for service in ON_MONGO:
            password = secrets.token_urlsafe(24)
            await client.admin.command("updateUser", service.value, pwd=password)
            (system.directory / "secrets" / f"{service}-mongo-password").write_text(password)
    await mongo.stop()
    await mongo.start()
    await mongo.wait_for_primary()


async def _carry(system: System, name: str) -> None:
    """Write a consent as a member's app does, and wait until Salesforce has it."""
    side = system.mongo_side
    assert side is not None
    async with AsyncMongoClient[dict[str, object]](side.writer_url) as client:
        await client[side.consents][CONSENT_MASTER].insert_one(master(name))

    async def has_arrived() -> bool:
        return await side.salesforce.record(MASTER_OBJECT, f"s:{name}") is not None

    await eventually(has_arrived, seconds=END_SECONDS, pause_seconds=0.1)


async def _list_campaigns(system: System) -> int:
    url = f"{system.base_url(Service.CAMPAIGN_API)}/v1/campaigns"
    token = system.token("m-1")
    answer = await system.client.request("GET", url, headers={"authorization": f"Bearer {token}"}, timeout=BACK_SECONDS)
    return answer.status_code


@pytest.mark.fault("X6", "passwords of MongoDB's users rotated, every connection ended")
async def test_rotated_passwords_of_mongodb_need_no_restart(tmp_path: Path, fault_report: FaultReport) -> None:
    """The same processes read their files anew when they are refused: campaigns are served, and consents carried."""
    async with open_system(tmp_path) as system:
        processes = [(await system.start(service)).process.pid for service in ON_MONGO]
        await _carry(system, "before")
        await _rotate_mongo_passwords(system)
        began = time.monotonic()

        async def is_served() -> bool:
            return await _list_campaigns(system) == HTTPStatus.OK

        await eventually(is_served, seconds=END_SECONDS, pause_seconds=0.1)
        await _carry(system, "after")
        fault_report.judge(judge(Rule.NOTHING_LOST))
        seconds = time.monotonic() - began
        fault_report.judge(judge_time("coming back", seconds, at_most=END_SECONDS))
        running = [instance.process.pid for instance in system.instances if instance.process.is_running]
        fault_report.judge(judge(Rule.RIGHT_END, [] if running == processes else ["a service was restarted"]))
        await system.stop_services()
        fault_report.judge(*(judge_end(one.name, one.status, "", wanted=(0, "")) for one in system.ended))
    fault_report.measure(back_after=f"{seconds:.1f} s")
