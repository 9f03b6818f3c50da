"""Make the databases, the roles with their rights, and bring both schemas to their newest revision.

`python -m deploy.migrate` reads variables that begin with `MIGRATE_`. It may run again at any time, and two at once
take turns: whatever stands already is left as it is, except that each role's password becomes the one given.

Who may do what:

- the administrator of the settings makes databases and roles, and touches nothing inside a database;
- `lp_owner` owns both databases and runs their migrations; no service logs in as it;
- each role of a service, and that of the ETL, may connect to its own database alone, and gets there what that one's
  migrations grant it.

PostgreSQL 15 or newer is expected: since then nobody but a database's owner may create things in it.
"""

import asyncio
import base64
import hashlib
import hmac
import logging
import secrets
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import asyncpg
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Connection, NullPool
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import create_async_engine

from deploy.settings import MigrateSettings
from runtime.environment import load_settings
from runtime.errors import SettingsError

OWNER: Final = "lp_owner"
NEWEST: Final = "head"

_SERVICES: Final = Path(__file__).resolve().parent.parent / "services"
# One number for "somebody migrates this server"; any constant does, as long as it stays the same.
MIGRATION_LOCK: Final = 7_310_582_440_917
_SCRAM_ITERATIONS: Final = 4096

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _History:
    """One database: its name, the folder of its migrations, and the roles that may connect."""

    database: str
    folder: Path
    roles: tuple[str, ...]


async def migrate(settings: MigrateSettings, *, revision: str = NEWEST) -> None:
    """Bring the server of the settings to what this release needs.

    Each history runs in one transaction: it is there whole, or not at all. A cancelled call leaves what was finished.
    A schema of a newer release is left as it is: this release runs on it, since migrations first expand, then contract.

    Args:
        settings: where the server is, who administers it, and the password of each role.
        revision: where both histories are to end; tests stop earlier to run a release on the schema of another.

    Raises:
        OSError, TimeoutError: the server cannot be reached, or does not answer.
        asyncpg.PostgresError, sqlalchemy.exc.DBAPIError: the server refused, or another migration did not end within
            the lock's time.
        alembic.util.CommandError: the histories do not fit together.
    """
    histories = (
        _History(settings.rewards_database, _SERVICES / "reward_store" / "migrations", ("reward_store",)),
        _History(
            settings.coupons_database,
            _SERVICES / "coupon_api" / "migrations",
            ("coupon_api", "coupon_consumer", "etl"),
        ),
    )
    passwords = settings.role_passwords()
    administrator = await _connect(settings, settings.user, settings.administrator_password(), settings.database)
    try:
        await administrator.fetchval("select pg_advisory_lock($1)", MIGRATION_LOCK)
        for role, password in passwords.items():
            await _ensure_role(administrator, role, password)
        # An administrator who is no superuser may give a database away only to a role it is a member of.
        await administrator.execute(f"grant {OWNER} to current_user")
        for history in histories:
            await _ensure_database(administrator, history.database)
            await _upgrade(settings, history, passwords[OWNER], revision)
    finally:
        await administrator.close(timeout=settings.connect_timeout_seconds)


async def _connect(settings: MigrateSettings, user: str, password: str | None, database: str) -> asyncpg.Connection:
    return await asyncpg.connect(
        host=settings.host,
        port=settings.port,
        user=user,
        password=password,
        database=database,
        ssl=settings.tls_context(),
        timeout=settings.connect_timeout_seconds,
        # The limits below are the server's; one that is frozen keeps none.
        command_timeout=settings.statement_timeout_seconds + settings.connect_timeout_seconds,
        server_settings={
            "application_name": "migrate",
            "statement_timeout": str(int(settings.statement_timeout_seconds * 1000)),
            "lock_timeout": str(int(settings.lock_timeout_seconds * 1000)),
        },
    )


async def _ensure_role(administrator: asyncpg.Connection, role: str, password: str) -> None:
    """Create the role if it is missing, and give it its password as a verifier: the server's log never sees more."""
    if not await administrator.fetchval("select exists (select from pg_roles where rolname = $1)", role):
        await administrator.execute(f"create role {role} login")
        _log.info("created role %s", role)
    await administrator.execute(f"alter role {role} login password '{scram_verifier(password)}'")


async def _ensure_database(administrator: asyncpg.Connection, database: str) -> None:
    if not await administrator.fetchval("select exists (select from pg_database where datname = $1)", database):
        await administrator.execute(f'create database "{database}" owner {OWNER}')
        _log.info("created database %s", database)


async def _upgrade(settings: MigrateSettings, history: _History, password: str, revision: str) -> None:
    """Say who may enter the database, and run its history, as its owner."""

    async def connect() -> asyncpg.Connection:
        return await _connect(settings, OWNER, password, history.database)

    engine = create_async_engine("postgresql+asyncpg://", async_creator=connect, poolclass=NullPool)
    try:
        async with engine.begin() as connection:
            for statement in _entry_rights(history):
                await connection.exec_driver_sql(statement)
            await connection.run_sync(_run_history, history.folder, revision)
    finally:
        await engine.dispose()
    _log.info("database %s is at revision %s", history.database, revision)


def _entry_rights(history: _History) -> tuple[str, ...]:
    roles = ", ".join(history.roles)
    return (
        f'revoke all on database "{history.database}" from public',
        f'grant connect on database "{history.database}" to {roles}',
        "revoke all on schema public from public",
        f"grant usage on schema public to {roles}",
    )


def _run_history(connection: Connection, folder: Path, revision: str) -> None:
    config = Config()
    # The option goes through a config parser, to which a percent sign in a path would mean something.
    config.set_main_option("script_location", str(folder).replace("%", "%%"))
    config.attributes["connection"] = connection
    now = MigrationContext.configure(connection).get_current_revision()
    if now is not None and now not in {each.revision for each in ScriptDirectory.from_config(config).walk_revisions()}:
        _log.warning("the schema is of a newer release (revision %s) and is left as it is", now)
        return
    command.upgrade(config, revision)


def scram_verifier(password: str, salt: bytes | None = None) -> str:
    """Return what PostgreSQL stores for a password (RFC 5803), so that the password itself need not be sent.

    Args:
        password: ASCII only; other text would have to be normalised first (RFC 4013), and is refused by the settings.
        salt: 16 random bytes when left out.
    """
    salt = secrets.token_bytes(16) if salt is None else salt
    salted = hashlib.pbkdf2_hmac("sha256", password.encode("ascii"), salt, _SCRAM_ITERATIONS)
    stored_key = hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    server_key = hmac.digest(salted, b"Server Key", "sha256")
    encode = base64.b64encode
    keys = f"{encode(stored_key).decode()}:{encode(server_key).decode()}"
    return f"SCRAM-SHA-256${_SCRAM_ITERATIONS}:{encode(salt).decode()}${keys}"


def main() -> int:
    """Migrate as the environment says; the status is 0, or 1 when the server refused, or 78 for bad settings."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    try:
        settings = load_settings(MigrateSettings)
    except SettingsError as error:
        sys.stderr.write(f"migrate: {error}\n")
        return 78
    try:
        asyncio.run(migrate(settings))
    except (OSError, ValueError, asyncpg.PostgresError, CommandError, DBAPIError) as error:
        sys.stderr.write(f"migrate: {type(error).__name__}: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
