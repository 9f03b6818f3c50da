"""The embedded servers, as the other integration tests use them."""

import asyncpg
from confluent_kafka.admin import AdminClient

from sandbox.servers import KafkaServer


async def test_fresh_database_is_empty_and_answers(database: str) -> None:
    """A test's own database answers and holds no table."""
    connection = await asyncpg.connect(database)
    try:
        assert await connection.fetchval("select count(*) from pg_tables where schemaname = 'public'") == 0
    finally:
        await connection.close()


async def test_fresh_topic_has_six_partitions(kafka: KafkaServer, topic: str) -> None:
    """A test's own topic has the number of partitions that coupon-events has."""
    metadata = AdminClient({"bootstrap.servers": kafka.bootstrap}).list_topics(topic, timeout=10)
    assert len(metadata.topics[topic].partitions) == 6
