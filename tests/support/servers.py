"""Real servers for tests: one of each a session, a fresh database and topic a test."""

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator, Coroutine, Iterator
from typing import Any, TypeVar

import pytest

from sandbox.servers import KafkaServer, PostgresServer, open_kafka, open_postgres

T = TypeVar("T")


def run_apart(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine on a loop of its own, which is never made the thread's current one."""
    loop = asyncio.new_event_loop()
    try:
        return loop.run_until_complete(coroutine)
    finally:
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()


@contextlib.contextmanager
def _opened(context: contextlib.AbstractAsyncContextManager[T]) -> Iterator[T]:
    """Enter and leave an asynchronous context from plain code; no loop and no thread stays in between."""

    async def enter() -> T:
        return await context.__aenter__()

    async def leave() -> None:
        await context.__aexit__(None, None, None)

    server = run_apart(enter())
    try:
        yield server
    finally:
        run_apart(leave())


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """One PostgreSQL server for the whole session; do not stop or freeze it, others use it."""
    with _opened(open_postgres()) as server:
        yield server


@pytest.fixture(scope="session")
def kafka() -> Iterator[KafkaServer]:
    """One broker for the whole session; do not stop or freeze it, others use it."""
    with _opened(open_kafka()) as server:
        yield server


@pytest.fixture
async def own_postgres() -> AsyncIterator[PostgresServer]:
    """A PostgreSQL server for one test alone, to be stopped, killed and frozen at will."""
    async with open_postgres() as server:
        yield server


@pytest.fixture
async def own_kafka() -> AsyncIterator[KafkaServer]:
    """A broker for one test alone, to be stopped, killed and frozen at will."""
    async with open_kafka() as server:
        yield server


@contextlib.asynccontextmanager
async def open_database(server: PostgresServer) -> AsyncIterator[str]:
    """Create an empty database under a fresh name, give its superuser URL, and drop it on leaving."""
    name = f"test_{uuid.uuid4().hex[:12]}"
    url = await server.create_database(name)
    try:
        yield url
    finally:
        await server.drop_database(name)


async def create_topic(server: KafkaServer, *, partitions: int = 6) -> str:
    """Create a topic under a fresh name.

    It is never deleted: librdkafka 2.16 ends the process (segmentation fault) when a topic that it fetches from the
    embedded broker is deleted, and a consumer that a failing test left open would take the whole session with it.
    """
    name = f"test-{uuid.uuid4().hex[:12]}"
    await server.create_topic(name, partitions=partitions)
    return name


@pytest.fixture
async def database(postgres: PostgresServer) -> AsyncIterator[str]:
    """The superuser URL of an empty database for one test alone."""
    async with open_database(postgres) as url:
        yield url


@pytest.fixture
async def topic(kafka: KafkaServer) -> str:
    """The name of an empty topic with six partitions for one test alone."""
    return await create_topic(kafka)
