"""The set-up of MongoDB on a real server: what each role may do and may not, and that it can run again at any time."""

import asyncio
import os
import sys
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import pytest
from pydantic import SecretStr
from pymongo import AsyncMongoClient
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.errors import OperationFailure

from deploy.mongo import MongoSetupError, set_up
from deploy.mongo_settings import MongoSetupSettings
from deploy.settings import Password
from runtime.mongo_settings import MongoSettings
from sandbox.servers import MongoServer
from sandbox.servers.address import LOOPBACK
from sandbox.servers.directory import open_directory
from sandbox.servers.mongo import REPLICA_SET, _create_user, _EmbeddedMongo
from tests.support.campaign_store_contract import CampaignStoreContract
from tests.support.campaign_world import MongoWorld, open_mongo_world
from tests.support.servers import embedded_only

Document = dict[str, Any]  # Any: BSON
Client = AsyncMongoClient[Document]
Collection = AsyncCollection[Document]
Database = AsyncDatabase[Document]

PASSWORDS: Final = {role: f"{role} opens" for role in ("campaign_api", "consent_consumer", "consent_writer", "auditor")}
OTHER: Final = "opens nothing"
_UNAUTHORIZED: Final = 13
_AUTHENTICATION_FAILED: Final = 18
_ROLE_NOT_FOUND: Final = 31
_USER_NOT_FOUND: Final = 11
_OF_NOTHING: Final = (_USER_NOT_FOUND, _ROLE_NOT_FOUND, 26, 48)
"""Of a user, a role or a collection that is not there, and of a name that is taken: understood, and not refused."""


def setup_settings(server: MongoServer, **changes: object) -> MongoSetupSettings:
    """Return the settings for a test server, with databases that are not there yet."""
    suffix = uuid.uuid4().hex[:12]
    user, password = server.superuser
    given: dict[str, object] = {
        "host": server.host,
        "port": server.port,
        "user": user,
        "password": secret(password),
        "campaigns_database": f"campaigns_{suffix}",
        "consents_database": f"consents_{suffix}",
        **{f"{role}_password": secret(opens) for role, opens in PASSWORDS.items()},
    }
    return MongoSetupSettings.model_validate(given | changes)


def secret(text: str) -> Password:
    """Return a password as a value."""
    return Password(value=SecretStr(text))


async def clean_up(server: MongoServer, settings: MongoSetupSettings) -> None:
    """Drop what a test has left."""
    async with server.connect() as client:
        for name in PASSWORDS:
            for command, missing in (("dropUser", _USER_NOT_FOUND), ("dropRole", _ROLE_NOT_FOUND)):
                try:
                    await client.admin.command(command, name)
                except OperationFailure as error:
                    if error.code != missing:
                        raise
        await client.drop_database(settings.campaigns_database)
        await client.drop_database(settings.consents_database)


@pytest.fixture
async def settings(mongo: MongoServer) -> AsyncIterator[MongoSetupSettings]:
    """Settings with databases of the test's own; roles, users and databases are dropped in the end."""
    settings = setup_settings(mongo)
    yield settings
    await clean_up(mongo, settings)


@asynccontextmanager
async def logged_in(settings: MongoSetupSettings, user: str, password: str | None = None) -> AsyncIterator[Client]:
    """Open a client of a user."""
    client: Client = AsyncMongoClient(
        settings.address,
        username=user,
        password=PASSWORDS[user] if password is None else password,
        authSource="admin",
        directConnection=True,
        timeoutMS=20_000,
        serverMonitoringMode="poll",
    )
    try:
        yield client
    finally:
        await client.close()


async def is_allowed(doing: Awaitable[object]) -> bool:
    """Do something, and say whether the server let it be done; any other error is the test's."""
    try:
        await doing
    except OperationFailure as error:
        if error.code == _UNAUTHORIZED:
            return False
        raise
    return True


async def watch(collection: Collection) -> None:
    """Open a change stream, and close it."""
    async with await collection.watch():
        pass


async def list_indexes(collection: Collection) -> None:
    """Ask for the indexes of a collection, be it there or not."""
    await collection.index_information()


