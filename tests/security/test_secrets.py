"""No secret leaves a process: not in its log, its metrics, its answers, its command line or its environment."""

import asyncio
import base64
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from signal import Signals
from typing import Any, Final

import asyncpg
import httpx
import pymongo
import pytest

from deploy.settings import MigrateSettings
from sandbox.instance import COUPON_FLOW, Service
from sandbox.probe import probe
from sandbox.salesforce import Endpoint, Fault, FaultKind
from sandbox.seed import make_seed, plant
from sandbox.servers import KafkaServer, MongoServer, PostgresServer
from sandbox.system import System, open_system
from tests.security.leak import leaks, seen_of_processes, spellings
from tests.support.consent_consumer_process import master
from tests.support.coupon_consumer_process import open_coupon_consumer
from tests.support.databases import migrate_settings
from tests.support.eventually import eventually

SECONDS: Final = 60.0
REWARDS: Final = "/v1/rewards"
CAMPAIGNS: Final = "/v1/campaigns"


# It outlives outages that a busy machine draws out, and is back soon after them.
_PATIENT: Final[Mapping[Service, dict[str, str]]] = {
    Service.CONSENT_CONSUMER: {
        "CONSENT_CONSUMER_LEASE__SECONDS": "300",
        "CONSENT_CONSUMER_RETRY__MOST_SECONDS": "1",
    }
}


class Said:
    """Everything that was seen of the platform so far, by where it was seen."""

    def __init__(self) -> None:
        self.parts: dict[str, bytes] = {}

    def add(self, where: str, content: bytes) -> None:
        """Note one more thing that was seen."""
        self.parts[f"{where} ({len(self.parts)})"] = content

    def add_answer(self, answer: httpx.Response) -> httpx.Response:
        """Note an answer's header and body, and return it."""
        self.add(f"answer {answer.status_code}", b"%r %b" % (dict(answer.headers), answer.content))
        return answer

    def add_logs(self, directory: Path) -> None:
        """Note what stands in every log of a directory."""
        for file in directory.glob("*.log"):
            self.add(file.name, file.read_bytes())

    async def add_admin(self, system: System) -> None:
        """Note what each instance tells on its admin port, and what the machine tells of its process."""
        for instance in system.instances:
            for path in ("livez", "readyz", "metrics"):
                _, text = await probe(f"{instance.admin_url}/{path}", timeout_seconds=10)
                self.add(f"{path} of {instance.name}", text.encode())
        self.parts |= seen_of_processes(instance.process.pid for instance in system.instances)


def _client(system: System, service: Service, token: str) -> httpx.AsyncClient:
    return httpx.AsyncClient(
        base_url=system.base_url(service),
        headers={"authorization": f"Bearer {token}"},
        timeout=20,
        verify=False,  # noqa: S501 - plain HTTP on loopback
    )


async def _trade(system: System, said: Said, token: str) -> list[str]:
    """Let a member redeem, spend and give back, and return the coupons' codes."""
    codes = []
    async with (
        _client(system, Service.REWARD_STORE, token) as rewards,
        _client(system, Service.COUPON_API, token) as api,
    ):
        reward = said.add_answer(await rewards.get(REWARDS)).json()["items"][0]["reward_id"]
        for number in range(2):
            key = {"idempotency-key": f"key-number-{number}"}
            order = {"reward_id": reward}
            answer = await rewards.post(
                "/v1/redemptions", json=order, headers=key
            )  # its body has the member's own code
            codes.append(answer.json()["coupon_code"])
            path = f"/v1/coupons/{codes[-1]}"

            async def has_arrived(path: str = path) -> bool:
                return (await api.get(path)).status_code == 200

            await eventually(has_arrived, seconds=SECONDS, pause_seconds=0.1)
            if number:
                assert (await api.post(f"{path}/redeem")).status_code == 200
            else:
                cancelled = await rewards.post(f"/v1/redemptions/{answer.json()['redemption_id']}/cancel")
                assert cancelled.status_code == 200
    return codes


async def _err(system: System, said: Said, token: str) -> None:
    """Make every API refuse, in every way that comes to a client's mind."""
    for service in (one for one in Service if one.serves_members):
        async with _client(system, service, token) as client:
            for method, path in (("GET", "/nothing"), ("PUT", REWARDS), ("GET", f"{REWARDS}?token={token}")):
                said.add_answer(await client.request(method, path))
            for path in ("/v1/redemptions", "/v1/coupons", "/v1/campaigns"):
                said.add_answer(await client.post(path, content=token, headers={"idempotency-key": token[:100]}))
                said.add_answer(await client.post(path, json={"reward_id": token, token: token}))
            said.add_answer(await client.get(REWARDS, headers={"authorization": f"Bearer {token}x"}))
            said.add_answer(await client.get(REWARDS, headers={"x-request-id": token, "traceparent": token}))


