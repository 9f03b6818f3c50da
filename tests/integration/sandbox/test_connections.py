"""The budget of connections to Postgres, over all processes and replicas."""

from pathlib import Path
from typing import Final

import asyncpg
import pytest

from runtime.environment import load_settings
from runtime.settings import PostgresSettings
from sandbox.instance import COUPON_FLOW, Service
from sandbox.system import open_system
from services.coupon_api.settings import CouponApiSettings
from services.coupon_consumer.settings import CouponConsumerSettings
from services.reward_store.settings import RewardStoreSettings

REPLICAS: Final = 2
"""Of every service: what runs, and what replaces it, of all services at once."""
OBSERVER: Final = 2
AUDIT: Final = 2
MIGRATION: Final = 2
"""The administrator's connection, and the owner's beside it."""
CANCEL_REQUESTS: Final = 10
"""A statement that is interrupted is so by a connection of its own, which lives for a moment."""


async def _free_connections(url: str) -> int:
    """Return how many connections are there for roles that are no superusers."""
    connection = await asyncpg.connect(url)
    try:
        names = ("max_connections", "superuser_reserved_connections", "reserved_connections")
        most, superusers, reserved = [int(await connection.fetchval(f"show {name}")) for name in names]
        return most - superusers - reserved
    finally:
        await connection.close()


async def test_all_pools_together_fit_into_the_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two of every service with full pools, an operator's command, a migration and the demo's own leave room."""
    async with open_system(tmp_path, services=COUPON_FLOW) as system:
        for service in COUPON_FLOW:
            for name, value in system.environment(service).items():
                monkeypatch.setenv(name, value)
        pools = {
            Service.REWARD_STORE: load_settings(RewardStoreSettings).postgres,
            Service.COUPON_API: load_settings(CouponApiSettings).postgres,
            Service.COUPON_CONSUMER: load_settings(CouponConsumerSettings).postgres,
        }
        assert pools.keys() == set(COUPON_FLOW)
        free = await _free_connections(system.rewards_url)
    command = pools[Service.COUPON_CONSUMER].pool_max
    replicas = REPLICAS * sum(pool.pool_max for pool in pools.values())
    assert replicas + command + OBSERVER + AUDIT + MIGRATION + CANCEL_REQUESTS <= free


def test_the_default_of_a_pool_fits_into_a_server_of_defaults() -> None:
    """Whoever sets nothing, here or in Postgres (100 connections, 3 of them reserved), has two of every service."""
    assert REPLICAS * len(COUPON_FLOW) * PostgresSettings(database="d", user="u").pool_max <= 100 - 3
