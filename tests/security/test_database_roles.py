"""Each role can do what its service does, and nothing else: PostgreSQL itself refuses the rest."""

from urllib.parse import unquote, urlsplit

import asyncpg
import pytest

from deploy.settings import MigrateSettings
from sandbox.servers import PostgresServer
from tests.security.database_rights import OF_THE_ROLE, ROLES, forbidden_to
from tests.support.databases import PASSWORDS

INSUFFICIENT_PRIVILEGE = "42501"
CHECK_VIOLATION = "23514"
REDEEMED_COUPON = """
insert into coupons (
    code, member_id, reward_id, value_cents, currency, issued_at, expires_at, status, redeemed_at, version, source
) values (
    '0123456789ABCDEF', 'm-1', 'rw-1', 500, 'EUR', '2026-01-01Z', '2999-01-01Z', 'redeemed', '2026-01-02Z', 2, 'event'
)
"""


def _database(settings: MigrateSettings, role: str) -> str:
    return settings.rewards_database if role in {"reward_store", "lp_owner"} else settings.coupons_database


async def _connect(server: PostgresServer, role: str, database: str) -> asyncpg.Connection:
    return await asyncpg.connect(server.url(database, user=role, password=PASSWORDS[role]), timeout=10)


async def _sqlstate_of(connection: asyncpg.Connection, statement: str) -> str:
    try:
        await connection.execute(statement)
    except asyncpg.PostgresError as error:
        return str(error.sqlstate)
    return "done"


@pytest.mark.parametrize("role", [*ROLES, "lp_owner"])
async def test_role_is_refused_what_it_has_no_need_of(
    postgres: PostgresServer, databases: MigrateSettings, role: str
) -> None:
    """Every statement is understood, and refused for want of rights alone."""
    database = _database(databases, role)
    names = {
        "role": role,
        "other": next(other for other in ROLES if other != role),
        "database": database,
        "superuser": unquote(urlsplit(postgres.superuser_url).username or "postgres"),
    }
    witness = await asyncpg.connect(postgres.url(database), timeout=10)  # a superuser's session, to be attacked
    connection = await _connect(postgres, role, database)
    try:
        statements = [statement.format(**names) for statement in forbidden_to(role)]
        found = {statement: await _sqlstate_of(connection, statement) for statement in statements}
        assert await witness.fetchval("select 1") == 1
    finally:
        await connection.close()
        await witness.close()
    assert {statement: state for statement, state in found.items() if state != INSUFFICIENT_PRIVILEGE} == {}
    assert len(found) >= 30


async def test_administrator_may_do_what_the_roles_may_not(
    postgres: PostgresServer, databases: MigrateSettings
) -> None:
    """The statements on tables are refused for who asks, not for how they are written."""
    administrator = await asyncpg.connect(postgres.url(databases.coupons_database), timeout=10)
    try:
        for statement in OF_THE_ROLE["coupon_api"]:
            transaction = administrator.transaction()
            await transaction.start()
            await administrator.execute(statement)
            await transaction.rollback()
    finally:
        await administrator.close()


@pytest.mark.parametrize("role", ROLES)
async def test_role_cannot_enter_the_other_database(
    postgres: PostgresServer, databases: MigrateSettings, role: str
) -> None:
    """Nothing of it can be read, not even which tables it has."""
    other = {databases.rewards_database, databases.coupons_database} - {_database(databases, role)}
    with pytest.raises(asyncpg.PostgresError) as raised:
        await _connect(postgres, role, other.pop())
    assert raised.value.sqlstate == INSUFFICIENT_PRIVILEGE


async def test_consumer_cannot_make_a_redeemed_coupon_spendable_again(
    postgres: PostgresServer, databases: MigrateSettings
) -> None:
    """It may change the status, but not the time of redemption, and one without the other is no coupon."""
    administrator = await asyncpg.connect(postgres.url(databases.coupons_database), timeout=10)
    connection = await _connect(postgres, "coupon_consumer", databases.coupons_database)
    try:
        await administrator.execute(REDEEMED_COUPON)
        for status in ("issued", "cancelled"):
            with pytest.raises(asyncpg.PostgresError) as raised:
                await connection.execute("update coupons set status = $1 where status = 'redeemed'", status)
            assert raised.value.sqlstate == CHECK_VIOLATION
    finally:
        await connection.close()
        await administrator.close()