async def _lose_databases(system: System, said: Said, token: str) -> None:
    """Take the databases away and give them back; then let them refuse the services' passwords for a while."""
    async with (
        _client(system, Service.REWARD_STORE, token) as store,
        _client(system, Service.CAMPAIGN_API, token) as campaigns,
    ):
        asked = ((store, REWARDS), (campaigns, CAMPAIGNS))
        await _stop_databases(system)
        for client, path in asked:
            said.add_answer(await client.get(path))
        await _start_databases(system)
        await _wait_ready(system)
        await _set_passwords(system, "another")
        for client, path in asked:
            assert said.add_answer(await client.get(path)).status_code == 503
        await said.add_admin(system)
        await _set_passwords(system, None)
        await _wait_ready(system)


async def _stop_databases(system: System) -> None:
    await system.postgres.stop_fast()
    await _mongo(system).stop()


async def _start_databases(system: System) -> None:
    await system.postgres.start()
    await _mongo(system).start()
    await _mongo(system).wait_for_primary()


def _mongo(system: System) -> MongoServer:
    assert system.mongo_servers is not None
    return system.mongo_servers.mongo


async def _set_passwords(system: System, password: str | None) -> None:
    """Give each role another password than its file has, or the file's again, and end all connections."""
    files = system.directory / "secrets"
    connection = await asyncpg.connect(system.postgres.superuser_url, timeout=10)
    try:
        for service in COUPON_FLOW:
            right = (files / f"{service}-password").read_text()
            await connection.execute(f"alter role {service} password '{password or right}'")
            await connection.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity where usename = $1", service
            )
    finally:
        await connection.close()
    async with _mongo(system).connect() as client:
        for service in (one for one in Service if one.needs_mongo):
            right = (files / f"{service}-mongo-password").read_text()
            await client.admin.command("updateUser", service.value, pwd=password or right)
    await _mongo(system).stop()
    await _mongo(system).start()
    await _mongo(system).wait_for_primary()


async def _deny_salesforce(system: System) -> None:
    """Let Salesforce refuse the client's secret, until the consumer says so."""
    assert system.mongo_side is not None
    salesforce = system.mongo_side.salesforce
    consumer = next(one for one in system.instances if one.service is Service.CONSENT_CONSUMER)
    for fault in (Fault(kind=FaultKind.EXPIRED), Fault(kind=FaultKind.DENIED, endpoint=Endpoint.TOKEN)):
        await salesforce.switch_on(fault)
    async with pymongo.AsyncMongoClient[dict[str, Any]](system.mongo_side.writer_url) as client:
        await client[system.mongo_side.consents]["consent_master"].insert_one(master("denied"))

    async def is_said() -> bool:
        return b"Salesforce gives no token" in consumer.process.log.read_bytes()

    await eventually(is_said, seconds=SECONDS, pause_seconds=0.1)


async def _wait_ready(system: System) -> None:
    async def are_ready() -> bool:
        return all([await instance.is_ready() for instance in system.instances])

    await eventually(are_ready, seconds=SECONDS, pause_seconds=0.1)


def _secrets_of(system: System) -> dict[str, str]:
    return {file.name: file.read_text() for file in (system.directory / "secrets").iterdir()}


@pytest.mark.timeout(240)
async def test_secrets_are_said_nowhere_in_traffic_errors_and_outages(tmp_path: Path) -> None:
    """At the loudest log level passwords, the token secret, tokens and coupon codes are in nothing that can be seen."""
    said = Said()
    async with open_system(tmp_path) as system:
        await plant(make_seed(3, 100_000), system.rewards_url)
        for service in Service:
            await system.start(service, {f"{service.upper()}_LOG_LEVEL": "DEBUG"} | _PATIENT.get(service, {}))
        token = system.token("m-1")
        codes = await _trade(system, said, token)
        await _err(system, said, token)
        await said.add_admin(system)
        await _lose_databases(system, said, token)
        await _deny_salesforce(system)
        for instance in system.instances:
            instance.process.send_signal(Signals.SIGQUIT)  # all stacks go to the log
        await said.add_admin(system)
        secrets = _secrets_of(system) | {"member's token": token}
        secrets |= {f"coupon {number}": code for number, code in enumerate(codes)}
        said.add("PostgreSQL's log", system.postgres.log.read_bytes())
        said.add("MongoDB's log", _mongo(system).log.read_bytes())
    said.add_logs(tmp_path)

    assert len(secrets) == len(_expected(codes))
    assert leaks(secrets, said.parts) == []
    everything = b"".join(said.parts.values())
    for needle in (
        b"Stacks",
        b"password authentication failed",
        b'"level":"debug"',
        b"lp_http_requests_total",
        b"invalid-token",
    ):
        assert needle in everything  # what the search was about did happen


