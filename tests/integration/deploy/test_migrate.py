"""Migrations on a real server: repeatable, and safe side by side; `tests/security` has what the roles may not do."""

import asyncio
import os
import sys
import uuid
from collections.abc import AsyncIterator

import asyncpg
import pytest

from deploy.migrate import MIGRATION_LOCK, migrate
from deploy.settings import MigrateSettings
from sandbox.servers import PostgresServer
from sandbox.servers.address import LOOPBACK
from tests.support.databases import PASSWORDS, migrate_settings
from tests.support.eventually import eventually
from tests.support.fault_proxy import open_fault_proxy


@pytest.fixture
async def settings(postgres: PostgresServer) -> AsyncIterator[MigrateSettings]:
    """Settings with two databases that do not exist yet; whatever the test makes of them is dropped."""
    suffix = uuid.uuid4().hex[:12]
    settings = migrate_settings(postgres, rewards=f"rewards_{suffix}", coupons=f"coupons_{suffix}")
    yield settings
    await postgres.drop_database(settings.rewards_database)
    await postgres.drop_database(settings.coupons_database)


async def _connect(server: PostgresServer, role: str, database: str) -> asyncpg.Connection:
    return await asyncpg.connect(server.url(database, user=role, password=PASSWORDS[role]), timeout=10)


async def _revisions(server: PostgresServer, settings: MigrateSettings) -> list[str]:
    found = []
    for database in (settings.rewards_database, settings.coupons_database):
        connection = await _connect(server, "lp_owner", database)
        found.append(await connection.fetchval("select version_num from alembic_version"))
        await connection.close()
    return found


async def test_migrating_twice_leaves_the_same_revisions(postgres: PostgresServer, settings: MigrateSettings) -> None:
    """A second run finds everything in place and changes nothing."""
    await migrate(settings)
    first = await _revisions(postgres, settings)
    await migrate(settings)
    assert await _revisions(postgres, settings) == first
    assert all(first)


async def test_schema_of_a_newer_release_is_left_as_it_is(postgres: PostgresServer, settings: MigrateSettings) -> None:
    """Going back to the release before runs its migrations too: they end well and change nothing."""
    await migrate(settings)
    connection = await _connect(postgres, "lp_owner", settings.coupons_database)
    await connection.execute("update alembic_version set version_num = '9999'")
    await connection.close()
    first = await _revisions(postgres, settings)
    await migrate(settings)
    assert await _revisions(postgres, settings) == first
    assert first[1] == "9999"


async def test_migrating_from_four_places_at_once_succeeds_everywhere(
    postgres: PostgresServer, settings: MigrateSettings
) -> None:
    """Simultaneous runs take turns; none of them fails on what another has just made."""
    await asyncio.gather(*(migrate(settings) for _ in range(4)))
    assert all(await _revisions(postgres, settings))


async def test_an_administrator_without_superuser_rights_can_migrate(
    postgres: PostgresServer, settings: MigrateSettings
) -> None:
    """A role that may create roles and databases is enough, as on a managed server."""
    await migrate(settings)
    superuser = await asyncpg.connect(postgres.superuser_url, timeout=10)
    name = f"admin_{uuid.uuid4().hex[:8]}"
    fresh = settings.model_copy(
        update={
            "user": name,
            "password": settings.lp_owner_password,
            "rewards_database": f"{settings.rewards_database}_b",
            "coupons_database": f"{settings.coupons_database}_b",
        }
    )
    try:
        await superuser.execute(f"create role {name} login createrole createdb password '{PASSWORDS['lp_owner']}'")
        for role in PASSWORDS:
            await superuser.execute(f"grant {role} to {name} with admin option")
        await migrate(fresh)
        assert all(await _revisions(postgres, fresh))
    finally:
        await postgres.drop_database(fresh.rewards_database)
        await postgres.drop_database(fresh.coupons_database)
        await superuser.execute(f"drop owned by {name} cascade")
        await superuser.execute(f"drop role {name}")
        await superuser.close()


