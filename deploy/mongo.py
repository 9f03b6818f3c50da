"""Make the replica set, where there is none yet, and the roles of MongoDB with one user each.

`python -m deploy.mongo` reads variables that begin with `MONGO_SETUP_`. It may run again at any time, and several at
once are harmless: a replica set that there is stays as it is, and each role and each user becomes what is said here.
Collections and indexes are the services' own affair.

Who may do what; roles and users are kept in the database `admin`:

- `campaign_api` keeps campaigns and idempotency keys, with their indexes;
- `consent_consumer` reads and watches the consents, and keeps what it knows of its own work; it also sees the server's
  numbers, which say how far the oplog reaches: to read the oplog itself would be to read every document of the server;
- `consent_writer` changes the consents, as the members' apps do;
- `auditor` reads what the members were promised, and changes nothing.

No other role may read another's collections, and none may make one of another name, drop anything, or see more of the
server. Whoever may insert into a collection may make it, and nobody may do so in another database.
"""

import asyncio
import logging
import sys
from collections.abc import Mapping
from functools import partial
from typing import Any, Final

from pymongo.errors import OperationFailure, PyMongoError

from deploy.mongo_settings import MongoSetupSettings
from patterns import background
from runtime.dependency import wait_for_dependency
from runtime.environment import load_settings
from runtime.errors import DependencyUnavailable, SettingsError
from runtime.mongo import MongoDatabase
from runtime.mongo_error import DEPENDENCY

_KEEP: Final = ("find", "insert", "update", "remove")
_INDEXED: Final = (*_KEEP, "createIndex", "listIndexes")
_POSITION: Final = ("find", "insert", "update", "createIndex")

_CAMPAIGN_API: Final[Mapping[str, tuple[str, ...]]] = {"campaigns": _INDEXED, "idempotency_keys": _INDEXED}
_CONSENT_CONSUMER: Final[Mapping[str, tuple[str, ...]]] = {
    "consent_master": ("find", "changeStream"),
    "consent_detail": ("find", "changeStream"),
    "consent_positions": _POSITION,
    "consent_leases": _POSITION,
    "consent_dead_letters": (*_KEEP, "createIndex"),
    "consent_audit": ("find", "insert"),
}
_CONSENT_WRITER: Final[Mapping[str, tuple[str, ...]]] = {"consent_master": _KEEP, "consent_detail": _KEEP}
_AUDITED_CAMPAIGNS: Final[Mapping[str, tuple[str, ...]]] = {"campaigns": ("find",)}
_AUDITED_CONSENTS: Final[Mapping[str, tuple[str, ...]]] = {
    "consent_master": ("find",),
    "consent_detail": ("find",),
    "consent_dead_letters": ("find",),
}

_ROLE_EXISTS: Final = 51002
_USER_EXISTS: Final = 51003
_ALREADY_INITIATED: Final = 23

_log = logging.getLogger(__name__)


class MongoSetupError(RuntimeError):
    """The server is one that the settings do not fit, and time will not change that; the message says why."""


async def set_up(settings: MongoSetupSettings) -> None:
    """Bring the server of the settings to what this release needs.

    What a cancel, or the end of the time, leaves behind is finished by the next run. A step that failed because of a
    state of the server, such as an election, is done again until the time ends.

    Args:
        settings: where the server is, who administers it, and the password of each user.

    Raises:
        DependencyUnavailable: the server did not answer, refused the administrator's password, or was not the primary
            until `timeout_seconds` had passed; it has the last error.
        MongoSetupError: it knows no replica sets, or belongs to one of another name.
        pymongo.errors.PyMongoError: it refused, as where the administrator may not do what this needs.
        OSError, ValueError: a password's file cannot be read, or holds no password.
    """
    passwords = settings.user_passwords()
    database = MongoDatabase(settings.server(), application_name="mongo-setup")
    try:
        with background().with_timeout(settings.timeout_seconds) as ctx:
            await wait_for_dependency(ctx, partial(_try, database, settings, passwords), dependency=DEPENDENCY)
    finally:
        await database.aclose()


async def _try(database: MongoDatabase, settings: MongoSetupSettings, passwords: Mapping[str, str]) -> None:
    with database.call():
        await _ensure_replica_set(database, settings)
        for role, privileges in _privileges(settings).items():
            await _ensure_role(database, role, privileges)
            await _ensure_user(database, role, passwords[role])


