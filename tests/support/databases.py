"""The platform's databases on a test server."""

import contextlib
import os
import uuid
from collections.abc import AsyncIterator, Iterator
from urllib.parse import unquote, urlsplit

import asyncpg
from pydantic import SecretStr

from deploy.migrate import migrate
from deploy.settings import MigrateSettings, Password
from runtime.settings import PostgresSettings
from sandbox.roles import ROLES, role_password
from sandbox.servers import PostgresServer
from sandbox.servers.postgres import POSTGRES_VARIABLE
from tests.support.servers import run_apart

PASSWORDS = {role: role_password(os.environ.get(POSTGRES_VARIABLE, ""), role) for role in ROLES}


def migrate_settings(server: PostgresServer, *, rewards: str = "rewards", coupons: str = "coupons") -> MigrateSettings:
    """Return the settings that make both databases on a test server, under the given names."""
    parts = urlsplit(server.superuser_url)
    return MigrateSettings(
        host=server.host,
        port=server.port,
        user=unquote(parts.username or "postgres"),
        password=_password(unquote(parts.password)) if parts.password else None,
        lp_owner_password=_password(PASSWORDS["lp_owner"]),
        reward_store_password=_password(PASSWORDS["reward_store"]),
        coupon_api_password=_password(PASSWORDS["coupon_api"]),
        coupon_consumer_password=_password(PASSWORDS["coupon_consumer"]),
        etl_password=_password(PASSWORDS["etl"]),
        rewards_database=rewards,
        coupons_database=coupons,
    )


def _password(text: str) -> Password:
    return Password(value=SecretStr(text))


@contextlib.contextmanager
def open_databases(server: PostgresServer) -> Iterator[MigrateSettings]:
    """Make both databases under names of their own, and drop them on leaving; from plain code, outside any loop."""
    own = uuid.uuid4().hex[:12]
    settings = migrate_settings(server, rewards=f"rewards_{own}", coupons=f"coupons_{own}")
    run_apart(migrate(settings))
    try:
        yield settings
    finally:
        run_apart(server.drop_database(settings.coupons_database))
        run_apart(server.drop_database(settings.rewards_database))


@contextlib.asynccontextmanager
async def open_emptied(server: PostgresServer, database: str, *tables: str) -> AsyncIterator[asyncpg.Connection]:
    """Empty tables, and give the superuser's connection that did it."""
    connection = await asyncpg.connect(server.url(database), timeout=10)
    try:
        await connection.execute(f"truncate {', '.join(tables)}")
        yield connection
    finally:
        await connection.close()


def role_settings(server: PostgresServer, database: str, role: str) -> PostgresSettings:
    """Return how a service reaches its database: by its own role."""
    return PostgresSettings(
        host=server.host, port=server.port, database=database, user=role, password=SecretStr(PASSWORDS[role])
    )
