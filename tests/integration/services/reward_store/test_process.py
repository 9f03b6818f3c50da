"""reward_store as a process: how it starts, how it stops, and what a death in the middle leaves behind."""

import signal
from pathlib import Path

import asyncpg
import orjson
import pytest

from loyalty.reward import Member
from runtime.postgres import PostgresPool
from sandbox.servers import KafkaServer, PostgresServer
from tests.support.reward_store_contract import some_reward
from tests.support.reward_store_process import Place, open_reward_store
from tests.support.reward_world import PostgresWorld
from tests.support.servers import create_topic

REDEEM = {"reward_id": "rw-coffee"}


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


async def test_a_redemption_travels_to_the_topic_and_the_stop_is_clean(place: Place, world: PostgresWorld) -> None:
    """What was redeemed is published and marked; SIGTERM then ends the process with 0, in the original's words."""
    async with open_reward_store(place) as service:
        await service.wait_readiness(200)
        async with service.client("m-1") as client:
            answer = await client.post("/v1/redemptions", json=REDEEM, headers={"idempotency-key": "key-0001"})
            assert answer.status_code == 201, answer.text
        await world.wait_published()
        service.process.send_signal(signal.SIGTERM)
        assert await service.process.wait(20) == 0
        events = service.events()
        words = ["Starting HTTP server", "Received shutdown signal", "Application shutdown completed"]
        assert [event for event in events if event in words] == words
        assert orjson.loads(answer.content)["coupon_code"] not in service.process.log.read_text()
