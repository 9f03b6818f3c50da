"""The client is built once, whoever calls first, and nobody is dialled."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from unittest import mock

import pytest

from patterns import background
from runtime.errors import DependencyUnavailable
from runtime.mongo import MongoDatabase
from runtime.mongo_settings import MongoSettings
from sandbox.servers.address import free_port
from services.campaign_api.mongo import Mongo
from tests.support.eventually import eventually

CALLERS = 50


def nowhere(**changes: object) -> MongoSettings:
    """Return settings of a server that is not there."""
    settings = {"hosts": f"127.0.0.1:{free_port()}", "database": "campaigns", "operation_timeout_seconds": 0.2}
    return MongoSettings.model_validate({**settings, **changes})


async def test_hundred_first_callers_in_tasks_and_threads_get_one_instance() -> None:
    """Ninety-nine of them come while the hundredth is building, and all get the very same client."""
    mongo = Mongo(nowhere(), application_name="test")
    is_building, may_build = threading.Event(), threading.Event()
    built: list[MongoDatabase] = []

    def build(settings: MongoSettings, *, application_name: str) -> MongoDatabase:
        is_building.set()
        assert may_build.wait(10)
        built.append(MongoDatabase(settings, application_name=application_name))
        return built[-1]

    with (
        mock.patch("services.campaign_api.mongo.MongoDatabase", build),
        ThreadPoolExecutor(CALLERS) as threads,
    ):
        in_threads = [threads.submit(mongo.connect_sync)]
        assert await asyncio.to_thread(is_building.wait, 10)
        in_threads += [threads.submit(mongo.connect_sync) for _ in range(CALLERS - 1)]
        in_tasks = [asyncio.create_task(mongo.connect()) for _ in range(CALLERS)]
        try:
            await eventually(lambda: mongo.statistics().waiting == 2 * CALLERS - 1)
        finally:
            may_build.set()
        instances = [*await asyncio.gather(*in_tasks), *(future.result(10) for future in in_threads)]

    assert all(instance is instances[0] for instance in instances)
    assert all(instance.client is built[0].client for instance in instances)
    assert (len(built), mongo.statistics().attempts) == (1, 1)
    await instances[0].database.aclose()


async def test_hundred_tasks_on_one_loop_get_one_instance() -> None:
    """The first builds, and the others find what it built."""
    mongo = Mongo(nowhere(), application_name="test")
    instances = await asyncio.gather(*(mongo.connect() for _ in range(100)))

    assert {id(instance) for instance in instances} == {id(instances[0])}
    assert mongo.statistics().attempts == 1
    await instances[0].database.aclose()


async def test_connecting_dials_nobody_and_the_wait_is_what_fails() -> None:
    """Without a server there is an instance all the same; the wait for one ends in its time, and can be begun again."""
    instance = await Mongo(nowhere(), application_name="test").connect()

    assert instance.database.statistics().opened == 0
    for _ in range(2):
        with pytest.raises(DependencyUnavailable, match="no connection within"):
            await instance.database.wait_for_connection(background(), timeout_seconds=0.3)
    assert await Mongo(nowhere(), application_name="test").connect() is not instance
    await instance.database.aclose()


async def test_failure_to_build_is_told_to_every_caller(tmp_path: Path) -> None:
    """Nothing is read before the first call; a file that is gone by then fails it and all later ones, not as nil."""
    file = tmp_path / "password"
    file.write_text("a password")
    mongo = Mongo(nowhere(user="campaign_api", password_file=file), application_name="test")
    file.unlink()
    outcomes = await asyncio.gather(*(mongo.connect() for _ in range(3)), return_exceptions=True)

    assert [type(outcome) for outcome in outcomes] == [FileNotFoundError] * 3
    assert mongo.statistics().state == "failed"
    with pytest.raises(FileNotFoundError):
        await mongo.connect()