VERBS: Final[Mapping[str, Callable[[Collection], Awaitable[object]]]] = {
    "insert": lambda collection: collection.insert_one({"seen": 0}),
    "createIndex": lambda collection: collection.create_index("seen"),
    "listIndexes": list_indexes,
    "find": lambda collection: collection.find_one({}),
    "update": lambda collection: collection.update_many({}, {"$inc": {"seen": 1}}),
    "remove": lambda collection: collection.delete_many({}),
    "changeStream": watch,
    "dropIndex": lambda collection: collection.drop_index("seen_1"),
    "drop": lambda collection: collection.database.command("drop", collection.name),
    "create": lambda collection: collection.database.command("create", collection.name, capped=True, size=4096),
    "collMod": lambda collection: collection.database.command("collMod", collection.name, validator={}),
    "collStats": lambda collection: collection.database.command("collStats", collection.name),
}
"""What can be done to a collection."""
WRITE: Final = frozenset({"find", "insert", "update", "remove"})
READ: Final = frozenset({"find"})
CAMPAIGNS: Final = ("campaigns", "idempotency_keys")
MAY: Final[Mapping[str, Mapping[str, frozenset[str]]]] = {
    "campaign_api": dict.fromkeys(CAMPAIGNS, WRITE | {"createIndex", "listIndexes"}),
    "consent_consumer": {
        "consent_master": frozenset({"find", "changeStream"}),
        "consent_detail": frozenset({"find", "changeStream"}),
        "consent_positions": frozenset({"find", "insert", "update", "createIndex"}),
        "consent_leases": frozenset({"find", "insert", "update", "createIndex"}),
        "consent_dead_letters": WRITE | {"createIndex"},
        "consent_audit": frozenset({"find", "insert"}),
    },
    "consent_writer": {"consent_master": WRITE, "consent_detail": WRITE},
    "auditor": dict.fromkeys(("campaigns", "consent_master", "consent_detail", "consent_dead_letters"), READ),
}
"""Everything that each role may do, in the database that the collection belongs to."""
COLLECTIONS: Final = (*CAMPAIGNS, *MAY["consent_consumer"], "other")


def database_of(settings: MongoSetupSettings, collection: str) -> str:
    """Return the database that a collection belongs to."""
    return settings.campaigns_database if collection in CAMPAIGNS else settings.consents_database


@pytest.mark.parametrize("role", MAY)
async def test_each_role_may_do_what_it_needs_and_nothing_else(
    mongo: MongoServer, settings: MongoSetupSettings, role: str
) -> None:
    """All that can be done to a collection is tried on each one, in both databases: the table alone is allowed."""
    await set_up(settings)
    allowed = set()
    async with mongo.connect() as administrator, logged_in(settings, role) as client:
        for database in (settings.campaigns_database, settings.consents_database):
            for name in COLLECTIONS:
                await administrator[database].drop_collection(name)
                for verb, do in VERBS.items():
                    if await is_allowed(do(client[database][name])):
                        allowed.add((database, name, verb))
    assert allowed == {(database_of(settings, name), name, verb) for name, verbs in MAY[role].items() for verb in verbs}


