"""The real store on a real database: the contract, and what only a database can show."""

import asyncpg
import pytest

from loyalty.money import MAX_CENTS
from runtime.postgres import PostgresPool
from tests.support.reward_store_contract import RewardStoreContract
from tests.support.reward_world import PostgresWorld


@pytest.fixture
def world(pool: PostgresPool, administrator: asyncpg.Connection) -> PostgresWorld:
    """The real store, with nothing in it."""
    return PostgresWorld(pool, administrator)


class TestPostgresRewardStore(RewardStoreContract):
    """The contract, on Postgres."""


async def test_reward_worth_more_than_any_coupon_is_refused_where_it_is_entered(
    administrator: asyncpg.Connection,
) -> None:
    """A value that no coupon could have never gets in, so that no list of rewards can fail for it."""
    insert = "insert into rewards values ('rw-1', 'A castle', 1, 1, $1, 'EUR', 30)"
    await administrator.execute(insert, MAX_CENTS)
    with pytest.raises(asyncpg.CheckViolationError):
        await administrator.execute(insert.replace("rw-1", "rw-2"), MAX_CENTS + 1)
