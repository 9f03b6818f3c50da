"""The rewards database for the tests of reward_store, emptied before each test."""

from collections.abc import AsyncIterator

import asyncpg
import pytest

from runtime.postgres import PostgresPool, open_pool
from runtime.settings import PostgresSettings
from sandbox.servers import PostgresServer
from tests.support.databases import open_emptied, role_settings

TABLES = ("members", "rewards", "redemptions", "idempotency_keys", "outbox")


@pytest.fixture
async def administrator(postgres: PostgresServer, rewards_database: str) -> AsyncIterator[asyncpg.Connection]:
    """A superuser's connection to the database, whose tables are empty."""
    async with open_emptied(postgres, rewards_database, *TABLES) as connection:
        yield connection


@pytest.fixture
def postgres_settings(postgres: PostgresServer, rewards_database: str) -> PostgresSettings:
    """How the service reaches the database: by its own role; 200 at once may have to wait for a connection."""
    settings = role_settings(postgres, rewards_database, "reward_store")
    return settings.model_copy(update={"acquire_timeout_seconds": 20.0})


@pytest.fixture
async def pool(postgres_settings: PostgresSettings) -> AsyncIterator[PostgresPool]:
    """The service's pool."""
    async with open_pool(postgres_settings) as pool:
        yield pool