async def _ensure_replica_set(database: MongoDatabase, settings: MongoSetupSettings) -> None:
    """Return when the node is the primary of its set; where it belongs to none yet, make one of it alone."""
    hello = await _command(database, "hello")
    if "setName" not in hello:
        if not hello.get("isreplicaset"):
            raise MongoSetupError(f"{settings.address} was not started with --replSet {settings.replica_set}")
        await _initiate(database, settings)
    elif hello["setName"] != settings.replica_set:
        raise MongoSetupError(
            f"{settings.address} belongs to the replica set {hello['setName']}, not {settings.replica_set}"
        )
    if not hello.get("isWritablePrimary"):
        primary = hello.get("primary", "none yet")
        raise DependencyUnavailable(DEPENDENCY, f"{settings.address} is not the primary, which is {primary}")


async def _initiate(database: MongoDatabase, settings: MongoSetupSettings) -> None:
    member = settings.member or settings.address
    config = {"_id": settings.replica_set, "version": 1, "members": [{"_id": 0, "host": member}]}
    try:
        await _command(database, "replSetInitiate", config)
    except OperationFailure as error:
        if error.code != _ALREADY_INITIATED:
            raise
    else:
        _log.info("initiated the replica set %s of %s", settings.replica_set, member)


def _privileges(settings: MongoSetupSettings) -> dict[str, list[dict[str, object]]]:
    """Return what each role may do, as the server is told."""
    campaigns, consents = settings.campaigns_database, settings.consents_database
    rights: dict[str, dict[str, Mapping[str, tuple[str, ...]]]] = {
        "campaign_api": {campaigns: _CAMPAIGN_API},
        "consent_consumer": {consents: _CONSENT_CONSUMER},
        "consent_writer": {consents: _CONSENT_WRITER},
        "auditor": {campaigns: _AUDITED_CAMPAIGNS, consents: _AUDITED_CONSENTS},
    }
    privileges: dict[str, list[dict[str, object]]] = {
        role: [
            {"resource": {"db": database, "collection": collection}, "actions": list(actions)}
            for database, collections in databases.items()
            for collection, actions in collections.items()
        ]
        for role, databases in rights.items()
    }
    privileges["consent_consumer"].append({"resource": {"cluster": True}, "actions": ["serverStatus"]})
    return privileges


async def _ensure_role(database: MongoDatabase, role: str, privileges: list[dict[str, object]]) -> None:
    await _make_or_update(database, "Role", _ROLE_EXISTS, role, privileges=privileges, roles=[])


async def _ensure_user(database: MongoDatabase, user: str, password: str) -> None:
    roles = [{"role": user, "db": "admin"}]
    await _make_or_update(database, "User", _USER_EXISTS, user, pwd=password, roles=roles)


async def _make_or_update(database: MongoDatabase, what: str, exists: int, name: str, **content: object) -> None:
    """Make a role or a user, or let the one that there is become this."""
    try:
        await _command(database, f"create{what}", name, **content)
    except OperationFailure as error:
        if error.code != exists:
            raise
        await _command(database, f"update{what}", name, **content)
    else:
        _log.info("created %s %s", what.lower(), name)


async def _command(
    database: MongoDatabase, name: str, value: object = 1, **content: object
) -> Mapping[str, Any]:  # Any: BSON
    return await database.client.admin.command({name: value, **content})


def _reason(error: Exception) -> str:
    """Return one line; what the driver adds to a server's refusal is the same again, and long."""
    text = str(error)
    if isinstance(error, DependencyUnavailable):
        text = error.detail
    elif isinstance(error, OperationFailure) and error.details:
        text = str(error.details.get("errmsg", text))
    return " ".join(text.split())


def main() -> int:
    """Set up as the environment says; the status is 0, or 1 when the server refused, or 78 for bad settings."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    try:
        settings = load_settings(MongoSetupSettings)
    except SettingsError as error:
        sys.stderr.write(f"mongo: {error}\n")
        return 78
    try:
        asyncio.run(set_up(settings))
    except (DependencyUnavailable, MongoSetupError, PyMongoError, OSError, ValueError) as error:
        sys.stderr.write(f"mongo: {type(error).__name__}: {_reason(error)}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