def _expected(codes: list[str]) -> list[str]:
    roles = [f"{role}-password" for role in ("lp_owner", *COUPON_FLOW, "etl")]
    users = [f"{user}-mongo-password" for user in ("campaign_api", "consent_consumer", "consent_writer", "auditor")]
    return [*roles, *users, "token-secret", "operator-token", "salesforce-client-secret", "member's token", *codes]


async def test_password_of_a_broker_that_refuses_it_is_not_said(
    postgres: PostgresServer, kafka: KafkaServer, databases: MigrateSettings, topic: str, tmp_path: Path
) -> None:
    """A consumer that cannot log in at its broker gives up with the reason, and without the password."""
    password = "c4n4ry-of-the-broker"  # noqa: S105 - a test's own
    file = tmp_path / "broker-password"
    file.write_text(password)
    settings = {
        "KAFKA__SECURITY_PROTOCOL": "SASL_PLAINTEXT",
        "KAFKA__SASL_MECHANISM": "PLAIN",
        "KAFKA__SASL_USERNAME": "coupon-consumer",
        "KAFKA__SASL_PASSWORD_FILE": str(file),
        "LOG_LEVEL": "DEBUG",
        "STARTUP_SECONDS": "3",
    }
    database = databases.coupons_database
    async with open_coupon_consumer(postgres, database, kafka, topic, tmp_path, **settings) as service:
        seen = seen_of_processes([service.process.pid])
        assert await service.process.wait(SECONDS) == 1
        seen["log"] = service.process.log.read_bytes()
    assert b"Application failed" in seen["log"]
    assert leaks({"password": password}, seen) == []


async def test_migration_says_no_password_even_to_a_server_that_logs_every_statement(
    own_postgres: PostgresServer, tmp_path: Path
) -> None:
    """The server is sent verifiers, and the command's own output names roles only."""
    connection = await asyncpg.connect(own_postgres.superuser_url, timeout=10)
    await connection.execute("alter system set log_statement = 'all'")
    await connection.execute("select pg_reload_conf()")
    await connection.close()
    roles = ("lp_owner", "reward_store", "coupon_api", "coupon_consumer", "etl")
    passwords = {role: f"c4n4ry-of-{role}" for role in roles}
    for role, password in passwords.items():
        (tmp_path / role).write_text(password)
    settings = migrate_settings(own_postgres)
    assert settings.password is not None
    (tmp_path / "superuser").write_text(settings.password.read())
    environment: Mapping[str, str] = {
        **os.environ,
        "MIGRATE_HOST": settings.host,
        "MIGRATE_PORT": str(settings.port),
        "MIGRATE_USER": settings.user,
        "MIGRATE_PASSWORD__FILE": str(tmp_path / "superuser"),
        **{f"MIGRATE_{role.upper()}_PASSWORD__FILE": str(tmp_path / role) for role in roles},
    }
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "deploy.migrate"),
        env=environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await asyncio.wait_for(process.communicate(), SECONDS)
    assert process.returncode == 0, output
    said = {"output": output, "server's log": own_postgres.log.read_bytes()}
    assert b"alter role reward_store" in said["server's log"]
    assert leaks(passwords | {"superuser": settings.password.read()}, said) == []


@pytest.mark.parametrize("shift", ["", "x", "xx"])
def test_search_finds_a_secret_however_it_is_written(shift: str) -> None:
    """As it is, in a URL, in hexadecimal, and inside of base 64 wherever it begins there."""
    secret = "c4n4ry/of=the?search"  # noqa: S105 - a test's own
    for text in (secret, "c4n4ry%2Fof%3Dthe%3Fsearch", secret.encode().hex()):
        assert leaks({"it": secret}, {"log": f'{shift}"{text}"'.encode()}) == ["it in log"]
    assert leaks({"it": secret}, {"log": base64.b64encode(f"{shift}{secret} and more".encode())}) == ["it in log"]
    assert leaks({"it": secret}, {"log": b"another text"}) == []
    assert min(map(len, spellings(secret))) > 15
