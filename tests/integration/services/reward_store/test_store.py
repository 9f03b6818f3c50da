"""The real store on a real database: the contract, and what only a database can show."""

import asyncpg
import pytest

from runtime.postgres import PostgresPool
from tests.support.reward_store_contract import RewardStoreContract
from tests.support.reward_world import PostgresWorld


@pytest.fixture
def world(pool: PostgresPool, administrator: asyncpg.Connection) -> PostgresWorld:
    """The real store, with nothing in it."""
    return PostgresWorld(pool, administrator)


class TestPostgresRewardStore(RewardStoreContract):
    """The contract, on Postgres."""
