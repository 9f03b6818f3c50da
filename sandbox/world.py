"""What a running platform must offer to its members, to whoever watches it, and to whoever disturbs it.

`sandbox.system.System` runs it as processes of this machine, `sandbox.compose.ComposeSystem` as containers, and the
members of `sandbox.members` find one that is there already.
"""

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from sandbox.balancer import Client
from sandbox.instance import Endpoint, Instance, Service, Stopped
from sandbox.load import Load
from sandbox.salesforce import SalesforceControl

CAMPAIGNS = "campaigns"
CONSENTS = "consents"


@dataclass(frozen=True, slots=True)
class MongoSide:
    """What campaigns and consents are kept in, and where consents are carried to.

    Attributes:
        reader_url: MongoDB, for a user who may read both databases.
        writer_url: MongoDB, for the user of the members' apps (`consent_writer`), who may change consents.
        salesforce: the control interface of the Salesforce sandbox; whoever made this closes it.
        campaigns: the name of the database of campaign_api.
        consents: the name of the database of the consents and of what consent_consumer knows of its work.
    """

    reader_url: str = field(repr=False)
    writer_url: str = field(repr=False)
    salesforce: SalesforceControl
    campaigns: str = CAMPAIGNS
    consents: str = CONSENTS


class Platform(Protocol):
    """A running platform as its members and their auditor see it."""

    @property
    def instances(self) -> Sequence[Endpoint]:
        """The instances that there are at this moment, of each service the oldest first."""

    @property
    def client(self) -> Client:
        """What requests are sent with."""

    @property
    def rewards_url(self) -> str:
        """The database `rewards`, for a role that may read all of it and insert members and rewards."""

    @property
    def coupons_url(self) -> str:
        """The database `coupons`, for a role that may read all of it."""

    @property
    def mongo_side(self) -> MongoSide | None:
        """MongoDB and Salesforce; None where neither campaign_api nor consent_consumer is part of the platform."""

    def token(self, subject: str, /, *, is_operator: bool = False) -> str:
        """Return a bearer token that the services accept, a member's or an operator's."""


class World(Platform, Protocol):
    """A platform whose instances are started and stopped from here."""

    @property
    def instances(self) -> Sequence[Instance]:
        """The instances that run, of each service the oldest first."""

    @property
    def ended(self) -> Sequence[Stopped]:
        """How each instance that was stopped in order has ended; one that was killed is not among them."""

    async def start(self, service: Service) -> Instance:
        """Start one more instance of a service and wait until it is ready.

        Raises:
            ServerError: it ended, or was not ready in time.
        """

    async def stop(self, instance: Instance) -> Stopped:
        """Stop one instance in order and note how it ended."""

    async def kill(self, instance: Instance) -> None:
        """Kill one instance as the kernel would, and forget it: how it ended is no difference to anybody."""

    async def replace(self, old: Instance) -> Instance:
        """Do a rolling restart of one instance: at every moment another one serves.

        Raises:
            ServerError: the new one did not become ready.
        """

    def open_load(self, file: Path, rejects: Path, *options: str) -> AbstractAsyncContextManager[Load]:
        """Begin to load a file of coupons; on leaving it has ended, by force if need be.

        Args:
            file: where it is; everybody may read it and its directory.
            rejects: the directory with the reject files, after the block as well.
            options: what else `etl load` is told.
        """

    async def step_mongo_down(self) -> None:
        """Make MongoDB's one node step down by force: for some seconds, until it is elected again, nobody can write.

        Raises:
            ServerError: the platform has no MongoDB.
        """

    async def stop_services(self) -> None:
        """Stop all instances: those first that put things on their way, then those that receive them."""
