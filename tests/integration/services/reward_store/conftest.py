"""The rewards database for the tests of reward_store, emptied before each test."""

from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest

from loyalty.reward import Member
from runtime.postgres import PostgresPool, open_pool
from runtime.settings import PostgresSettings
from sandbox.servers import KafkaServer, PostgresServer
from tests.support.databases import open_emptied, role_settings
from tests.support.reward_store_contract import some_reward
from tests.support.reward_store_process import Place
from tests.support.reward_world import PostgresWorld
from tests.support.servers import create_topic

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


@pytest.fixture
async def place(postgres: PostgresServer, kafka: KafkaServer, rewards_database: str, tmp_path: Path) -> Place:
    """Where the process of a test lives."""
    return Place(postgres, kafka, rewards_database, await create_topic(kafka), tmp_path)


@pytest.fixture
async def world(pool: PostgresPool, administrator: asyncpg.Connection) -> PostgresWorld:
    """The database beside the process: one reward of ten, and a member with 250 points."""
    world = PostgresWorld(pool, administrator)
    await world.put_reward(some_reward())
    await world.put_member(Member("m-1", 250))
    return world
