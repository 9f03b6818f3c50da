"""The embedded MongoDB server, as the other integration tests use it."""

import asyncio
import os
from pathlib import Path

import pytest
from pymongo import AsyncMongoClient
from pymongo.errors import OperationFailure, PyMongoError

from sandbox.servers import MongoServer, NotOursError, ServerError, open_mongo, open_mongo_nodes
from sandbox.servers.account import unprivileged_account
from sandbox.servers.mongo import MONGO_VARIABLE, REPLICA_SET
from tests.support.servers import embedded_only

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root has another account to switch to")


@pytest.mark.parametrize("end", ["stop", "kill"])
async def test_mongo_started_again_still_has_what_was_written(own_mongo: MongoServer, end: str) -> None:
    """Whichever way the server ends, it comes back under the same address with every acknowledged document."""
    async with own_mongo.connect() as client:
        await client.kept.things.insert_one({"_id": 42})
    before = own_mongo.pid
    await getattr(own_mongo, end)()
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection(own_mongo.host, own_mongo.port)
    await own_mongo.start()
    await own_mongo.wait_for_primary()
    assert own_mongo.pid != before
    async with own_mongo.connect() as client:
        assert await client.kept.things.find_one({}) == {"_id": 42}


async def test_mongo_asks_everybody_for_a_password(mongo: MongoServer) -> None:
    """Neither nobody nor a wrong password gets in."""
    for url in (
        f"mongodb://{mongo.address}/?directConnection=true",
        f"mongodb://root:wrong@{mongo.address}/?directConnection=true",
    ):
        async with AsyncMongoClient[dict[str, object]](url, serverMonitoringMode="poll") as client:
            with pytest.raises(OperationFailure, match=r"[Aa]uthentication"):
                await client.admin.command("listDatabases")


async def test_mongo_user_may_do_what_the_roles_say(mongo: MongoServer) -> None:
    """A user made twice has the second password, and a dropped one is gone."""
    await mongo.create_user("someone", "first", [])
    await mongo.create_user("someone", "second", [{"role": "read", "db": "one"}])
    url = f"mongodb://someone:second@{mongo.address}/?directConnection=true"
    async with AsyncMongoClient[dict[str, object]](url, serverMonitoringMode="poll") as client:
        assert await client["one"].things.find_one({}) is None
        with pytest.raises(OperationFailure, match="not authorized"):
            await client["one"].things.insert_one({})
    await mongo.drop_user("someone")
    async with AsyncMongoClient[dict[str, object]](url, serverMonitoringMode="poll") as client:
        with pytest.raises(OperationFailure, match=r"[Aa]uthentication"):
            await client["one"].things.find_one({})


async def test_mongo_that_is_named_is_used_and_not_controlled(
    mongo: MongoServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server named by the environment is handed out as it is; nobody stops it."""
    monkeypatch.setenv(MONGO_VARIABLE, mongo.superuser_url)
    async with open_mongo() as named:
        assert named.address == mongo.address
        assert not named.is_ours
        with pytest.raises(NotOursError):
            await named.kill()
    await mongo.wait_for_primary()


async def test_mongo_that_is_named_and_does_not_answer_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """One line says which variable names it, and nothing of the password in it."""
    monkeypatch.setenv(MONGO_VARIABLE, "mongodb://root:canary@127.0.0.1:9/")
    with pytest.raises(ServerError, match=MONGO_VARIABLE) as caught:
        async with open_mongo():
            pass
    assert "canary" not in str(caught.value)


async def test_mongo_that_is_named_wrongly_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """A URL that is none is told without being shown."""
    monkeypatch.setenv(MONGO_VARIABLE, "canary")
    with pytest.raises(ServerError, match=MONGO_VARIABLE) as caught:
        async with open_mongo():
            pass
    assert "canary" not in str(caught.value)


@pytest.mark.timeout(180)
@embedded_only
async def test_three_nodes_go_on_without_their_first() -> None:
    """Killed, the primary is replaced, and what a majority had is there; an acknowledged write is not lost."""
    settings = {"electionTimeoutMillis": 1_000, "heartbeatIntervalMillis": 200}
    async with open_mongo_nodes(3, settings=settings) as nodes:
        name, password = nodes[0].superuser
        async with AsyncMongoClient[dict[str, object]](
            [node.address for node in nodes],
            username=name,
            password=password,
            replicaSet=REPLICA_SET,
            w="majority",
            timeoutMS=120_000,  # a secondary now and then avoids its new source for a minute
            serverMonitoringMode="poll",
        ) as client:
            await client.kept.things.insert_one({"_id": 1})
            await nodes[0].kill()
            await client.kept.things.insert_one({"_id": 2})
            assert {each["_id"] async for each in client.kept.things.find()} == {1, 2}


@embedded_only
@as_root
async def test_mongo_started_by_root_runs_unprivileged(mongo: MongoServer) -> None:
    """It does not run as root, and its files belong to the account it runs under."""
    account = unprivileged_account()
    assert account is not None
    status = await asyncio.to_thread(Path(f"/proc/{mongo.pid}/status").read_text)
    assert {int(each) for each in status.partition("Uid:")[2].splitlines()[0].split()} == {account.user_id}
    assert (mongo.log.parent / "key").stat().st_mode & 0o077 == 0


async def test_a_primary_made_to_step_down_comes_back(own_mongo: MongoServer) -> None:
    """A forced step-down makes the set lose its primary for a moment, and no longer."""
    async with own_mongo.connect() as client:
        term = (await client.admin.command("replSetGetStatus"))["term"]
        await own_mongo.step_down()
        await own_mongo.wait_for_primary()
        try:
            later = (await client.admin.command("replSetGetStatus"))["term"]
        except PyMongoError:  # its connections were closed by the step-down
            later = (await client.admin.command("replSetGetStatus"))["term"]
        assert later > term
