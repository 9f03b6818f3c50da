"""Real servers for tests: one of each a session, a fresh database and topic a test.

They are the embedded ones, or, with `TEST_SERVERS=containers`, PostgreSQL, MongoDB and Apache Kafka from their official
images.
"""

import asyncio
import contextlib
import os
import uuid
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import AbstractAsyncContextManager
from typing import Any, Final, TypeVar

import pytest
from confluent_kafka import KafkaError, KafkaException

from sandbox.servers import KafkaServer, MongoServer, PostgresServer, open_kafka, open_mongo, open_postgres
from tests.support.containers import engine_fault, open_kafka_container, open_mongo_container, open_postgres_container

T = TypeVar("T")

VARIABLE: Final = "TEST_SERVERS"
SERVER_FIXTURES: Final = frozenset({"postgres", "kafka", "mongo", "own_postgres", "own_kafka", "own_mongo"})
_KINDS: Final = ("embedded", "containers")
IN_CONTAINERS: Final = os.environ.get(VARIABLE, _KINDS[0]) == _KINDS[1]

embedded_only = pytest.mark.skipif(IN_CONTAINERS, reason="is about the embedded servers themselves")


def check_kind() -> None:
    """Refuse a kind of servers that there is not.

    Raises:
        pytest.UsageError: the variable names one.
    """
    if (kind := os.environ.get(VARIABLE, _KINDS[0])) not in _KINDS:
        raise pytest.UsageError(f"{VARIABLE} is {kind!r}, not one of: {', '.join(_KINDS)}")


def need_engine() -> None:
    """Skip the test where no container engine answers; in a pipeline, where nobody reads of skips, fail it."""
    if (fault := engine_fault()) is not None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(f"no container engine answers: {fault}")


def _open_postgres() -> AbstractAsyncContextManager[PostgresServer]:
    if not IN_CONTAINERS:
        return open_postgres()
    need_engine()
    return open_postgres_container()


def _open_kafka() -> AbstractAsyncContextManager[KafkaServer]:
    if not IN_CONTAINERS:
        return open_kafka()
    need_engine()
    return open_kafka_container()


def _open_mongo() -> AbstractAsyncContextManager[MongoServer]:
    if not IN_CONTAINERS:
        return open_mongo()
    need_engine()
    return open_mongo_container()


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
    with _opened(_open_postgres()) as server:
        yield server


@pytest.fixture(scope="session")
def kafka() -> Iterator[KafkaServer]:
    """One broker for the whole session; do not stop or freeze it, others use it."""
    with _opened(_open_kafka()) as server:
        yield server


@pytest.fixture(scope="session")
def mongo() -> Iterator[MongoServer]:
    """One MongoDB server for the whole session; do not stop or freeze it, others use it."""
    with _opened(_open_mongo()) as server:
        yield server


@pytest.fixture
async def own_postgres() -> AsyncIterator[PostgresServer]:
    """A PostgreSQL server for one test alone, to be stopped, killed and frozen at will."""
    async with _open_postgres() as server:
        yield server


@pytest.fixture
async def own_kafka() -> AsyncIterator[KafkaServer]:
    """A broker for one test alone, to be stopped, killed and frozen at will."""
    async with _open_kafka() as server:
        yield server


@pytest.fixture
async def own_mongo() -> AsyncIterator[MongoServer]:
    """A MongoDB server for one test alone, to be stopped, killed and frozen at will."""
    async with _open_mongo() as server:
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


async def make_topic_anew(server: KafkaServer, name: str) -> None:
    """Replace a topic that consumers may be reading by an empty one of the same name and another id.

    The embedded broker is restarted for it, which forgets every topic: to delete one there would end its consumers.
    """
    if server.is_embedded:
        await server.stop()
        await server.start()
        await server.create_topic(name)
        return
    await server.delete_topic(name)
    async with asyncio.timeout(30):
        while True:
            try:
                await server.create_topic(name)
            except KafkaException as error:
                if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:  # it is deleted a moment after the answer
                    raise
                await asyncio.sleep(0.05)
            else:
                return


@pytest.fixture
async def database(postgres: PostgresServer) -> AsyncIterator[str]:
    """The superuser URL of an empty database for one test alone."""
    async with open_database(postgres) as url:
        yield url


@pytest.fixture
async def topic(kafka: KafkaServer) -> str:
    """The name of an empty topic with six partitions for one test alone."""
    return await create_topic(kafka)
