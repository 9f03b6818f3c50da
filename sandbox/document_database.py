"""A database of MongoDB by its server's URL, for whatever reads or writes beside the services."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, TypeAlias

from pymongo import AsyncMongoClient
from pymongo.asynchronous.database import AsyncDatabase

from runtime.mongo import Document

Database: TypeAlias = AsyncDatabase[Document]


@asynccontextmanager
async def open_database(url: str, name: str, *, timeout_seconds: float) -> AsyncIterator[Database]:
    """Open a database for the length of a block, dialling nobody yet.

    Writes are acknowledged by a majority and retried once by the driver, reads see what a majority has. Times come with
    their offset, and UUIDs as such.

    Args:
        url: where the server is, of which set, and who comes with which password.
        name: the database's.
        timeout_seconds: for each operation, the wait for a primary included.

    Raises:
        pymongo.errors.ConfigurationError: the URL is malformed.
    """
    options: dict[str, Any] = {  # the driver's own mixture of types
        "tz_aware": True,
        "uuidRepresentation": "standard",
        "w": "majority",
        "journal": True,
        "readConcernLevel": "majority",
        "retryWrites": True,
        "serverMonitoringMode": "poll",
        "timeoutMS": round(timeout_seconds * 1_000),
    }
    async with AsyncMongoClient[Document](url, **options) as client:
        yield client[name]
