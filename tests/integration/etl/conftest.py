"""The coupons database for the tests of the ETL, emptied before each test, and pools under its role."""

from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest

from runtime.postgres import PostgresPool, open_pool
from sandbox.servers import PostgresServer
from tests.support.databases import open_emptied, role_settings
from tests.support.etl_process import EtlCommand


@pytest.fixture
async def administrator(postgres: PostgresServer, coupons_database: str) -> AsyncIterator[asyncpg.Connection]:
    """A superuser's connection to the database, whose tables are empty."""
    async with open_emptied(postgres, coupons_database, "coupons", "etl_files", "etl_ranges") as connection:
        yield connection


@pytest.fixture
async def pool(postgres: PostgresServer, coupons_database: str) -> AsyncIterator[PostgresPool]:
    """A process's pool, under the role of the ETL."""
    async with open_pool(role_settings(postgres, coupons_database, "etl")) as opened:
        yield opened


@pytest.fixture
async def other_pool(postgres: PostgresServer, coupons_database: str) -> AsyncIterator[PostgresPool]:
    """Another process's pool."""
    async with open_pool(role_settings(postgres, coupons_database, "etl")) as opened:
        yield opened


@pytest.fixture
def etl(
    postgres: PostgresServer,
    coupons_database: str,
    administrator: asyncpg.Connection,  # noqa: ARG001 - empties the tables
    tmp_path: Path,
) -> EtlCommand:
    """The command line, on empty tables."""
    return EtlCommand(postgres, coupons_database, tmp_path)
