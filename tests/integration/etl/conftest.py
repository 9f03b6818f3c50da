"""The coupons database for the tests of the ETL, emptied before each test, and pools under its role."""

from collections.abc import AsyncIterator, Iterator

import asyncpg
import pytest

from deploy.settings import MigrateSettings
from runtime.postgres import PostgresPool, open_pool
from sandbox.servers import PostgresServer
from tests.support.databases import open_databases, open_emptied, role_settings


@pytest.fixture(scope="module")
def databases(postgres: PostgresServer) -> Iterator[MigrateSettings]:
    """Both databases under names of their own, for one module."""
    with open_databases(postgres) as settings:
        yield settings


@pytest.fixture(scope="module")
def coupons_database(databases: MigrateSettings) -> str:
    """The name of the coupons database."""
    return databases.coupons_database


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