async def test_a_changed_password_counts_after_the_next_run(
    own_postgres: PostgresServer,
) -> None:
    """Running again with another password replaces it; the old one no longer opens the door."""
    settings = migrate_settings(own_postgres)
    await migrate(settings)
    changed = settings.model_copy(update={"reward_store_password": settings.coupon_api_password})
    await migrate(changed)
    with pytest.raises(asyncpg.InvalidPasswordError):
        await _connect(own_postgres, "reward_store", settings.rewards_database)
    url = own_postgres.url(settings.rewards_database, user="reward_store", password=PASSWORDS["coupon_api"])
    connection = await asyncpg.connect(url, timeout=10)
    await connection.close()


async def _run_command(environment: dict[str, str]) -> tuple[int | None, str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "deploy.migrate",
        env={name: value for name, value in os.environ.items() if not name.startswith("MIGRATE_")} | environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await asyncio.wait_for(process.communicate(), timeout=30)
    return process.returncode, output.decode()


async def test_the_command_migrates_from_its_environment(postgres: PostgresServer, settings: MigrateSettings) -> None:
    """`python -m deploy.migrate` with the right variables ends with status 0 and both schemas in place."""
    assert settings.password is not None
    status, output = await _run_command(
        {
            "MIGRATE_HOST": settings.host,
            "MIGRATE_PORT": str(settings.port),
            "MIGRATE_USER": settings.user,
            "MIGRATE_PASSWORD__VALUE": settings.password.read(),
            "MIGRATE_REWARDS_DATABASE": settings.rewards_database,
            "MIGRATE_COUPONS_DATABASE": settings.coupons_database,
            **{f"MIGRATE_{role.upper()}_PASSWORD__VALUE": password for role, password in PASSWORDS.items()},
        }
    )
    assert status == 0, output
    assert all(await _revisions(postgres, settings))
    assert not any(password in output for password in PASSWORDS.values())


async def test_the_command_without_settings_names_all_that_is_missing() -> None:
    """Bad settings end with status 78, and every problem is named at once, a mistyped variable too."""
    status, output = await _run_command({"MIGRATE_HSOT": "localhost"})
    assert status == 78
    assert all(f"MIGRATE_{name}" in output for name in ("HOST", "LP_OWNER_PASSWORD", "COUPON_CONSUMER_PASSWORD"))
    assert "MIGRATE_HSOT: no such setting; did you mean MIGRATE_HOST?" in output


async def test_the_command_says_in_one_line_that_the_server_is_away() -> None:
    """A server that does not answer ends the command with status 1 and no traceback."""
    passwords = {f"MIGRATE_{role.upper()}_PASSWORD__VALUE": password for role, password in PASSWORDS.items()}
    status, output = await _run_command({"MIGRATE_HOST": "127.0.0.1", "MIGRATE_PORT": "9", **passwords})
    assert status == 1
    assert output.startswith("migrate: ConnectionRefusedError")
    assert len(output.splitlines()) == 1


async def test_server_that_falls_silent_is_given_up(own_postgres: PostgresServer) -> None:
    """The limits that it would keep itself do not bind it then: while it waits for another migration, here."""
    connection = await asyncpg.connect(own_postgres.superuser_url, timeout=10)
    await connection.execute("select pg_advisory_lock($1)", MIGRATION_LOCK)
    limits = {"connect_timeout_seconds": 1.0, "lock_timeout_seconds": 2.0, "statement_timeout_seconds": 2.0}
    async with open_fault_proxy(own_postgres.port, host=own_postgres.host) as proxy:
        settings = migrate_settings(own_postgres).model_copy(
            update={"host": LOOPBACK, "port": proxy.port, "tls": "off", **limits}
        )
        migrating = asyncio.create_task(migrate(settings))
        await _wait_until_somebody_waits_for_a_lock(connection)
        proxy.down.swallow()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.shield(migrating), 40)
        assert migrating.done()
    await connection.close()


async def _wait_until_somebody_waits_for_a_lock(connection: asyncpg.Connection) -> None:
    async def somebody_waits() -> bool:
        return bool(await connection.fetchval("select exists (select from pg_locks where not granted)"))

    await eventually(somebody_waits)