SEEN: Final[Mapping[str, Sequence[str]]] = {"consent_consumer": ("see the server",)}
"""What of the following a role may do all the same: the server's numbers say how far the oplog reaches."""
REFUSED: Final[Mapping[str, Callable[[Client, Database], Awaitable[object]]]] = {
    "give itself a password": lambda client, _: client.admin.command("updateUser", "campaign_api", pwd=OTHER),
    "give itself a role": lambda client, _: client.admin.command("grantRolesToUser", "consent_writer", roles=["root"]),
    "make a user": lambda client, _: client.admin.command("createUser", "new", pwd=OTHER, roles=[]),
    "make a user of its database": lambda _, own: own.command("createUser", "new", pwd=OTHER, roles=[]),
    "make a role": lambda client, _: client.admin.command("createRole", "new", privileges=[], roles=[]),
    "widen a role": lambda client, _: client.admin.command("updateRole", "consent_writer", privileges=[]),
    "see other users": lambda client, _: client.admin.command("usersInfo", 1),
    "read users": lambda client, _: client.admin["system.users"].find_one({}),
    "read the oplog": lambda client, _: client["local"]["oplog.rs"].find_one({}),
    "read the configuration": lambda client, _: client["config"]["settings"].find_one({}),
    "see the server": lambda client, _: client.admin.command("serverStatus"),
    "see the replica set": lambda client, _: client.admin.command("replSetGetStatus"),
    "see the replica set's configuration": lambda client, _: client.admin.command("replSetGetConfig"),
    "see the log": lambda client, _: client.admin.command("getLog", "global"),
    "see others' operations": lambda client, _: client.admin.command("currentOp"),
    "kill an operation": lambda client, _: client.admin.command("killOp", op=1),
    "set a parameter": lambda client, _: client.admin.command("setParameter", 1, logLevel=0),
    "watch its database": lambda _, own: own.aggregate([{"$changeStream": {}}]),
    "watch the server": lambda client, _: client.admin.aggregate([{"$changeStream": {"allChangesForCluster": True}}]),
    "list collections with their options": lambda _, own: own.command("listCollections"),
    "profile": lambda _, own: own.command("profile", 2),
    "see its database's size": lambda _, own: own.command("dbStats"),
    "drop its database": lambda _, own: own.command("dropDatabase"),
    "read its database's profile": lambda _, own: own["system.profile"].find_one({}),
    "make a view": lambda _, own: own.command("create", "view", viewOn="campaigns", pipeline=[]),
    "rename": lambda client, own: client.admin.command(
        "renameCollection", f"{own.name}.consent_master", to=f"{own.name}.campaigns"
    ),
    "copy a collection elsewhere": lambda _, own: own["consent_master"].aggregate([{"$out": "copy"}]),
    "join a foreign collection": lambda _, own: own["consent_master"].aggregate(
        [{"$lookup": {"from": "other", "localField": "_id", "foreignField": "_id", "as": "other"}}]
    ),
    "copy a campaign elsewhere": lambda _, own: own["campaigns"].aggregate([{"$merge": {"into": "other"}}]),
}
"""What nobody but an administrator may do; none of it would harm the server if it were allowed."""


@pytest.mark.parametrize("role", MAY)
async def test_no_role_may_do_what_is_an_administrator_s(settings: MongoSetupSettings, role: str) -> None:
    """Neither users nor roles, neither the server nor whole databases, and no way around by a pipeline."""
    await set_up(settings)
    own = {database_of(settings, collection) for collection in MAY[role]}
    async with logged_in(settings, role) as client:
        allowed = [what for name in own for what, do in REFUSED.items() if await is_allowed(do(client, client[name]))]
        databases = set(await client.list_database_names())
    assert allowed == list(SEEN.get(role, ()))
    assert databases <= own


async def test_the_administrator_may_do_what_no_role_may(mongo: MongoServer, settings: MongoSetupSettings) -> None:
    """What is refused is refused for want of rights: the same requests of one who has them are understood."""
    async with mongo.connect() as client:
        database = client[settings.consents_database]
        for name in ("consent_master", "campaigns"):
            await database[name].insert_one({})
        for what, do in REFUSED.items():
            try:
                assert await is_allowed(do(client, database)), what
            except OperationFailure as error:
                assert error.code in _OF_NOTHING, what  # noqa: PT017 - only where it has an error
        await client.admin.command("dropUser", "new")
        await client.admin.command("dropRole", "new")
        await database.command("dropAllUsersFromDatabase")


class TestCampaignStoreUnderItsRole(CampaignStoreContract):
    """The contract of the campaign store, on the rights of `campaign_api` alone."""


@pytest.fixture
async def world(settings: MongoSetupSettings) -> AsyncIterator[MongoWorld]:
    """The campaign store, opened and its indexes made by the role's user."""
    await set_up(settings)
    own = MongoSettings(
        hosts=(settings.address,),
        replica_set=settings.replica_set,
        database=settings.campaigns_database,
        user="campaign_api",
        password=SecretStr(PASSWORDS["campaign_api"]),
    )
    async with open_mongo_world(own) as opened:
        yield opened


async def rights(server: MongoServer) -> list[tuple[str, list[Document], list[Document]]]:
    """Return of each user the roles, and what they may do."""
    async with server.connect() as client:
        found = await client.admin.command("usersInfo", list(PASSWORDS), showPrivileges=True)
    return sorted((user["user"], user["roles"], user["inheritedPrivileges"]) for user in found["users"])


async def test_set_up_can_run_twice(mongo: MongoServer, settings: MongoSetupSettings) -> None:
    """The second run finds everything in place, and leaves the same users with the same rights."""
    await set_up(settings)
    first = await rights(mongo)
    await set_up(settings)
    assert await rights(mongo) == first
    assert [user for user, _, _ in first] == sorted(PASSWORDS)


