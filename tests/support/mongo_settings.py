"""How a test reaches a MongoDB server: a database and a user of its own."""

import contextlib
import secrets
import uuid
from collections.abc import AsyncIterator
from urllib.parse import quote

import pytest
from pydantic import SecretStr

from runtime.mongo_settings import MongoSettings
from runtime.settings import read_secret
from sandbox.servers import MongoServer
from sandbox.servers.mongo import REPLICA_SET

DRIVERS = ("pymongo", "motor")


@contextlib.asynccontextmanager
async def open_mongo_database(server: MongoServer) -> AsyncIterator[MongoSettings]:
    """Name a database that is not there yet, with a user who may read and write it alone; drop both on leaving.

    The user sees the server's numbers too, as a consumer has to.
    """
    name, password = f"test_{uuid.uuid4().hex[:12]}", secrets.token_urlsafe(18)
    roles = [{"role": "readWrite", "db": name}, {"role": "clusterMonitor", "db": "admin"}]
    await server.create_user(name, password, roles)
    try:
        yield MongoSettings(
            hosts=(server.address,), replica_set=REPLICA_SET, database=name, user=name, password=SecretStr(password)
        )
    finally:
        await server.drop_database(name)
        await server.drop_user(name)


@pytest.fixture
async def mongo_settings(mongo: MongoServer) -> AsyncIterator[MongoSettings]:
    """Settings that lead to an empty database for one test alone."""
    async with open_mongo_database(mongo) as settings:
        yield settings


@pytest.fixture(params=DRIVERS)
def any_driver(request: pytest.FixtureRequest, mongo_settings: MongoSettings) -> MongoSettings:
    """The same, by each driver in turn."""
    return with_driver(mongo_settings, request.param)


def with_driver(settings: MongoSettings, driver: str) -> MongoSettings:
    """Return the settings with another driver."""
    return MongoSettings.model_validate(settings.model_dump() | {"driver": driver})


def patient(settings: MongoSettings) -> MongoSettings:
    """Return the settings for a test's own calls, which may write 15 MB and take long; a service keeps its limits."""
    return settings.model_copy(update={"operation_timeout_seconds": 40.0})


def mongo_url(settings: MongoSettings) -> str:
    """Return the settings as what reads or writes beside the services is told them."""
    password = quote(read_secret(settings.password, settings.password_file) or "", safe="")
    return f"mongodb://{settings.user}:{password}@{','.join(settings.hosts)}/?replicaSet={settings.replica_set}"
