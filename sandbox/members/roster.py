"""The instances of a platform that others run, found by name."""

import asyncio
import socket
from collections.abc import Mapping, Sequence

from runtime.auth import sign_token
from sandbox.http_client import HttpClient
from sandbox.instance import Endpoint, Service
from sandbox.members.settings import Address
from sandbox.world import MongoSide

_LOOK_SECONDS = 1.0
_LOOKUP_SECONDS = 5.0
_TOKEN_SECONDS = 366 * 86_400


class Roster:
    """A platform whose instances are looked up: every address behind a name is one.

    Args:
        addresses: where the instances of each service are.
        rewards_url: the database `rewards`.
        coupons_url: the database `coupons`.
        mongo_side: MongoDB, and Salesforce, whose connections it closes.
        token_secret: what the services verify tokens with.
    """

    def __init__(
        self,
        addresses: Mapping[Service, Sequence[Address]],
        *,
        rewards_url: str,
        coupons_url: str,
        mongo_side: MongoSide,
        token_secret: str,
    ) -> None:
        self.rewards_url = rewards_url
        self.coupons_url = coupons_url
        self.mongo_side = mongo_side
        self.client = HttpClient()
        self._token_secret = token_secret
        self._found: dict[tuple[Service, Address], list[Endpoint]] = {
            (service, address): [] for service, mine in addresses.items() for address in mine
        }

    @property
    def instances(self) -> Sequence[Endpoint]:
        """The instances that the last look found."""
        return [endpoint for endpoints in self._found.values() for endpoint in endpoints]

    def token(self, subject: str, /, *, is_operator: bool = False) -> str:
        """Return a bearer token that the services accept for a year, a member's or an operator's."""
        return sign_token(
            subject, "operator" if is_operator else "member", self._token_secret, lifetime_seconds=_TOKEN_SECONDS
        )

    async def aclose(self) -> None:
        """Close the connections."""
        await self.client.aclose()
        await self.mongo_side.salesforce.aclose()

    async def watch(self) -> None:
        """Look each second until cancelled."""
        while True:
            await self.look()
            await asyncio.sleep(_LOOK_SECONDS)

    async def look(self) -> None:
        """Look every name up once.

        A name that nobody knows at the moment keeps the addresses it had: whether anybody is there, readiness tells.
        """
        await asyncio.gather(*(self._look_up(service, address) for service, address in self._found))

    async def _look_up(self, service: Service, address: Address) -> None:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(_LOOKUP_SECONDS):
                found = await loop.getaddrinfo(
                    address.host, address.http_port, family=socket.AF_INET, type=socket.SOCK_STREAM
                )
        except (OSError, TimeoutError):
            return
        hosts = sorted({str(sockaddr[0]) for *_, sockaddr in found})
        self._found[service, address] = [
            Endpoint(
                f"{service} {host}:{address.admin_port}",
                service,
                f"http://{host}:{address.http_port}" if service.serves_members else None,
                f"http://{host}:{address.admin_port}",
            )
            for host in hosts
        ]
