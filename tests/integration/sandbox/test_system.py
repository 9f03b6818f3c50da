"""The whole platform's ground: databases, topic, secrets and sockets, in servers of its own or in named ones."""

import stat
from pathlib import Path

import asyncpg
import pytest
from confluent_kafka.admin import AdminClient
from pymongo.errors import OperationFailure

from sandbox.document_database import open_database
from sandbox.instance import COUPON_FLOW, Service
from sandbox.roles import role_password
from sandbox.servers import KafkaServer, PostgresServer, ServerError
from sandbox.system import open_system


async def _databases(server: PostgresServer) -> set[str]:
    connection = await asyncpg.connect(server.superuser_url)
    try:
        return {row["datname"] for row in await connection.fetch("select datname from pg_database")}
    finally:
        await connection.close()


def _topics(server: KafkaServer) -> set[str]:
    return set(AdminClient({"bootstrap.servers": server.bootstrap}).list_topics(timeout=10).topics)


async def test_named_servers_get_names_of_their_own_that_are_removed_again(
    own_postgres: PostgresServer, own_kafka: KafkaServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In servers that somebody named, a run touches nothing but databases and a topic of its own, and removes them."""
    before = await _databases(own_postgres), _topics(own_kafka)
    monkeypatch.setenv("SANDBOX_POSTGRES_URL", own_postgres.superuser_url)
    monkeypatch.setenv("SANDBOX_KAFKA_BOOTSTRAP", own_kafka.bootstrap)
    async with open_system(tmp_path, services=COUPON_FLOW) as system:
        assert system.rewards_database != "rewards"
        assert {system.rewards_database, system.coupons_database} <= await _databases(own_postgres)
        assert system.topic in _topics(own_kafka)
    assert (await _databases(own_postgres), _topics(own_kafka)) == before


async def test_two_platforms_on_one_named_server_do_not_lock_each_other_out(
    own_postgres: PostgresServer, own_kafka: KafkaServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Roles belong to the whole server: every run there gives them the same passwords, which it does not publish."""
    monkeypatch.setenv("SANDBOX_POSTGRES_URL", own_postgres.superuser_url)
    monkeypatch.setenv("SANDBOX_KAFKA_BOOTSTRAP", own_kafka.bootstrap)
    async with (
        open_system(tmp_path / "one", services=COUPON_FLOW) as one,
        open_system(tmp_path / "other", services=COUPON_FLOW) as other,
    ):
        for system in (one, other):
            password = (system.directory / "secrets" / "reward_store-password").read_text()
            url = own_postgres.url(system.rewards_database, user="reward_store", password=password)
            connection = await asyncpg.connect(url, timeout=10)
            await connection.close()
    words = ("secret", "s%65cret", "other")
    same, spelt_otherwise, another = (role_password(f"postgresql://a:{word}@h/", "lp_owner") for word in words)
    assert same == spelt_otherwise != another


@pytest.mark.parametrize("password", ["password 'of another platform'", ""])
async def test_named_server_of_another_platform_is_refused(
    own_postgres: PostgresServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, password: str
) -> None:
    """Its services would be locked out; it is left as it was, and the message says what to do."""
    monkeypatch.setenv("SANDBOX_POSTGRES_URL", own_postgres.superuser_url)
    connection = await asyncpg.connect(own_postgres.superuser_url, timeout=10)
    try:
        await connection.execute(f"create role coupon_api login {password}")
        before = await connection.fetchval("select rolpassword from pg_authid where rolname = 'coupon_api'")
        with pytest.raises(ServerError, match=r"roles of another platform \(coupon_api\): name an empty server"):
            async with open_system(tmp_path, services=COUPON_FLOW):
                raise AssertionError("it was taken")
        assert await connection.fetchval("select rolpassword from pg_authid where rolname = 'coupon_api'") == before
        assert await connection.fetchval("select count(*) from pg_roles where rolname = 'lp_owner'") == 0
    finally:
        await connection.close()


async def test_secrets_are_for_their_owner_alone(tmp_path: Path) -> None:
    """Passwords and the tokens' secret can be read by nobody else, and no two of them are the same."""
    async with open_system(tmp_path) as system:
        secrets = list((system.directory / "secrets").iterdir())
        assert len(secrets) == 12
        assert {stat.S_IMODE(secret.stat().st_mode) for secret in secrets} == {0o600}
        assert len({secret.read_text() for secret in secrets}) == 12


async def test_instance_that_ends_while_starting_is_reported_with_its_log(tmp_path: Path) -> None:
    """A service whose settings are wrong ends the start with its status and the place of its log."""
    async with open_system(tmp_path, services=COUPON_FLOW) as system:
        with pytest.raises(
            RuntimeError, match=r"coupon_api-1 ended with status 78 while starting; see .*coupon_api-1\.log"
        ):
            await system.start(Service.COUPON_API, {"COUPON_API_NO_SUCH_SETTING": "1"})


async def test_coupons_flow_alone_has_neither_mongo_nor_salesforce(tmp_path: Path) -> None:
    """Whoever asks for less gets less, and what needs it is refused with a sentence."""
    async with open_system(tmp_path, services=COUPON_FLOW) as system:
        assert system.mongo_side is None
        assert system.services == COUPON_FLOW
        with pytest.raises(ServerError, match="no MongoDB for consent_consumer"):
            await system.start(Service.CONSENT_CONSUMER)
        with pytest.raises(ServerError, match="no MongoDB"):
            await system.step_mongo_down()


async def test_users_of_mongo_may_do_what_they_are_for_and_nothing_else(tmp_path: Path) -> None:
    """The apps' user writes consents and reads no campaign; the auditor's reads both and writes neither."""
    async with open_system(tmp_path) as system:
        side = system.mongo_side
        assert side is not None
        async with open_database(side.writer_url, side.consents, timeout_seconds=20) as consents:
            await consents["consent_master"].insert_one({"_id": "one"})
            with pytest.raises(OperationFailure, match="not authorized"):
                await consents.client[side.campaigns]["campaigns"].find_one()
        async with open_database(side.reader_url, side.consents, timeout_seconds=20) as consents:
            assert await consents["consent_master"].find_one() == {"_id": "one"}
            assert await consents.client[side.campaigns]["campaigns"].find_one() is None
            with pytest.raises(OperationFailure, match="not authorized"):
                await consents["consent_master"].delete_one({"_id": "one"})
        assert (await side.salesforce.counts()).records == {"ConsentMaster__c": 0, "ConsentDetail__c": 0}