async def test_set_up_from_four_places_at_once_succeeds_everywhere(
    mongo: MongoServer, settings: MongoSetupSettings
) -> None:
    """None of them fails on what another has just made, and the rights are those of one run alone."""
    await asyncio.gather(*(set_up(settings) for _ in range(4)))
    together = await rights(mongo)
    await set_up(settings)
    assert await rights(mongo) == together
    async with logged_in(settings, "consent_writer") as client:
        await client[settings.consents_database]["consent_master"].insert_one({})


async def test_a_changed_password_counts_after_the_next_run(settings: MongoSetupSettings, tmp_path: Path) -> None:
    """The file is read anew; the new password opens the door, and the old one no longer does."""
    file = tmp_path / "password"
    file.write_text("first\n")
    changed = settings.model_copy(update={"campaign_api_password": Password(file=file)})
    await set_up(changed)
    file.write_text("second\n")
    await set_up(changed)
    async with logged_in(settings, "campaign_api", "second") as client:
        await client[settings.campaigns_database]["campaigns"].find_one({})
    async with logged_in(settings, "campaign_api", "first") as client:
        with pytest.raises(OperationFailure) as caught:
            await client[settings.campaigns_database]["campaigns"].find_one({})
    assert caught.value.code == _AUTHENTICATION_FAILED


async def test_rights_that_an_earlier_release_gave_are_gone(mongo: MongoServer, settings: MongoSetupSettings) -> None:
    """A role and a user that are there get exactly what they are to have, whatever they had."""
    everything = [{"resource": {"anyResource": True}, "actions": ["anyAction"]}]
    async with mongo.connect() as client:
        await client.admin.command("createRole", "campaign_api", privileges=everything, roles=["root"])
        await client.admin.command("createUser", "campaign_api", pwd=OTHER, roles=["campaign_api", "root"])
    await set_up(settings)
    left = await rights(mongo)
    async with mongo.connect() as client:
        for name in PASSWORDS:
            await client.admin.command("dropUser", name)
            await client.admin.command("dropRole", name)
    await set_up(settings)
    assert left == await rights(mongo)
    assert ("campaign_api", [{"role": "campaign_api", "db": "admin"}]) in [user[:2] for user in left]


class _Node(_EmbeddedMongo):
    """A node as the server's image makes one: first alone, where its first user is made, then as one of a set."""

    is_alone = True

    async def _command(self) -> list[str | Path]:
        command = await super()._command()
        if self.is_alone:
            place = command.index("--replSet")
            del command[place : place + 2]
        return command


@asynccontextmanager
async def open_node() -> AsyncIterator[tuple[_Node, MongoServer]]:
    """Start a node that is alone and has its first user."""
    password = uuid.uuid4().hex
    async with open_directory(None, "test-mongo-") as place:
        node = _Node(place, secret=password, oplog_mb=990, parameters={})
        node.create()
        try:
            await node.start()
            client: Client = AsyncMongoClient(
                f"mongodb://{LOOPBACK}:{node.port}/?directConnection=true", timeoutMS=20_000
            )
            await _create_user(client, "root", password, [{"role": "root", "db": "admin"}])
            await client.close()
            yield node, MongoServer(node.superuser_url, node)
        finally:
            await node.close()


async def members(server: MongoServer) -> list[str]:
    """Return the members of the replica set's configuration."""
    async with server.connect() as client:
        found = await client.admin.command("replSetGetConfig")
    return [member["host"] for member in found["config"]["members"]]


@embedded_only
async def test_a_replica_set_is_initiated_where_there_is_none_and_left_alone_where_there_is() -> None:
    """Without sets, or with another's address, it is refused; two runs at once make one, and it stays as it is."""
    async with open_node() as (node, server):
        member = f"localhost:{server.port}"
        settings = setup_settings(server, member=member)
        with pytest.raises(MongoSetupError, match=f"was not started with --replSet {REPLICA_SET}"):
            await set_up(settings)
        await server.stop()
        node.is_alone = False
        await server.start()
        with pytest.raises(OperationFailure, match=r"No host described in new configuration"):
            await set_up(settings.model_copy(update={"member": f"{LOOPBACK}:9"}))
        await asyncio.gather(set_up(settings), set_up(settings))
        assert await members(server) == [member]
        await set_up(settings.model_copy(update={"member": server.address}))
        assert await members(server) == [member]
        with pytest.raises(MongoSetupError, match=r"belongs to the replica set rs0, not rs1"):
            await set_up(settings.model_copy(update={"replica_set": "rs1"}))
        async with logged_in(settings, "campaign_api") as client:
            await client[settings.campaigns_database]["campaigns"].insert_one({})


