"""The coupons database for the tests of coupon_api, emptied before each test."""

from collections.abc import AsyncIterator

import asyncpg
import pytest

from runtime.settings import PostgresSettings
from sandbox.servers import PostgresServer
from tests.support.databases import open_emptied, role_settings

TABLES = ("coupons", "idempotency_keys", "consumer_offsets", "dead_letters")


@pytest.fixture
async def administrator(postgres: PostgresServer, coupons_database: str) -> AsyncIterator[asyncpg.Connection]:
    """A superuser's connection to the database, whose tables are empty."""
    async with open_emptied(postgres, coupons_database, *TABLES) as connection:
        yield connection


@pytest.fixture
def postgres_settings(postgres: PostgresServer, coupons_database: str) -> PostgresSettings:
    """How the service reaches the database: by its own role."""
    return role_settings(postgres, coupons_database, "coupon_api")
