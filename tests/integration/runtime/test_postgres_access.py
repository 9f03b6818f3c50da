"""The Postgres pool and what lets it in: passwords that change, and a server that has no room."""

import asyncio
from pathlib import Path

import pytest

from runtime.errors import DependencyUnavailable
from runtime.postgres import open_pool
from tests.support.eventually import eventually
from tests.support.pools import pool_settings


async def test_a_rotated_password_is_read_for_each_new_connection(database: str, tmp_path: Path) -> None:
    """After the role's password changed, writing the file is enough: no restart is needed."""
    role, file = "rotated_role", tmp_path / "password"
    async with open_pool(pool_settings(database)) as admin:
        await admin.execute(f"drop role if exists {role}")
        await admin.execute(f"create role {role} login password 'first'")
        try:
            file.write_text("first\n")
            settings = pool_settings(database, user=role, password=None, password_file=file)
            async with open_pool(settings) as pool:
                assert await pool.fetch_row("select 1") is not None
                await admin.execute(f"alter role {role} password 'second'")
                pool.expire()
                with pytest.raises(DependencyUnavailable):
                    await pool.fetch_row("select 1")
                file.write_text("second\n")
                await asyncio.sleep(0.2)  # the pause after a failed connection
                assert await pool.fetch_row("select 1") is not None
        finally:
            await admin.execute(f"drop role if exists {role}")


async def test_too_many_connections_on_the_server_is_unavailable_until_one_is_free(database: str) -> None:
    """A refused connection (53300) is told as unavailable; when the other client leaves, the pool gets one."""
    role = "narrow_role"
    async with open_pool(pool_settings(database)) as admin:
        await admin.execute(f"drop role if exists {role}")
        await admin.execute(f"create role {role} login password 'narrow' connection limit 1")
        try:
            settings = pool_settings(database, user=role, password="narrow")  # noqa: S106 - a test's own
            async with open_pool(settings) as other, open_pool(settings) as pool:
                assert await other.fetch_row("select 1") is not None
                for _ in range(20):
                    with pytest.raises(DependencyUnavailable, match="too many connections"):
                        await pool.fetch_row("select 1")
                assert pool.statistics().failed_connects < 5
                other.expire()
                await eventually(lambda: other.statistics().size == 0)
                await asyncio.sleep(1.0)  # the longest pause after failed connections
                assert await pool.fetch_row("select 1") is not None
        finally:
            await admin.execute(f"drop role if exists {role}")