async def test_a_server_that_comes_later_is_waited_for(own_mongo: MongoServer) -> None:
    """Set-up that begins while the server is down ends well when it is there again."""
    if not own_mongo.is_ours:
        pytest.skip("the named server cannot be stopped")
    settings = setup_settings(own_mongo)
    await own_mongo.stop()
    running = asyncio.create_task(set_up(settings))
    await asyncio.sleep(0)
    await own_mongo.start()
    await running
    assert [user for user, _, _ in await rights(own_mongo)] == sorted(PASSWORDS)


async def _run_command(environment: Mapping[str, str]) -> tuple[int | None, str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "deploy.mongo",
        env={name: value for name, value in os.environ.items() if not name.startswith("MONGO_SETUP_")}
        | dict(environment),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await asyncio.wait_for(process.communicate(), timeout=40)
    return process.returncode, output.decode()


def variables(server: MongoServer, settings: MongoSetupSettings) -> dict[str, str]:
    """Return the environment that says what the settings say."""
    user, password = server.superuser
    return {
        "MONGO_SETUP_HOST": settings.host,
        "MONGO_SETUP_PORT": str(settings.port),
        "MONGO_SETUP_USER": user,
        "MONGO_SETUP_PASSWORD__VALUE": password,
        "MONGO_SETUP_CAMPAIGNS_DATABASE": settings.campaigns_database,
        "MONGO_SETUP_CONSENTS_DATABASE": settings.consents_database,
        **{f"MONGO_SETUP_{role.upper()}_PASSWORD__VALUE": opens for role, opens in PASSWORDS.items()},
    }


async def test_the_command_sets_up_from_its_environment(mongo: MongoServer, settings: MongoSetupSettings) -> None:
    """`python -m deploy.mongo` with the right variables ends with status 0, and is silent when run again."""
    given = variables(mongo, settings)
    status, output = await _run_command(given)
    assert status == 0, output
    assert output.splitlines() == [f"created {what} {role}" for role in MAY for what in ("role", "user")]
    assert [user for user, _, _ in await rights(mongo)] == sorted(PASSWORDS)
    assert await _run_command(given) == (0, "")


async def test_the_command_says_in_one_line_why_it_failed(mongo: MongoServer, settings: MongoSetupSettings) -> None:
    """A server that does not answer, or refuses the administrator or the work, ends it with 1 and no traceback."""
    given = variables(mongo, settings) | {
        "MONGO_SETUP_TIMEOUT_SECONDS": "5",
        "MONGO_SETUP_OPERATION_TIMEOUT_SECONDS": "2",
    }
    await set_up(settings)
    for changed, told in (
        ({"MONGO_SETUP_PORT": "9"}, "ServerSelectionTimeoutError: 127.0.0.1:9"),
        ({"MONGO_SETUP_PASSWORD__VALUE": "wrong"}, "Authentication failed"),
        (
            {
                "MONGO_SETUP_USER": "consent_writer",
                "MONGO_SETUP_PASSWORD__VALUE": PASSWORDS["consent_writer"],
                "MONGO_SETUP_TIMEOUT_SECONDS": "30",
                "MONGO_SETUP_OPERATION_TIMEOUT_SECONDS": "10",
            },
            "OperationFailure: not authorized on admin",
        ),
    ):
        status, output = await _run_command(given | changed)
        assert (status, len(output.splitlines())) == (1, 1), output
        assert output.startswith("mongo: ")
        assert told in output
        assert not any(password in output for password in PASSWORDS.values())


async def test_the_command_without_settings_names_all_that_is_missing() -> None:
    """Bad settings end with status 78, and every problem is named at once, a mistyped variable too."""
    status, output = await _run_command({"MONGO_SETUP_HSOT": "localhost"})
    assert status == 78
    names = ("HOST", *(f"{role.upper()}_PASSWORD" for role in PASSWORDS))
    assert all(f"MONGO_SETUP_{name}" in output for name in names)
    assert "MONGO_SETUP_HSOT: no such setting; did you mean MONGO_SETUP_HOST?" in output
