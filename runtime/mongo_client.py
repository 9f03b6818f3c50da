"""Build a MongoDB client: the only place that knows which driver stands behind it.

The driver is PyMongo's asynchronous API. Motor, an optional extra, is PyMongo's blocking code in threads behind the
same names; where one returns a thing itself and the other something to await, `settle` hides it.
"""

import inspect
from typing import Any, Final, TypeVar

from pymongo import AsyncMongoClient
from pymongo.monitoring import (
    ConnectionCheckedInEvent,
    ConnectionCheckedOutEvent,
    ConnectionCheckOutFailedEvent,
    ConnectionCheckOutStartedEvent,
    ConnectionClosedEvent,
    ConnectionCreatedEvent,
    ConnectionPoolListener,
    ConnectionReadyEvent,
    PoolClearedEvent,
    PoolClosedEvent,
    PoolCreatedEvent,
    PoolReadyEvent,
)

from patterns import AtomicCounter
from runtime.mongo_settings import MongoSettings

T = TypeVar("T")

Document = dict[str, Any]
"""A document as the driver gives it: any BSON value may stand under any name."""
Client = AsyncMongoClient[Document]

_TLS: Final[dict[str, dict[str, object]]] = {
    "disable": {},
    "require": {"tls": True, "tlsAllowInvalidCertificates": True, "tlsAllowInvalidHostnames": True},
    "verify-full": {"tls": True},
}


class PoolListener(ConnectionPoolListener):
    """Count what becomes of connections; the driver calls it from the loop, Motor from its threads."""

    def __init__(self) -> None:
        self.created = AtomicCounter()
        self.closed = AtomicCounter()
        self.lent = AtomicCounter()
        self.returned = AtomicCounter()
        self.failed = AtomicCounter()
        self.cleared = AtomicCounter()

    def connection_created(self, event: ConnectionCreatedEvent) -> None:  # noqa: ARG002 - the driver's signature
        """Count it."""
        self.created.add()

    def connection_closed(self, event: ConnectionClosedEvent) -> None:  # noqa: ARG002 - the driver's signature
        """Count it."""
        self.closed.add()

    def connection_checked_out(self, event: ConnectionCheckedOutEvent) -> None:  # noqa: ARG002 - the driver's signature
        """Count it."""
        self.lent.add()

    def connection_checked_in(self, event: ConnectionCheckedInEvent) -> None:  # noqa: ARG002 - the driver's signature
        """Count it."""
        self.returned.add()

    def connection_check_out_failed(self, event: ConnectionCheckOutFailedEvent) -> None:  # noqa: ARG002 - the driver's signature
        """Count it."""
        self.failed.add()

    def pool_cleared(self, event: PoolClearedEvent) -> None:  # noqa: ARG002 - the driver's signature
        """Count it: a node went away, or changed its role."""
        self.cleared.add()

    def connection_check_out_started(self, event: ConnectionCheckOutStartedEvent) -> None:
        """Do nothing."""

    def connection_ready(self, event: ConnectionReadyEvent) -> None:
        """Do nothing."""

    def pool_created(self, event: PoolCreatedEvent) -> None:
        """Do nothing."""

    def pool_ready(self, event: PoolReadyEvent) -> None:
        """Do nothing."""

    def pool_closed(self, event: PoolClosedEvent) -> None:
        """Do nothing."""


def build_client(
    settings: MongoSettings, password: str | None, *, application_name: str, listener: PoolListener
) -> Client:
    """Build a client and reach for nothing: connections are opened when the first operation asks for one.

    Writes are acknowledged by a majority and journalled, reads see what a majority has; both go to the primary. One
    operation, its retry included, takes at most `operation_timeout_seconds`. Times are aware, and in UTC.
    """
    options: dict[str, Any] = {  # the driver's own mixture of types
        "host": list(settings.hosts),
        "appname": application_name,
        "tz_aware": True,
        "uuidRepresentation": "standard",
        "w": "majority",
        "journal": True,
        "readConcernLevel": "majority",
        "maxPoolSize": settings.pool_max,
        "maxIdleTimeMS": round(settings.idle_seconds * 1_000),
        "connectTimeoutMS": round(settings.connect_timeout_seconds * 1_000),
        "timeoutMS": round(settings.operation_timeout_seconds * 1_000),
        # Not by a stream: that takes a second connection to each node, which a close in mid-connect leaves to the
        # garbage collector, and what it would tell sooner, the next operation's error tells as well.
        "serverMonitoringMode": "poll",
        "event_listeners": [listener],
        **_TLS[settings.tls],
    }
    if settings.replica_set is None:
        options["directConnection"] = True
    else:
        options["replicaSet"] = settings.replica_set
    if settings.tls_ca_file is not None:
        options["tlsCAFile"] = str(settings.tls_ca_file)
    if settings.user is not None:
        options |= {"username": settings.user, "password": password, "authSource": settings.auth_database}
    if settings.driver == "pymongo":
        return AsyncMongoClient(**options)
    from motor.motor_asyncio import AsyncIOMotorClient

    motor: Any = AsyncIOMotorClient(**options)  # its names are those of the other, its types none of them
    return motor  # type: ignore[no-any-return]


async def settle(value: Any) -> Any:  # noqa: ANN401 - what one driver returns, the other lets one await
    """Await what has to be awaited, and return the rest as it is."""
    return await value if inspect.isawaitable(value) else value
